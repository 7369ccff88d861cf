"""Links of the documents that lead out of docs/: on the site they lead to a copy of the file."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Documents beside the code that are pages too: page -> file."""
COPIES = "source"
"""The site's folder of files that documents link to."""
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)(?=[)#])")


def outside(page: str, text: str) -> Iterator[str]:
    """Files of the repository outside docs/ that a page links to, by their path in it."""
    for link in _LINK.findall(text):
        path = _in_repository(page, link)
        here = path.startswith("docs/") or path in ROOT_PAGES.values()
        if not here and (ROOT / path).is_file():
            yield path


def on_the_site(page: str, text: str) -> str:
    """A page's text with links that hold on the site."""
    return _LINK.sub(_mover(page), text)


def _mover(page: str) -> Callable[[re.Match[str]], str]:
    pages = {file: name for name, file in ROOT_PAGES.items()}

    def move(found: re.Match[str]) -> str:
        path = _in_repository(page, found.group(1))
        if path.startswith("docs/"):
            there = path.removeprefix("docs/")
            if page != _page_of(there):  # a notebook's own page leads to the notebook
                there = _page_of(there)
        elif path in pages:
            there = pages[path]
        else:
            there = f"{COPIES}/{path}"
        return posixpath.relpath(there, str(PurePosixPath(page).parent))

    return move


def _page_of(path: str) -> str:
    """The page of a file in docs/: a notebook has one of its name."""
    return re.sub(r"\.ipynb$", ".md", path)


def _in_repository(page: str, link: str) -> str:
    """A link as a path in the repository."""
    home = "." if page in ROOT_PAGES else str(PurePosixPath("docs", page).parent)
    return posixpath.normpath(posixpath.join(home, link))
