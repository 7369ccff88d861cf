"""A real stream behind a real page server, fed by hand; and who reads its events."""

from __future__ import annotations

import http.client
import io
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_core.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.links.health import Health
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.stand_ins import OnGap
from stpl_runtime.page.guard import Access
from stpl_runtime.page.server import PageServer, listen
from stpl_runtime.page.watch import Watch, WatchOptions
from stpl_runtime.source import Arrival
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from tests.runtime.conftest import CADENCE_S, make_frame

Headers = dict[str, str]


class Tap:
    """A source that gives what a test puts into it."""

    waits = True

    def __init__(self, name: str = "tap") -> None:
        self.name, self.health = name, Health()
        self._items: queue.Queue[Frame | None] = queue.Queue()

    def give(self, frame: Frame | None) -> None:
        """None ends the source."""
        self._items.put(frame)

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        self.health.up()
        while not stop.is_set():
            try:
                item = self._items.get(timeout=0.02)
            except queue.Empty:
                continue
            if item is None:
                self.health.ended()
                return
            yield Arrival.now(item)


class Served:
    """Streams that run, and their page."""

    def __init__(self, watch: Watch, streams: tuple[Stream, ...], taps: tuple[Tap, ...]) -> None:
        assert watch.server is not None
        assert watch.hub is not None
        self.watch, self.streams, self.taps = watch, streams, taps
        self.server, self.hub = watch.server, watch.hub
        self.port = int(self.server.url.rsplit(":", 1)[1].rstrip("/"))

    def give(self, first: int, last: int, tap: int = 0) -> None:
        """Frames of slots first..last."""
        for slot in range(first, last + 1):
            self.taps[tap].give(make_frame(slot))

    def settle(self, nowcasts: int, stream: int = 0) -> None:
        """Until so many nowcasts were made and shown."""
        with self.events(self.streams[stream].name) as sent:
            sent.until("pulse", lambda p: _made(p, self.streams[stream].name) >= nowcasts)
        assert self.watch.background.drain()

    def get(
        self, path: str, headers: Headers | None = None, method: str = "GET", body: Any = None
    ) -> tuple[int, Headers, bytes]:
        """One request -> status, headers with small letters, body."""
        return fetch(self.port, path, headers, method, body)

    def events(
        self, stream: str = "", headers: Headers | None = None
    ) -> AbstractContextManager[Events]:
        """Listen as a page does."""
        return Events.listen(self.port, stream, headers)


def _made(pulse: Any, name: str) -> int:
    return int(pulse["streams"][name]["nowcasts"]["made"])


class Events:
    """Reads server-sent events."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response, self.status = response, response.status

    @classmethod
    @contextmanager
    def listen(
        cls, port: int, stream: str = "", headers: Headers | None = None
    ) -> Iterator[Events]:
        """Ask for the events of a stream."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        query = f"?stream={stream}" if stream else ""
        connection.request("GET", f"/events{query}", headers=headers or {})
        try:
            yield cls(connection.getresponse())
        finally:
            connection.close()

    def next(self) -> tuple[str, Any]:
        """The next event: its name and what it holds."""
        name, data = "", ""
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data += line[6:]
            elif not line and name:
                return name, json.loads(data)
            assert line or not self.response.isclosed(), "the server closed"

    def until(self, wanted: str, holds: Callable[[Any], bool] = lambda _: True) -> Any:
        """Read on to an event of this name that holds."""
        while True:
            name, data = self.next()
            if name == wanted and holds(data):
                return data


def fetch(
    port: int,
    path: str,
    headers: Headers | None = None,
    method: str = "GET",
    body: Any = None,
) -> tuple[int, Headers, bytes]:
    """One request to loopback -> status, headers with small letters, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, response.read()
    finally:
        connection.close()


@contextmanager
def serve(
    bundle: Bundle,
    session: Session,
    names: tuple[str, ...] = ("",),
    *,
    port: int = 0,
    token: str | None = None,
    on_gap: OnGap = "reset",
    server: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Run streams with a page.

    Args:
        bundle: what they run.
        session: of it.
        names: of the streams.
        port: of the page; 0: any.
        token: asked for by the page.
        on_gap: what stands in for missing frames.
        server: keyword arguments of `PageServer`.
        options: of `WatchOptions`.
    """
    watch = Watch(WatchOptions(page=True, port=port, **options))
    taps = tuple(Tap(name or "tap") for name in names)
    streams = []
    for name, tap in zip(names, taps, strict=True):
        ledger = Ledger()
        nowcaster = Nowcaster(
            bundle, session, cadence_s=CADENCE_S, ledger=ledger, stream=name, on_gap=on_gap
        )
        made = Stream(nowcaster, tap, ledger=ledger, watchers=watch.watchers, policy="queue")
        streams.append(made)
    watch.attach(streams, bundle.manifest, CADENCE_S)
    if token is not None or server:
        assert watch.hub is not None
        watch.close()
        own = listen("127.0.0.1", port)
        watch.server = PageServer(watch.hub, own, Access(token), **(server or {}))
    running = Streams(streams)
    thread = threading.Thread(target=running.run)
    with watch:
        thread.start()
        try:
            yield Served(watch, tuple(streams), taps)
        finally:
            running.stop()
            thread.join(30)


def pixels(png: bytes) -> NDArray[np.uint8]:
    """Of a picture: (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
