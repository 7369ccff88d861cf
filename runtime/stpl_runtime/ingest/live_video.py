"""A picture stream that is there or not: a network camera or one at this machine, by PyAV.

PyAV ends its iterator without a word when the other side goes away, and waits for ever where no
timeouts are set: both are a disconnect here, and it connects again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from stpl_core.errors import FrameError
from stpl_runtime.ingest.pictures import Pictures, decoded, form_of, video_stream
from stpl_runtime.ingest.sampling import LiveClock, Sampler
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import reconnecting
from stpl_runtime.source import Arrival, SourceSpec
from stpl_runtime.timing import EPOCH


class _NoPictureError(Exception):
    """It sends, but nothing that can be decoded."""


class LiveVideo:
    """Keeps `stpl_runtime.source.Source`; the newest frames win.

    With a cadence, the frames nearest to its slots are taken, and the slots are the same after a
    reconnect or a restart (they are counted from 1970 on).
    """

    waits = False

    def __init__(
        self,
        url: str,
        name: str,
        spec: SourceSpec,
        pictures: Pictures,
        *,
        container: str | None = None,
        options: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            url: what PyAV opens, with credentials.
            name: without them.
            spec: the frames that are expected.
            pictures: makes them.
            container: FFmpeg's name of the format or device; None finds it.
            options: FFmpeg's.
            timeout_s: to connect within, and between two pictures.
        """
        self.name, self.health = name, Health()
        self._url, self._pictures, self._container = url, pictures, container
        self._options, self._timeout_s = dict(options or {}), timeout_s
        self._sampler: Sampler[Any] = Sampler(spec.cadence_s, EPOCH)

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield frames until `stop`, connecting again and again; see the protocol."""
        import av

        failures = (av.error.FFmpegError, FrameError, _NoPictureError)
        yield from reconnecting(lambda: self._connect(stop), stop, self.health, failures)

    def _connect(self, stop: threading.Event) -> Iterator[Arrival]:
        """What one connection brings."""
        import av

        with av.open(
            self._url,
            format=self._container,
            options=self._options,
            timeout=(self._timeout_s, self._timeout_s),
        ) as container:
            stream = video_stream(container, self.name, "SLICE")
            self._pictures.form = form_of(container, stream)
            clock, damaged = LiveClock(), list[str]()
            seen = time.monotonic()
            for pictures in decoded(container, stream, damaged):
                if stop.is_set():
                    return
                if pictures:
                    seen = time.monotonic()
                    self.health.up()
                elif time.monotonic() - seen > self._timeout_s:
                    raise _NoPictureError(damaged[-1] if damaged else "it sends no picture")
                damaged.clear()
                for picture in pictures:
                    for at, taken in self._sampler.offer(clock.at(picture.time), picture):
                        yield Arrival.now(self._pictures.frame(taken, at))
