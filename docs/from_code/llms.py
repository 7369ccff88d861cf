"""llms.txt: the site's pages in one plain list, for programs that read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Section = tuple[str, Sequence[tuple[str, str]]]
"""(title, pages as (title, path of its Markdown))"""
_NO_WORDS = ("    ", "|", ":::")
"""How code, tables and what mkdocstrings fills in begin."""


def listing(name: str, about: str, sections: Sequence[Section], texts: Mapping[str, str]) -> str:
    """The list: a line for each page, with the first sentence of its text."""
    lines = [f"# {name}", "", f"> {about}", ""]
    for title, pages in sections:
        lines += [f"## {title}", ""]
        lines += [f"- [{page}]({path}): {first_sentence(texts[path])}" for page, path in pages]
        lines.append("")
    return "\n".join(lines)


def sections(navigation: Sequence[Any], texts: Mapping[str, str]) -> list[Section]:
    """The sections of mkdocs.yml's navigation, each page by its name there, else by its heading."""
    found: list[Section] = []
    for section in navigation:
        ((title, pages),) = section.items()
        named = [
            (heading(texts[page]), page) if isinstance(page, str) else next(iter(page.items()))
            for page in pages
        ]
        found.append((title, named))
    return found


def heading(text: str) -> str:
    """A page's first line, which is its heading."""
    return text.splitlines()[0].lstrip("# ")


def first_sentence(text: str) -> str:
    """What a page says first below its heading, in words: without links, code and tables."""
    text = re.sub(r"^```.*?^```|^#.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    parts = (part for part in re.split(r"\n\s*\n", text) if part.strip())
    paragraph = next((part for part in parts if not part.lstrip("\n").startswith(_NO_WORDS)), "")
    words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
    return re.split(r"(?<=[.:])\s", words)[0].rstrip(":").strip()
