"""Turns a reader's missing library into the line that installs it, and its complaints into ours."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from stpl_core.errors import FrameError, MissingExtraError, StplError
from stpl_core.frames import no_rights

NETCDF_LOCK = threading.RLock()
"""Held around every use of netCDF4, whose library crashes when two threads are in it: a source
reads, sinks and the page write, each in its own thread. (h5py has a lock of its own.)"""

_UNKNOWN_LAYOUT = (AttributeError, LookupError, NotImplementedError, TypeError)
"""What comes of a file that is whole and has other parts than a reader looks for."""
_CUT = re.compile(r"truncat|end of file|unexpected end|too short|cut off|damaged", re.IGNORECASE)

T = TypeVar("T")


def one_at_a_time(items: Generator[T, None, None]) -> Iterator[T]:
    """The same items, each made under `NETCDF_LOCK`, which is free while they are used."""
    try:
        while True:
            with NETCDF_LOCK:
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
    finally:
        with NETCDF_LOCK:
            items.close()


@contextmanager
def reads_with(extra: str) -> Iterator[None]:
    """Wrap the imports of a reader whose library comes with `extra`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "a library").partition(".")[0]
        if library == "stpl_deploy":
            raise
        raise MissingExtraError(library, extra) from error


@contextmanager
def decoding(path: Path, word: str) -> Iterator[None]:
    """Wrap the decoding of `path`.

    Raises:
        FrameError: the library could not decode it; names the file and the reader `word`.
    """
    try:
        yield
    except PermissionError as error:
        raise no_rights(path) from error
    except StplError:
        raise
    except Exception as error:  # libraries raise what they like on bytes that nobody thought of
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _UNKNOWN_LAYOUT) and not _CUT.search(reason):
            raise FrameError(
                f"{path} cannot be read as {word}: {type(error).__name__}: {reason}",
                expected=f"a whole file of a layout that the reader {word} knows",
                fix="--reader WORD names another reader; --variable NAME another field",
            ) from error
        raise FrameError(
            f"{path} cannot be read as {word}: {reason}",
            expected="a whole file",
            fix="copy it again (a truncated copy reads like this), or name another --reader",
        ) from error


def refuse_empty(path: Path) -> None:
    """Raise FrameError where the file `path` has no bytes."""
    if path.is_file() and path.stat().st_size == 0:
        raise FrameError(f"{path} is empty", expected="a whole file", fix="copy it again")
