"""What mkdocs calls while it builds the site (mkdocs.yml): adds the pages made from the code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[2]))  # `mkdocs build` runs from anywhere

from docs.from_code import (
    errors,
    http_api,
    llms,
    manifest,
    metrics,
    notebooks,
    places,
    python_api,
    recipe_keys,
    verbs,
)

MADE: dict[str, Callable[[], str]] = {
    "reference/errors.md": errors.page,
    "reference/http.md": http_api.page,
    "reference/manifest.md": manifest.page,
    "reference/manifest.schema.json": manifest.schema,
    "reference/metrics.md": metrics.page,
    "reference/python.md": python_api.page,
    "reference/recipe-keys.md": recipe_keys.page,
    "reference/verbs.md": verbs.page,
}
"""File of the site -> what makes it."""

ICON, _PAGE_ICON = "icon.svg", "runtime/stpl_runtime/page/static/icon.svg"
"""The live page's, for the site as well."""

_texts: dict[str, str] = {}
"""Page -> its Markdown, of the build that is running."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what is made from the code, what the documents link to beside docs/, and llms.txt."""
    from mkdocs.structure.files import File

    for uri, make in MADE.items():
        files.append(File.generated(config, uri, content=make()))
    for notebook in notebooks.paths():
        text, pictures = notebooks.page(notebook)
        uri = f"{notebooks.FOLDER}/{notebook.stem}.md"
        files.append(File.generated(config, uri, content=text))
        for name, picture in pictures.items():
            uri = f"{notebooks.FOLDER}/{name}"
            files.append(File.generated(config, uri, content=picture))
    for uri, path in {**places.ROOT_PAGES, ICON: _PAGE_ICON}.items():
        files.append(File.generated(config, uri, abs_src_path=str(places.ROOT / path)))
    given = {file.src_uri: file.content_string for file in files.documentation_pages()}
    linked = {path for uri, text in given.items() for path in places.outside(uri, text)}
    for path in sorted(linked):
        source = str(places.ROOT / path)
        files.append(File.generated(config, f"{places.COPIES}/{path}", abs_src_path=source))
    _texts.clear()
    _texts.update({uri: places.on_the_site(uri, text) for uri, text in given.items()})
    about = config.site_description or ""
    listing = llms.listing(config.site_name, about, llms.sections(config.nav or [], _texts), _texts)
    files.append(File.generated(config, "llms.txt", content=listing))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Give the text whose links lead to places of the site."""
    return _texts.get(page.file.src_uri, markdown)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Write each page's Markdown beside it, where llms.txt expects it."""
    for uri, text in _texts.items():
        (Path(config.site_dir) / uri).write_text(text)
