"""A directory (a run, a bundle) as files of a few megabytes, and whole again elsewhere.

    OUT/parts.json          every file: its path, size, SHA-256 and parts
    OUT/0001.part ...       the bytes, at most `size` in each, each with its own SHA-256

For places that take small files only: mail, artefact stores, version control.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from stpl_core.errors import ChecksumError, UsageError
from stpl_core.files import atomic_directory
from stpl_core.safety.printable import printable

INDEX = "parts.json"
_LONGEST = 400
_NO_NAME = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)
_LARGEST_INDEX = 64 * 2**20
SIZE = 15 * 2**20
"""Bytes of a part: below the 16 MB that many places allow."""


class Part(BaseModel):
    """One piece of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    bytes: NonNegativeInt
    sha256: str


class Whole(BaseModel):
    """One file of the directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    """Relative, with `/`."""
    bytes: NonNegativeInt
    sha256: str
    parts: tuple[Part, ...]


class Index(BaseModel):
    """`parts.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: int = 1
    name: str
    """Of the directory that was split."""
    files: tuple[Whole, ...]


def split(directory: Path, out: Path, size: int = SIZE) -> Index:
    """Split every file of `directory`.

    Args:
        directory: a run, a bundle, or any other.
        out: the directory to make; whole or not there.
        size: most bytes of a part, 1 or more.

    Raises:
        UsageError: no such directory, nothing in it, or `out` already exists.
    """
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    if not paths:
        raise UsageError(
            f"{directory} holds no files", expected="a run or a bundle", fix="check the path"
        )
    with atomic_directory(out) as partial:
        files: list[Whole] = []
        number = 0
        for path in paths:
            digest, parts = hashlib.sha256(), []
            for content in _pieces(path, size):
                number += 1
                digest.update(content)
                name = f"{number:04d}.part"
                (partial / name).write_bytes(content)
                found = hashlib.sha256(content).hexdigest()
                parts.append(Part(name=name, bytes=len(content), sha256=found))
            files.append(
                Whole(
                    path=path.relative_to(directory).as_posix(),
                    bytes=sum(part.bytes for part in parts),
                    sha256=digest.hexdigest(),
                    parts=tuple(parts),
                )
            )
        index = Index(name=directory.resolve().name, files=tuple(files))
        (partial / INDEX).write_text(index.model_dump_json(indent=1) + "\n")
    return index


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while content := file.read(size):
            yield content


def join(parts: Path, out: Path) -> Index:
    """Put a directory together again, byte for byte.

    Args:
        parts: what `split` made.
        out: the directory to make; whole or not there.

    Raises:
        UsageError: no parts, or `out` already exists.
        ChecksumError: a part is missing or has changed; the message names it.
    """
    index = _read_index(parts)
    with _within(parts), atomic_directory(out) as partial:
        for whole in index.files:
            target = partial / _inside(whole.path, parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with target.open("xb") as file:
                for part in whole.parts:
                    content = _content(parts / _inside(part.name, parts), part)
                    digest.update(content)
                    file.write(content)
            if digest.hexdigest() != whole.sha256:
                raise ChecksumError(
                    f"{whole.path} has changed",
                    expected=f"SHA-256 {whole.sha256}",
                    fix="split it again",
                )
    return index


@contextmanager
def _within(parts: Path) -> Iterator[None]:
    """One line for an index whose names exclude one another, or are none."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_NAME:
            raise
        raise UsageError(
            f"{parts / INDEX} names files that cannot be made: {printable(error)}",
            expected="what `stpl-deploy parts split` made",
            fix="do not use it: no split made this",
        ) from error


def _read_index(parts: Path) -> Index:
    path = parts / INDEX
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= _LARGEST_INDEX):
            raise ValueError("it is not a file, or too long")
        return Index.model_validate(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise UsageError(
            f"no file {path}",
            expected="a folder written by stpl-deploy parts split",
            fix="check the path",
        ) from error
    except (ValueError, ValidationError, OSError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read: {printable(str(error).partition(chr(10))[0])}",
            expected="an index written by stpl-deploy parts split",
            fix="copy it again",
        ) from error


def _inside(name: str, parts: Path) -> PurePosixPath:
    """A path inside the directory, whatever the index holds."""
    path = PurePosixPath(name)
    wrong = not name.isprintable() or "\\" in name or ":" in name or len(name) > _LONGEST
    if wrong or path.is_absolute() or ".." in path.parts or not path.parts:
        raise UsageError(
            f"{parts / INDEX} names {printable(name)!r}",
            expected="paths inside the directory",
            fix="do not use it: stpl-deploy parts split did not write this",
        )
    return path


def _content(path: Path, part: Part) -> bytes:
    try:
        # Looked at first: a pipe would be waited for, and another size may be of any length.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != part.bytes:
            raise ChecksumError(
                f"{path} has changed ({found.st_size:,} bytes)",
                expected=f"a file of {part.bytes:,} bytes",
                fix="copy it again",
            )
        content = path.read_bytes()
    except OSError as error:
        raise ChecksumError(
            f"{path} is missing", expected=f"{part.bytes:,} bytes", fix="copy all parts"
        ) from error
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise ChecksumError(
            f"{path} has changed ({len(content):,} bytes)",
            expected=f"{part.bytes:,} bytes of SHA-256 {part.sha256[:16]}...",
            fix="copy it again",
        )
    return content
