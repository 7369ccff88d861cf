"""Files and directories that are whole or not there at all, their checksums, and the cache."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stpl_core.errors import FrameError, UsageError
from stpl_core.safety.half_written import held_directory, hold, name_beside, sweep_beside


def cache_directory(kind: str) -> Path:
    """Where this user's downloads and builds are kept, by `kind`: the platform's cache directory.

    XDG_CACHE_HOME decides wherever it is set.
    """
    home, chosen = Path.home(), os.environ.get("XDG_CACHE_HOME")
    if chosen:
        base = Path(chosen)
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = home / ".cache"
    return base / "stpl-deploy" / kind


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if _HAS_DIGEST else _digest(file)


_HAS_DIGEST = hasattr(hashlib, "file_digest")  # Python 3.11 and later


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path, *, sync: bool = True, private: bool = False) -> Iterator[BinaryIO]:
    """Write a file under a hidden temporary name beside `path`; rename it when the block ends well.

    On an error nothing of the new file is left and an older `path` is untouched.

    Args:
        path: the file.
        sync: survive a power cut, too; False is for what is written often and checks itself.
        private: readable by its owner alone.

    Raises:
        UsageError: a parent of `path` is a file.
    """
    _make_parent(path)
    sweep_beside(path)
    temporary, handle = _new_file(path, 0o600 if private else 0o666)
    held = os.dup(handle)  # until it has its name; Windows renames no open file, and has no locks
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if sys.platform == "win32":
            os.close(held)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if sys.platform != "win32":
            os.close(held)
    if sync:
        _sync_directory(path.parent)


def _new_file(path: Path, mode: int) -> tuple[Path, int]:
    """A hidden file that is held, and its handle."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        temporary = name_beside(path, "tmp")
        handle = os.open(temporary, flags, mode)
        if hold(handle):
            return temporary, handle
        os.close(handle)


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{path.parent} is not a directory", expected="a directory", fix="another path"
        ) from error


@contextmanager
def atomic_directory(out: Path) -> Iterator[Path]:
    """Fill a directory under a hidden temporary name; rename it to `out` when the block ends well.

    Raises:
        UsageError: `out` already exists and is not an empty directory.
    """
    refuse_existing(out)
    _make_parent(out)
    with held_directory(out) as partial:
        yield partial
        for path in partial.rglob("*"):
            if path.is_dir():
                _sync_directory(path)
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        _sync_directory(partial)
        refuse_existing(out)  # it may have been made meanwhile
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    _sync_directory(out.parent)


def check_writable(folder: Path) -> None:
    """Check for write permission in `folder` before there is anything to write.

    A full disk passes: there may be space again when something is written.

    Raises:
        OSError: no permission, or no folder.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def refuse_existing(out: Path, option: str = "--out") -> None:
    """Raise UsageError if `out` holds something that would be overwritten."""
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise UsageError(
            f"{out} already exists",
            expected="a path that does not exist yet, or an empty directory",
            fix=f"another {option}, or remove {out}",
        )


def no_rights(path: Path) -> FrameError:
    """The error of a file or folder that this user may not read."""
    return FrameError(
        f"{path} cannot be read: Permission denied",
        expected=f"a {'folder' if path.is_dir() else 'file'} that this user may read",
        fix=f"ls -ld {path} shows its owner and permissions",
    )
