"""One file over HTTP into a hidden part file, which a later call resumes.

Beside the part file lies the server's name for that version of the file (its ETag, or else its
Last-Modified). A request for the rest sends it as If-Range, so that a file that has changed since
comes whole and replaces the old part.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stpl_core import __version__
from stpl_core.errors import EnvironmentFault, SinkError
from stpl_core.fetch.http_headers import retry_after_s
from stpl_core.files import atomic_file

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes received so far, and how many there will be (None: not known)."""
Wait = Callable[[float], None]

TIMEOUT_S = 30.0
"""Without a byte."""
ATTEMPTS = 5
"""In a row that bring nothing; after each the wait is doubled."""

_BLOCK = 1 << 18
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another try may not get."""


class NotThereError(EnvironmentFault):
    """The server answers, and does not have it."""


@dataclass(frozen=True)
class Part:
    """A download that is not finished."""

    path: Path
    """Where the bytes are gathered."""

    @property
    def note(self) -> Path:
        """Which version of which file the bytes are of."""
        return self.path.with_name(f"{self.path.name}.json")

    def size(self, url: str) -> tuple[int, str]:
        """Bytes that can be resumed from, and the server's name for their version."""
        try:
            note = json.loads(self.note.read_text())
            if note["url"] == url and note["version"]:
                return self.path.stat().st_size, str(note["version"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def begin(self, url: str, version: str) -> None:
        """Throw away what is there: bytes of `version` of `url` come now."""
        self.path.unlink(missing_ok=True)
        with atomic_file(self.note) as file:
            file.write(json.dumps({"url": url, "version": version}).encode())

    def remove(self) -> None:
        """Leave nothing."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def transfer(url: str, part: Part, on_progress: OnProgress, wait: Wait = time.sleep) -> bool:
    """Download `url` into `part.path`, resuming from what is there.

    Lost connections, slow servers and servers that are busy are tried again, up to `ATTEMPTS` times
    in a row without a new byte.

    Args:
        url: http or https.
        part: of this file.
        on_progress: called after each block.
        wait: sleeps so many seconds.

    Returns:
        Whether some of the bytes were there before.

    Raises:
        NotThereError: the server has no such file.
        EnvironmentFault: it cannot be reached, or breaks off again and again; the part is kept.
        SinkError: the disk is full or may not be written; the part is kept.
    """
    resumed, idle = part.size(url)[0] > 0, 0
    while True:
        before = part.size(url)[0]
        reason, pause = "", 0.0
        try:
            if _attempt(url, part, on_progress):
                return resumed
            reason = "the connection was lost"
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:  # what is there does not belong to what the server has
                    part.remove()
                    resumed = False
                elif error.code not in _MAY_PASS:
                    raise NotThereError(
                        f"{url}: {error.code} {error.reason}",
                        expected="the file",
                        fix="check whether it has moved",
                    ) from error
                asked = error.headers.get("Retry-After") if error.headers else None
                reason, pause = f"{error.code} {error.reason}", retry_after_s(asked) or 0.0
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        grown = part.size(url)[0]
        idle = 0 if grown > before else idle + 1
        if idle >= ATTEMPTS:
            kept = f"; {grown:,} bytes are kept" if grown else ""
            raise EnvironmentFault(
                f"{url} cannot be read: {reason}{kept}",
                expected="a connection",
                fix="the same command again: it resumes where it stopped"
                if grown
                else "the same command again later",
            )
        backed_off = _FIRST_WAIT_S * 2 ** max(0, idle - 1) * (0.5 + random.random() / 2)  # noqa: S311 (no secret)
        wait(min(max(backed_off, pause), _LONGEST_WAIT_S))


def _attempt(url: str, part: Part, on_progress: OnProgress) -> bool:
    """One request; True where the file is whole after it."""
    start, version = part.size(url)
    request = urllib.request.Request(url, headers=_HEADERS)  # noqa: S310 (http by `transfer`)
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    # Of a data set that the program names itself. urllib follows to http, https and ftp alone.
    # nosemgrep: redirects-anywhere
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  # nosec B310
        follows = answer.status == 206 and _first_byte(answer) == start > 0
        if not follows:
            if answer.status == 206:  # not what was asked for
                part.remove()
                return False
            start = 0
            part.begin(url, _version(answer))
        length = answer.headers.get("Content-Length")
        whole = None if length is None else start + int(length)
        with _disk(part.path):
            _room(part.path, None if whole is None else whole - start)
            with part.path.open("ab") as file:
                done = _copy(answer, file, start, whole, on_progress)
    return done == whole if whole is not None else True


_HEADERS = {"User-Agent": f"stpl-deploy/{__version__}", "Accept-Encoding": "identity"}


def _copy(
    answer: http.client.HTTPResponse,
    file: BinaryIO,
    done: int,
    whole: int | None,
    on_progress: OnProgress,
) -> int:
    on_progress(done, whole)
    while True:
        try:
            block = answer.read1(_BLOCK)
        except OSError as error:  # not to be taken for one of the disk
            raise http.client.HTTPException(str(error)) from error
        if not block:
            return done
        file.write(block)
        done += len(block)
        on_progress(done, whole)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into one line."""
    try:
        yield
    except OSError as error:
        raise SinkError(
            f"{path.parent} cannot be written: {error.strerror or error}; "
            "the bytes received so far are kept",
            expected="free space",
            fix="free some space and run the same command again, or --out on another disk",
        ) from error


def _room(path: Path, more: int | None) -> None:
    free = shutil.disk_usage(path.parent).free
    if more is not None and more > free:
        raise SinkError(
            f"{path.parent} has {free / 1e6:,.0f} MB left",
            expected=f"{more / 1e6:,.0f} MB for the rest of the file",
            fix="free some space, or --out on another disk",
        )


def _version(answer: http.client.HTTPResponse) -> str:
    """What If-Range may name; a weak ETag does not promise the same bytes."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _first_byte(answer: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None
