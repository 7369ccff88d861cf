"""Which of the user's own classes may be imported: those that were named by hand, no others.

A run's recipe and a bundle's manifest travel between people. A model name `package.module:Class`
in them would import that module, and an import runs code. So such a name is followed only where
whoever runs the program gave it too: `--model`, `--trust-model`, or `trust_model` in Python.
"""

from __future__ import annotations

from collections.abc import Iterable

_trusted: set[str] = set()


def trust_model(*names: str) -> None:
    """Let these `package.module:Class` be imported where a run or a bundle names them.

    It holds for this process. Importing a module runs its code: trust only what you know.
    """
    _trusted.update(names)


def forget_trust() -> None:
    """Trust no class any more."""
    _trusted.clear()


def is_trusted(name: str) -> bool:
    """Whether this very `package.module:Class` was given by hand."""
    return name in _trusted


def trusted_models() -> Iterable[str]:
    """Every one that was given, for a process that is started."""
    return tuple(sorted(_trusted))
