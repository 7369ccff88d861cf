"""Turns a reader's missing library into the line that installs it, and its complaints into ours."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, TypeVar

from stpl_core.errors import FrameError, MissingExtraError, StplError
from stpl_core.files import no_rights

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
                expected=f"a layout that the reader {word} knows",
                fix="--reader WORD if it is of another kind; if other programs read it, report it",
            ) from error
        if other := _other_kind(path):
            raise FrameError(
                f"{path} begins as {other[0]}, and cannot be read as {word}: {reason}",
                expected="a file of the kind that its name says",
                fix=other[1],
            ) from error
        raise FrameError(
            f"{path} cannot be read as {word}: {reason}", **_advice(error, reason, word)
        ) from error


_KINDS = (
    (rb"\s*<(!doctype|html|\?xml)", "a web page", "fetch it again: this is what a server answered"),
    (rb"\x1f\x8b", "a gzip", "rename it to end in .gz"),
    (rb"BZh", "a bzip2", "rename it to end in .bz2"),
    (rb"PK\x03\x04", "a zip", "rename it to end in .zip, or .npz if NumPy wrote it"),
    (rb"\x89HDF", "an HDF5", "rename it to end in .h5, or --reader netcdf"),
    (rb"CDF[\x01\x02\x05]", "a NetCDF", "rename it to end in .nc"),
    (rb"GRIB", "a GRIB", "rename it to end in .grib2"),
    (rb"\x89PNG", "a PNG", "rename it to end in .png"),
    (rb"version https://git-lfs", "a pointer of Git LFS", "git lfs pull"),
)
"""First bytes, what they are, and what to do where the name says otherwise."""
_AGREE = {
    "a gzip": (".gz", ".tgz"),
    "a bzip2": (".bz2", ".tbz2"),
    "a zip": (".zip", ".npz"),
    "an HDF5": (".h5", ".hdf5", ".hdf", ".he5", ".hd5", "-hd5", ".nc", ".nc4", ".cdf", ".netcdf"),
    "a NetCDF": (".nc", ".nc3", ".cdf", ".netcdf"),
    "a GRIB": (".grib", ".grib2", ".grb", ".grb2"),
    "a PNG": (".png",),
}
"""Ends of names that say so."""


def _other_kind(path: Path) -> tuple[str, str] | None:
    """What a file is by its first bytes, and what to do, where its name says another thing."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(64)
    for pattern, kind, fix in _KINDS:
        if re.match(pattern, head, re.IGNORECASE):
            return None if path.name.lower().endswith(_AGREE.get(kind, ())) else (kind, fix)
    return None


class _Advice(TypedDict):
    expected: str
    fix: str


def _advice(error: Exception, reason: str, word: str) -> _Advice:
    """What to do: copy a file again that is cut or damaged; of any other trouble nobody knows."""
    if isinstance(error, (EOFError, OSError)) or _CUT.search(reason):
        return {
            "expected": "a whole file",
            "fix": "copy it again if it is cut short or damaged, or name another --reader",
        }
    return {
        "expected": f"a file as the reader {word} knows it",
        "fix": "--reader WORD if it is of another kind; if other programs read it, report it",
    }


def refuse_empty(path: Path) -> None:
    """Raise FrameError where the file `path` has no bytes."""
    if path.is_file() and path.stat().st_size == 0:
        raise FrameError(f"{path} is empty", expected="a whole file", fix="copy it again")
