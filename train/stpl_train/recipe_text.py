"""Recipes as TOML: the shipped ones, those that extend another, and single settings.

Python 3.10 has no `tomllib`: it is imported where TOML is read, so that an edge device can judge a
bundle by the recipe in its manifest.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

from stpl_core.errors import RecipeError

Document = dict[str, Any]

_WHOLE = {"model": "name", "data": "source"}
"""Sections that replace the extended recipe's where they state another one of this key."""
_DEEPEST = 8
_MOST_BYTES = 2**20
_MOST_DOTS = 200
"""In one line."""


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("stpl_train") / "recipes"
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def recipe_title(name: str) -> str:
    """A shipped recipe's description: its first line."""
    return _shipped_text(name).partition("\n")[0].lstrip("# ")


def read_document(
    name: str, rest: str = "", *, command: str = "stpl-deploy train", depth: int = 0
) -> Document:
    """Read a recipe by file or shipped name, with what it extends.

    `extends = "NAME"` at the top of a recipe takes another one's keys, and its own come before
    them; a `[model]` of another name and a `[data]` of another source take nothing over. NAME is
    a shipped recipe, or a file beside this one.

    Args:
        name: a file, or one of `shipped_recipes`.
        rest: what follows the recipe on the command line, to be typed again after a typo.
        command: what stands before the recipe on the command line.
        depth: of recipes that extend one another.

    Raises:
        RecipeError: no such recipe, not TOML, or recipes that extend one another in a circle.
    """
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise RecipeError(
                f"no recipe file {path}", expected="a .toml file", fix="check the path"
            )
        text = text_of(path)
    elif name in shipped_recipes():
        text = _shipped_text(name)
    else:
        near = difflib.get_close_matches(name, shipped_recipes(), n=1, cutoff=0.4)
        raise RecipeError(
            f"no recipe {name}",
            expected="a .toml file, or a name from stpl-deploy train --list",
            fix=f"{command} {near[0]}{rest}" if near else "stpl-deploy train --list",
        )
    import tomllib

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{name} is not TOML: {error}", expected="TOML", fix="correct that line"
        ) from error
    base = document.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str) or depth == _DEEPEST or base != Path(base).name:
        raise RecipeError(
            f"{name}: extends = {base!r}",
            expected="one other recipe, beside it or shipped, that does not extend this one",
            fix='extends = "modernn-mmnist"',
        )
    beside = path.parent / base
    if not (path.is_file() and beside.is_file()) and base not in shipped_recipes():
        raise RecipeError(
            f"{name}: extends = {base!r}, which is not beside it",
            expected="a file beside this one, or a name from stpl-deploy train --list",
            fix='extends = "modernn-mmnist"',
        )
    found = str(beside) if path.is_file() and beside.is_file() else base
    return _extended(read_document(found, depth=depth + 1), document)


def apply_setting(document: Document, setting: str) -> None:
    """Put `section.key=value` into a document.

    Raises:
        RecipeError: it has another form.
    """
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise RecipeError(
            f"--set {setting}", expected="section.key=value", fix="--set training.iterations=500"
        )
    import tomllib

    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    at = document
    for part in parts[:-1]:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise RecipeError(
                f"--set {setting}: {part} is a value", expected="a section", fix="check the key"
            )
    at[parts[-1]] = value


def _shipped_text(name: str) -> str:
    return (resources.files("stpl_train") / "recipes" / f"{name}.toml").read_text()


def text_of(path: Path) -> str:
    """The text of a recipe's file, within what recipes have.

    Raises:
        RecipeError: it is no such file.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        text = path.read_text()
        # A key a.a.a... of thousands of parts takes the square of them to read.
        if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"a line has more than {_MOST_DOTS} dots")
        return text
    except (ValueError, OSError) as error:
        raise RecipeError(
            f"{path} cannot be read: {error}", expected="TOML in UTF-8", fix="check the file"
        ) from error


def _extended(base: Document, own: Document) -> Document:
    made = dict(base)
    for section, keys in own.items():
        below = base.get(section)
        if not isinstance(below, dict) or not isinstance(keys, dict):
            made[section] = keys
            continue
        chosen = _WHOLE.get(section, "")
        another = chosen in keys and keys[chosen] != below.get(chosen)
        made[section] = keys if another else below | keys
    return made
