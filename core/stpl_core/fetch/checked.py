"""A public file on this disk: from the first mirror that has it, with the bytes promised."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict

from stpl_core.errors import ChecksumError, EnvironmentFault, SinkError
from stpl_core.fetch.transfer import OnProgress, Part, Wait, transfer
from stpl_core.files import atomic_file

_BLOCK = 1 << 20


class PublicFile(BaseModel):
    """One file of a public data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What it is called here; of an archive, what is fetched and unpacked."""
    at: str = ""
    """Its path below a mirror, where that differs from `name`."""
    digest: str | None = None
    """`md5:`, `sha1:` or `sha256:` and hexadecimal digits, of the file after gunzipping; None: its
    owner publishes none, and no other published checksum is known."""
    bytes: int | None = None
    """Size of what `digest` is of."""
    unpack: Literal["", "gz", "zip"] = ""
    """`gz`: mirrors have it compressed; `zip`: its members are unpacked."""


class Fetched(BaseModel):
    """A file that is there now."""

    name: str
    digest: str
    """Of the promised kind, or `sha256:` where none is promised."""
    promised: bool
    """Whether the digest was known beforehand."""
    url: str
    """Empty where the file was already there."""
    members: dict[str, int] = {}
    """What was unpacked: path -> bytes."""


def fetch_file(
    file: PublicFile,
    folder: Path,
    mirrors: Sequence[str],
    on_progress: OnProgress = lambda done, of: None,
    wait: Wait = time.sleep,
) -> Fetched:
    """Fetch a file into `folder` and check it; nothing is left of one with other bytes.

    An unfinished download stays as a hidden part file, and the next call resumes it. Processes
    that fetch into the same folder wait for one another.

    Args:
        file: which.
        folder: made where it is missing.
        mirrors: URLs of folders that hold it, tried in turn.
        on_progress: called with the bytes done and expected.
        wait: sleeps between attempts.

    Raises:
        ChecksumError: every mirror that has it gives other bytes.
        EnvironmentFault: no mirror can be read.
        SinkError: the disk is full or may not be written.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        target = folder / file.name
        if file.unpack != "zip" and file.digest and _fits(target, file):
            return Fetched(name=file.name, digest=file.digest, promised=True, url="")
        failure: Exception | None = None
        for mirror in mirrors:
            url = f"{mirror}/{file.at or file.name}"
            try:
                return _fetch(file, target, url, on_progress, wait)
            except ChecksumError as error:
                failure = error
            except EnvironmentFault as error:
                # Other bytes are the worse news.
                failure = failure if isinstance(failure, ChecksumError) else error
                if isinstance(error, SinkError):
                    break
        if new:
            with contextlib.suppress(OSError):  # what came so far lies in it
                folder.rmdir()
        assert failure is not None, "a mirror"
        raise failure


def _fetch(
    file: PublicFile, target: Path, url: str, on_progress: OnProgress, wait: Wait
) -> Fetched:
    part = Part(target.with_name(f".{target.name}.part"))
    resumed = transfer(url, part, on_progress, wait)
    try:
        return _settle(file, target, url, part)
    except ChecksumError:
        part.remove()
        if not resumed:
            raise
    # Two halves that do not belong together: once more from the start.
    transfer(url, part, on_progress, wait)
    try:
        return _settle(file, target, url, part)
    except ChecksumError:
        part.remove()
        raise


def _settle(file: PublicFile, target: Path, url: str, part: Part) -> Fetched:
    """Check the bytes and put them where they belong."""
    members: dict[str, int] = {}
    if file.unpack == "gz":
        with atomic_file(target) as out:
            found = _gunzip(part.path, out, file)
            _check(file, found, url)
    else:
        found = digest_of(part.path, _kind(file))
        _check(file, found, url)
        if file.unpack == "zip":
            members = _unzip(part.path, target.parent, url)
        else:
            with part.path.open("rb") as whole:
                os.fsync(whole.fileno())
            part.path.replace(target)
    part.remove()
    return Fetched(
        name=file.name, digest=found, promised=file.digest is not None, url=url, members=members
    )


def _check(file: PublicFile, found: str, url: str) -> None:
    if file.digest is not None and found != file.digest:
        raise ChecksumError(
            f"{url} has other bytes ({_short(found)})",
            expected=_short(file.digest),
            fix="the same again later, or another copy; nothing was kept",
        )


def _short(digest: str) -> str:
    kind, _, digits = digest.partition(":")
    return f"{kind} {digits[:8]}…"


def _kind(file: PublicFile) -> str:
    return (file.digest or "sha256:").partition(":")[0]


def _fits(path: Path, file: PublicFile) -> bool:
    if not path.is_file() or file.bytes not in (None, path.stat().st_size):
        return False
    return digest_of(path, _kind(file)) == file.digest


def digest_of(path: Path, kind: str = "sha256") -> str:
    """`kind:` and the hexadecimal digest of a file."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def _gunzip(source: Path, out: BinaryIO, file: PublicFile) -> str:
    """Copy, unpacked where it is packed (some servers send it plain); return the digest."""
    kind = _kind(file)
    digest = hashlib.new(kind, usedforsecurity=False)
    with source.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(source) if packed else source.open("rb") as plain:
        try:
            while block := plain.read(_BLOCK):
                digest.update(block)
                out.write(block)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            pass  # the digest of what came out shows it
    return f"{kind}:{digest.hexdigest()}"


def _unzip(archive: Path, folder: Path, url: str) -> dict[str, int]:
    """Unpack every member below `folder`; what an archive calls outside of it is refused."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            for info in members:
                path = PurePosixPath(info.filename)
                if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
                    raise _no_zip(url, f"a member {info.filename!r}")
            for info in members:
                with opened.open(info) as source, atomic_file(folder / info.filename) as out:
                    shutil.copyfileobj(source, out, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _no_zip(url, str(error)) from error
    return {info.filename: info.file_size for info in members}


def _no_zip(url: str, what: str) -> ChecksumError:
    return ChecksumError(
        f"{url} is not a valid zip archive: {what}",
        expected="a valid zip archive",
        fix="the same again later; nothing was kept",
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder against other processes that fetch into it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
