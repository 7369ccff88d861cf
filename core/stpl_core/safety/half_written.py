"""Hidden files and directories while they are written: held by their process, swept after a kill.

    .NAME.8hex.tmp, .NAME.8hex.partial     beside what they become
    stpl-KIND-8hex                         in the temporary directory

Whoever writes one holds a lock on it, which ends with the process, however that ends. The next
process that writes the same NAME, or takes a room of its own, removes what nobody holds.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)
_LATE_S = 2.0
_STALE_S = 3600.0
"""Where files cannot be locked, what is younger may be of a process that lives."""
_BESIDE = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(?:tmp|partial)")
_ROOM = re.compile(r"stpl-[a-z0-9]+-[0-9a-f]{8}")
_looked: dict[Path, list[str]] = {}
"""Folder -> what was left there when this process first wrote into it."""


def name_beside(path: Path, suffix: str) -> Path:
    """A new hidden name in the same directory, for what becomes `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{suffix}")


def hold(handle: int) -> bool:
    """Hold an open file or directory until the handle is closed; False: it was swept meanwhile."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
                raise
    return os.fstat(handle).st_nlink > 0


@contextmanager
def held_directory(path: Path, suffix: str = "partial") -> Iterator[Path]:
    """A directory under a hidden name beside `path`, held; whatever is left of it goes at the end.

    What killed processes left beside `path` is removed first.

    Args:
        path: what it is about to become; its parent is there.
        suffix: of the hidden name.
    """
    sweep_beside(path)
    with _held(lambda: name_beside(path, suffix), 0o777) as made:
        yield made


@contextmanager
def scratch_directory(kind: str) -> Iterator[Path]:
    """A directory of this user alone in the temporary directory, for as long as the block lasts.

    Args:
        kind: what it is for, small letters: a part of its name.
    """
    folder = Path(tempfile.gettempdir())
    for name in _left_in(folder, _ROOM):
        remove_left(folder / name)
    _looked[folder] = []
    with _held(lambda: folder / f"stpl-{kind}-{secrets.token_hex(4)}", 0o700) as made:
        yield made


@contextmanager
def _held(name: Callable[[], Path], mode: int) -> Iterator[Path]:
    while True:
        path = name()
        path.mkdir(mode)
        try:
            handle = None if sys.platform == "win32" else os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # nobody held it yet: another process has swept it
            continue
        if handle is None or hold(handle):
            break
        os.close(handle)
    try:
        yield path
    finally:
        _remove_wholly(path)
        if handle is not None:
            os.close(handle)


def _remove_wholly(path: Path) -> None:
    """Remove a directory into which a library's threads may still write for a moment."""
    until = time.monotonic() + _LATE_S
    while path.exists() and time.monotonic() < until:
        shutil.rmtree(path, ignore_errors=True)


def sweep_beside(path: Path) -> None:
    """Remove what killed processes left of `path`; each folder is looked through once."""
    for name in _left_in(path.parent, _BESIDE):
        found = _BESIDE.fullmatch(name)
        if found is not None and found[1] == path.name:
            _looked[path.parent].remove(name)
            remove_and_tell(path.parent / name)


def _left_in(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    if folder not in _looked:
        try:
            _looked[folder] = [name for name in os.listdir(folder) if pattern.fullmatch(name)]
        except OSError:
            _looked[folder] = []
    return list(_looked[folder])


def remove_and_tell(path: Path) -> None:
    """As `remove_left`, with a line in the log of what was removed."""
    if remove_left(path):
        _log.warning("removed %s, which a process that was killed left half-written", path)


def remove_left(path: Path) -> bool:
    """Remove a hidden file or directory unless a process holds it; whether it was removed."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) or not _is_ours(found):
            return False
        if sys.platform == "win32":
            return time.time() - found.st_mtime > _STALE_S and _remove(path)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _is_free(handle) and _remove(path)
    finally:
        os.close(handle)


def _is_ours(found: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def _is_free(handle: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return time.time() - os.fstat(handle).st_mtime > _STALE_S
    return True


def _remove(path: Path) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return False  # in use, or not ours to remove; it hinders nobody
    return True
