"""Pictures that a camera sends without an end over HTTP: MJPEG, `multipart/x-mixed-replace`.

    mjpeg+http://HOST/video.mjpg          also `http://`, once the server answers so

A frame is of the time at which it arrived. With a cadence, the picture nearest to each slot is
taken; the slots are the same after a reconnect or a restart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from stpl_core.errors import FrameError
from stpl_core.frames import Frame
from stpl_runtime.ingest.decoding import Decoder
from stpl_runtime.ingest.multipart import Multipart, NotMultipartError, boundary_of
from stpl_runtime.ingest.sampling import Sampler
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import reconnecting
from stpl_runtime.links.web_access import ACCESS_OPTIONS, WebAccess, openers
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.timing import EPOCH

if TYPE_CHECKING:
    import httpx

OPTIONS = (*ACCESS_OPTIONS, "max_mb", "resize")
KIND = "multipart/x-mixed-replace"
"""The Content-Type."""
MAX_MB = 64.0
_TIMEOUT_S = 5.0
_CADENCES = 2.5
"""Without a picture for so many the connection is taken to be dead, where `timeout` is shorter."""


class _NoPictureError(Exception):
    """It answers, but not with pictures, or with none for too long."""


class MjpegSource:
    """Keeps `stpl_runtime.source.Source`; the newest pictures win."""

    waits = False

    def __init__(self, access: WebAccess, spec: SourceSpec, health: Health | None = None) -> None:
        """Prepare; nothing is connected yet.

        Args:
            access: the URL, and how its server is asked.
            spec: the frames that are expected.
            health: of the source that found out that this is one; None: its own.

        Raises:
            UsageError: an option that does not hold.
        """
        self.name, self.health = access.name, health or Health()
        self.kind = f"mjpeg+{access.url.partition(':')[0]}"
        options = Options(self.name, spec.options, spec.options)  # checked before
        self._timeout_s = access.timeout_s
        if spec.cadence_s is not None and "timeout" not in spec.options:
            self._timeout_s = max(access.timeout_s, _CADENCES * spec.cadence_s)
        self._access, self._seen = replace(access, timeout_s=self._timeout_s), 0.0
        own = replace(spec, time_format=None, mtime=False)  # no part has a name
        self._decoder = Decoder(own, options.resize("area"))
        self._most_bytes = int(options.number("max_mb", MAX_MB, least=0.001, most=2000.0) * 1e6)
        self._sampler: Sampler[bytes | None] = Sampler(spec.cadence_s, EPOCH)

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield frames until `stop`, connecting again and again; see the protocol."""
        import httpx

        failures = (httpx.HTTPError, UnicodeError, _NoPictureError, NotMultipartError)
        with self._access.client() as client:
            yield from reconnecting(
                lambda: self._connect(client, stop), stop, self.health, failures
            )

    def _connect(self, client: httpx.Client, stop: threading.Event) -> Iterator[Arrival]:
        """What one connection brings."""
        with client.stream("GET", self._access.url) as response:
            if not response.is_success:
                raise _NoPictureError(
                    f"HTTP {response.status_code} {response.reason_phrase}".strip()
                )
            kind = response.headers.get("Content-Type", "")
            if not kind.lower().startswith(KIND):
                raise _NoPictureError(f"it sends {kind[:80] or 'no Content-Type'}, no {KIND}")
            self._seen = time.monotonic()
            chunks = self._watched(response.iter_raw())
            for content in Multipart(chunks, boundary_of(kind), self._most_bytes).parts():
                if stop.is_set():
                    return
                self._seen = time.monotonic()
                self.health.up()
                now = datetime.now(timezone.utc)
                if not content:
                    yield Arrival.now(self._no_frame(content))
                    continue
                for at, taken in self._sampler.offer(now, content):
                    for item in self._decoded(taken, at):
                        yield Arrival.now(item)

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same, until no picture has become whole for too long."""
        for chunk in chunks:
            yield chunk
            if time.monotonic() - self._seen > self._timeout_s:
                raise _NoPictureError(f"no whole picture for {self._timeout_s:g} s")

    def _no_frame(self, content: bytes | None) -> BadFrame:
        if content is not None:
            return BadFrame(self.name, "an empty part where a picture should be")
        return BadFrame(
            self.name,
            f"a part of more than {self._most_bytes / 1e6:g} MB; "
            "try: --source-option max_mb=MEGABYTES",
        )

    def _decoded(self, content: bytes | None, at: datetime) -> list[Frame] | list[BadFrame]:
        assert content, "no other is offered"
        try:
            frames = self._decoder.from_bytes(content, "picture", at)
        except FrameError as error:
            return [BadFrame(self.name, str(error))]
        return [replace(frame, valid_time=at, source_id=self.name) for frame in frames]


open_http, open_https = openers("mjpeg", MjpegSource, OPTIONS, _TIMEOUT_S)
