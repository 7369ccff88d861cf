"""Libraries of the extras, and the user's own modules, as the verbs that need them see them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from stpl_core.errors import MissingExtraError

_OURS = ("stpl_core", "stpl_deploy", "stpl_train", "stpl_export", "stpl_runtime")


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap the imports of a verb that needs `extra`.

    Raises:
        MissingExtraError: one of its libraries is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "a library").partition(".")[0]
        if library in _OURS:
            raise
        raise MissingExtraError(library, extra) from error


def import_from_here() -> None:
    """Make a `package.module:Class` that was given by hand importable from the current folder.

    Behind everything installed: a json.py that lies beside the data must not replace Python's.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
