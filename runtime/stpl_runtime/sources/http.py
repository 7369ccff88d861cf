"""A picture or file behind a URL that changes, or one file for each time, polled over HTTP(S).

    http://host/latest.png                    asked for again and again; ETag and Last-Modified
                                              keep what did not change from being sent
    https://host/radar_%Y%m%d%H%M.h5          one file for each slot of the cadence: what is
                                              missing is looked for again, `back` slots back

A camera that answers with pictures without an end (`sources.mjpeg`), or a server that answers with
a playlist (`sources.hls`), is taken as what it is.

404 means not there yet. A body that is shorter than it should be, or that cannot be decoded, is
asked for once more before it is bad.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from stpl_core.errors import FrameError, UsageError
from stpl_core.fetch.http_headers import http_date, retry_after_s
from stpl_core.frames import Frame
from stpl_core.safety.printable import printable
from stpl_runtime.ingest.decoding import Decoder
from stpl_runtime.ingest.playlist import is_playlist
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import Backoff, reason_of, without_credentials
from stpl_runtime.links.web import decoded_body
from stpl_runtime.links.web_access import ACCESS_OPTIONS, WebAccess, web_access
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, Source, SourceSpec
from stpl_runtime.sources.hls import HlsSource
from stpl_runtime.sources.mjpeg import KIND as MJPEG
from stpl_runtime.sources.mjpeg import MjpegSource
from stpl_runtime.timing import EPOCH

if TYPE_CHECKING:
    import httpx

OPTIONS = (*ACCESS_OPTIONS, "interval", "max_mb", "resize", "back", "phase", "speed")
_TIMEOUT_S = 5.0
_MAX_MB = 256.0
_BACK = 32
"""Slots of a pattern that are looked for at the start, and again while they are missing."""
_LEAST_S, _MOST_S, _USUAL_S = 1.0, 30.0, 5.0
"""Between two polls: a tenth of the cadence within these; the last where there is none."""
_OF_ALL = (401, 407, 429)
"""Refusals that mean the user, whatever file was asked for."""
_FORBIDDEN = 403
_REFUSALS = 4
"""After so many in one poll, and nothing else, the server is taken to be down."""
_WHOLE_S = 300.0
"""For a whole body: one that drips in keeps every timeout, and would never end."""
_DOUBT_S = 2.0
"""What cannot be decoded may still be growing on the server: asked for again after so long."""
_PATIENCE_S = 3600.0
"""A Retry-After longer than this is cut."""
_LEAST_WAIT_S = 0.5
"""A Retry-After shorter than this is made so long: `0` would be asked for hundreds of times a
second."""
_PAGE = (
    "{} is a web page, no frame; expected a picture, a file, MJPEG or a playlist; "
    "try: the address of the picture itself, as the browser's menu copies it"
)
_LONGEST_VALIDATOR = 1024
_DIRECTIVE = re.compile(r"%([YymdHMSjbB])")


@dataclass(frozen=True)
class _Answer:
    """A whole body."""

    content: bytes
    time: datetime
    """Last-Modified, else when it was sent."""
    validators: dict[str, str]
    """Headers that ask whether it changed."""


class _RefusedError(Exception):
    """The server does not give it now."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _RefusedHereError(_RefusedError):
    """As it may be of this one file: others may be there."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


_NAMES = {"hls": "a playlist", "mjpeg": "MJPEG"}


class _OtherKindError(_RefusedHereError):
    """What lies there has no end, or names what has none: another source reads it."""

    def __init__(
        self, word: str, source: Callable[[WebAccess, SourceSpec, Health], Source]
    ) -> None:
        super().__init__(f"it is {_NAMES[word]}, no file")
        self.word, self.source = word, source


class _TooLargeError(Exception):
    """More bytes than are taken."""

    def __init__(self, reason: str, validators: dict[str, str]) -> None:
        super().__init__(reason)
        self.validators = validators


def _open(scheme: str, rest: str, spec: SourceSpec) -> Source:
    name = without_credentials(f"{scheme}:{rest}")
    access = web_access(scheme, rest, Options(name, spec.options, OPTIONS), _TIMEOUT_S)
    if re.search("%[Yy]", access.url):
        return PatternSource(access, spec)
    if is_playlist(access.url):
        return HlsSource(access, spec)
    return HttpSource(access, spec)


open_http = partial(_open, "http")
open_https = partial(_open, "https")


class HttpSource:
    """One URL whose content changes. Keeps `stpl_runtime.source.Source`."""

    waits = False

    def __init__(self, access: WebAccess, spec: SourceSpec) -> None:
        """Read the options.

        Args:
            access: the URL, and how its server is asked.
            spec: the frames that are expected; a cadence sets how often it is polled.

        Raises:
            UsageError: an option that does not hold.
        """
        self.name, self.health = access.name, Health()
        self.url, self._access, self._spec = access.url, access, spec
        options = Options(self.name, spec.options, OPTIONS)
        every = min(max((spec.cadence_s or 10 * _USUAL_S) / 10, _LEAST_S), _MOST_S)
        self._interval_s = options.number("interval", every, least=0.01)
        self._most_bytes = int(options.number("max_mb", _MAX_MB) * 1e6)
        self._decoder = Decoder(spec, options.resize("none"))
        self._options = options
        self._validators: dict[str, str] = {}
        self._digest = self._doubt = b""
        self.note = self._absent = ""
        self.kind = self.url.partition(":")[0]
        """The word that fits best; known better once the server has answered."""

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield what is new until `stop`; see the protocol."""
        backoff = Backoff()
        with self._access.client() as client:
            while not stop.is_set():
                failure = yield from self._turn(client, stop)
                if isinstance(failure, _OtherKindError):
                    self.kind = f"{failure.word}+{self.kind}"
                    self.note = f"{self.name} is {_NAMES[failure.word]}: read as {self.kind}:"
                    other = failure.source(self._access, self._spec, self.health)
                    yield from other.arrivals(stop)
                    return
                if failure is None:
                    self.health.up()
                    backoff.reset()
                    stop.wait(self._pause_s() * random.uniform(0.9, 1.1))  # noqa: S311
                    continue
                self.health.down(reason_of(failure))
                if isinstance(failure, _RefusedError) and failure.wait_s is not None:
                    stop.wait(failure.wait_s)
                else:
                    backoff.wait(stop)

    def _turn(
        self, client: httpx.Client, stop: threading.Event
    ) -> Generator[Arrival, None, Exception | None]:
        """Poll once; returns why that failed."""
        import httpx

        try:
            for item in self._poll(client, stop):
                yield Arrival.now(item)
        except (_RefusedError, httpx.HTTPError, UnicodeError) as error:
            return error  # the last one: sent elsewhere, to a host that no name server takes
        return None

    def _pause_s(self) -> float:
        return min(self._interval_s, _DOUBT_S) if self._doubt else self._interval_s

    def _poll(self, client: httpx.Client, stop: threading.Event) -> Iterator[Frame | BadFrame]:
        """What is new at the URL."""
        try:
            answer = self._fetch(client, self.url, self._validators)
        except _TooLargeError as error:
            self.health.up()
            if error.validators != self._validators or not error.validators:
                self._validators = error.validators
                yield BadFrame(_name(self.url), str(error))
            return
        self.health.up()
        if answer is None:
            if self._absent and not self._digest:
                self.note = f"{self.name} is not there yet: {self._absent}; it is asked for again"
            return
        if answer.content.startswith(b"#EXTM3U"):
            raise _OtherKindError("hls", HlsSource)
        digest = hashlib.sha256(answer.content).digest()
        if digest == self._digest:
            self._validators = answer.validators
            return
        items = self._decoded(answer, _name(self.url), answer.time, sure=digest == self._doubt)
        self._doubt = b"" if items else digest
        if items:
            self._digest, self._validators = digest, answer.validators
            yield from items

    def _decoded(
        self, answer: _Answer, name: str, time: datetime, *, sure: bool
    ) -> list[Frame] | list[BadFrame]:
        """Its frames; nothing where it may not be whole yet, which `sure` rules out."""
        try:
            return self._decoder.from_bytes(answer.content, name, time)
        except FrameError as error:
            reason = _PAGE.format(name) if _is_web_page(answer.content) else str(error)
            return [BadFrame(name, reason)] if sure else []

    def _fetch(self, client: httpx.Client, url: str, asked: dict[str, str]) -> _Answer | None:
        """The body behind `url`; None where there is none, or none that is new.

        Raises:
            httpx.HTTPError: no connection, too slow, or cut off.
        """
        with client.stream("GET", url, headers=asked) as response:
            status, headers = response.status_code, response.headers
            reason = printable(f"HTTP {status} {response.reason_phrase}".strip())
            self._absent = reason if status in (404, 410) else ""
            if self._absent or status == 304:
                return None
            if status >= 300:
                wait_s = retry_after_s(headers.get("Retry-After"), _PATIENCE_S)
                wait_s = None if wait_s is None else max(wait_s, _LEAST_WAIT_S)
                if status in _OF_ALL or wait_s is not None:
                    raise _RefusedError(reason, wait_s)
                raise _RefusedHereError(reason, status)
            self._check_kind(headers.get("Content-Type", ""))
            validators = _validators(headers)
            promised = headers.get("Content-Length", "")
            if promised.isdecimal() and int(promised) > self._most_bytes:
                raise _TooLargeError(self._limit_text(f"{promised} bytes"), validators)
            content = bytearray()
            # A .gz is wanted as it lies, also where the server calls that an encoding.
            packed = response.url.path.lower().endswith(".gz")
            until = time.monotonic() + _WHOLE_S
            for chunk in response.iter_raw():  # unpacked within the limit, when it is all there
                content += chunk
                if time.monotonic() > until:
                    raise _RefusedHereError(f"the body took more than {_WHOLE_S:g} s")
                if len(content) > self._most_bytes:
                    raise _TooLargeError(self._limit_text("more bytes"), validators)
        body = bytes(content) if packed else self._unpacked(bytes(content), headers, validators)
        sent = http_date(headers.get("Last-Modified")) or http_date(headers.get("Date"))
        return _Answer(body, sent or datetime.now(timezone.utc), validators)

    def _check_kind(self, content_type: str) -> None:
        if content_type.lower().startswith(MJPEG):
            raise _OtherKindError("mjpeg", MjpegSource)
        if is_playlist("", content_type):
            raise _OtherKindError("hls", HlsSource)

    def _unpacked(
        self, content: bytes, headers: httpx.Headers, validators: dict[str, str]
    ) -> bytes:
        """A body that the server packed, though it was asked not to."""
        encoding = headers.get("Content-Encoding", "").strip().lower()
        try:
            return decoded_body(content, encoding, self._most_bytes)
        except FrameError:
            raise _TooLargeError(self._limit_text("more bytes"), validators) from None
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise _RefusedHereError(f"a body in the encoding {encoding[:40]!r}: {error}") from error

    def _limit_text(self, found: str) -> str:
        most = self._most_bytes / 1e6
        return f"{found}; expected at most {most:g} MB; try: --source-option max_mb=..."


