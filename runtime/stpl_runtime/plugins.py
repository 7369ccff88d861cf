"""One word names a source or a sink: ours by a table, another package's by an entry point."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from stpl_core.errors import UsageError


def known_words(built_in: Mapping[str, str], group: str) -> list[str]:
    """Every word there is: our own, then those of other packages."""
    others = (point.name for point in entry_points(group=group))
    return list(dict.fromkeys([*built_in, *others]))


def load_word(kind: str, word: str, built_in: Mapping[str, str], group: str) -> Any:
    """What stands behind a word.

    Args:
        kind: `source` or `sink`, for the message.
        word: a word of `known_words`.
        built_in: word -> `module:name`.
        group: of the entry points of other packages.

    Raises:
        UsageError: another package's does not load.
    """
    if word in built_in:
        module_name, _, name = built_in[word].partition(":")
        return getattr(importlib.import_module(module_name), name)
    (point,) = entry_points(group=group, name=word)
    try:
        return point.load()
    except Exception as error:  # whatever another package's import raises
        raise UsageError(
            f"{kind} {word} ({point.value}) does not load: {error}",
            expected="what runtime/stpl_runtime says of the entry point",
            fix="repair or uninstall the package it comes from",
        ) from error


def nearest(word: str, words: Iterable[str], otherwise: str) -> str:
    """The known word that is spelt most like it."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return near[0] if near else otherwise


def check_options(what: str, given: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse an option that `what` does not have.

    Raises:
        UsageError: names the nearest one it has.
    """
    names = list(known)
    for name, value in given.items():
        if name not in names:
            near = nearest(name, names, names[0] if names else "")
            raise UsageError(
                f"{what} has no option {name}",
                expected=f"one of {', '.join(names)}" if names else "no option",
                fix=f"{near}={value}" if near else "leave it out",
            )
