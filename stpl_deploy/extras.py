"""Libraries of the extras, as what needs them sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stpl_core.errors import MissingExtraError

_OURS = ("stpl_core", "stpl_deploy", "stpl_train", "stpl_export", "stpl_runtime")


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap the imports of what needs `extra`.

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