class PatternSource(HttpSource):
    """One file for each slot of the cadence, its time in the URL."""

    waits = True

    def __init__(self, access: WebAccess, spec: SourceSpec) -> None:
        """Read the options; see `HttpSource`.

        Raises:
            UsageError: no cadence is known, or an option that does not hold.
        """
        super().__init__(access, spec)
        if spec.cadence_s is None:
            raise UsageError(
                f"{self.name} has a time in it and no cadence is known",
                expected="the seconds between files",
                fix="--cadence SECONDS",
            )
        self._cadence_s = spec.cadence_s
        self._phase = EPOCH + timedelta(seconds=self._options.number("phase", 0.0))
        self._back = int(self._options.number("back", _BACK, least=1))
        self._done: set[int] = set()
        self._refused: dict[int, float] = {}
        """Slots whose file was refused, and when, by time.monotonic()."""
        self._broke: set[int] = set()
        """Slots at whose file the connection broke."""
        self._gave_one = False
        self._doubts: dict[int, bytes] = {}

    def _pause_s(self) -> float:
        return min(self._interval_s, _DOUBT_S) if self._doubts else self._interval_s

    def _poll(self, client: httpx.Client, stop: threading.Event) -> Iterator[Frame | BadFrame]:
        """The files of all slots that are due and not there yet, oldest first."""
        import httpx

        since = datetime.now(timezone.utc) - self._phase
        newest = int(since.total_seconds() // self._cadence_s)
        due = range(newest - self._back + 1, newest + 1)
        self._done &= set(due)
        self._broke &= set(due)
        self._refused = {slot: when for slot, when in self._refused.items() if slot in due}
        self._doubts = {slot: seen for slot, seen in self._doubts.items() if slot in due}
        refusals: list[Exception] = []
        answered = False
        order = sorted(set(due) - self._done, key=lambda slot: (self._refused.get(slot, 0.0), slot))
        for slot in order:
            if stop.is_set():
                return
            try:
                yield from self._slot(client, slot)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                raise  # nobody is there
            except (_RefusedHereError, httpx.HTTPError) as error:
                if isinstance(error, httpx.HTTPError) and slot not in self._broke:
                    self._broke.add(slot)  # the next time it is taken to be the file's own fault
                    raise
                if getattr(error, "status", 0) == _FORBIDDEN and self._gave_one:
                    continue  # as buckets say that something is not there
                self._refused[slot] = time.monotonic()  # its turn comes after the others'
                refusals.append(error)
                if len(refusals) >= _REFUSALS and not answered:
                    break
            else:
                answered = True
                self._refused.pop(slot, None)
                self._broke.discard(slot)
        if refusals and not answered:
            raise refusals[0]
        if self._absent and not self._gave_one:
            self.note = (
                f"{self.name}: none of the newest {len(due)} slots is there yet, up to "
                f"{_name(self._url_of(newest))}: {self._absent}; they are asked for again"
            )

    def _time_of(self, slot: int) -> datetime:
        return self._phase + timedelta(seconds=slot * self._cadence_s)

    def _url_of(self, slot: int) -> str:
        at = self._time_of(slot)
        return _DIRECTIVE.sub(lambda found: at.strftime(found.group()), self.url)

    def _slot(self, client: httpx.Client, slot: int) -> Iterator[Frame | BadFrame]:
        at, url = self._time_of(slot), self._url_of(slot)
        try:
            answer = self._fetch(client, url, {})
        except _TooLargeError as error:
            self._done.add(slot)
            yield BadFrame(_name(url), str(error))
            return
        self.health.up()
        if answer is None:
            return
        self._gave_one = True
        digest = hashlib.sha256(answer.content).digest()
        sure = self._doubts.get(slot) == digest
        items = self._decoded(answer, _name(url), at, sure=sure)
        if not items:
            self._doubts[slot] = digest
            return
        self._doubts.pop(slot, None)
        self._done.add(slot)
        yield from items


def _is_web_page(content: bytes) -> bool:
    start = content[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))


def _validators(headers: httpx.Headers) -> dict[str, str]:
    """What to ask with the next time; nothing that no header of a request can carry."""
    asked = {
        "If-None-Match": headers.get("ETag", ""),
        "If-Modified-Since": headers.get("Last-Modified", ""),
    }
    return {
        name: value
        for name, value in asked.items()
        if value and value.isascii() and value.isprintable() and len(value) <= _LONGEST_VALIDATOR
    }


def _name(url: str) -> str:
    path = re.sub(r"^\w+://[^/]*|[?#].*$", "", url)
    return PurePosixPath(path).name or "frame"
