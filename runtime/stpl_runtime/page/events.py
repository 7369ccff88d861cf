"""Server-sent events: what a page gets while it is open.

    hello    once: what does not change (`Hub.hello`)
    stream   what is shown of the stream, whenever that changes (`Hub.facts`)
    pulse    each second: states, ages and counts (`Hub.pulse`)

Each event is whole: a page that missed some is right again with the next one, so nothing is queued
for a slow reader. One that does not take an event within some seconds is dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from urllib.parse import parse_qs

from stpl_core.json_numbers import finite
from stpl_runtime.page.guard import Receive, Scope, Send, answer
from stpl_runtime.page.hub import Hub

CLIENTS = 32
"""Pages that listen at once."""
_LOOK_S = 0.2
"""How often changes are looked for: a page gets no more events than that."""
_PULSE_S = 1.0
_SLOW_S = 10.0


class Events:
    """The address `/events?stream=NAME` (ASGI)."""

    def __init__(
        self,
        hub: Hub,
        drop: Callable[[Scope], None],
        *,
        limit: int = CLIENTS,
        slow_s: float = _SLOW_S,
    ) -> None:
        """Send what `hub` has.

        Args:
            hub: asked for everything.
            drop: cuts the connection of a request.
            limit: pages at once.
            slow_s: seconds that one has for taking an event.
        """
        self._hub, self._drop, self._limit, self._slow_s = hub, drop, limit, slow_s
        self._closing = asyncio.Event()
        self.clients = 0
        """Pages that listen now."""
        self.dropped = 0
        """Pages that were too slow."""

    def close(self) -> None:
        """Let every page go; in the server's thread."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send to one page until it goes."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        name = query.get("stream", [self._hub.names[0]])[0]
        if name not in self._hub.feeds:
            await answer(send, 404, self._hub.no_stream(name))
            return
        if scope["method"] == "HEAD":
            await answer(send, 200, "", {"content-type": "text/event-stream; charset=utf-8"})
            return
        if self.clients >= self._limit:
            text = f"{self._limit} pages listen already\n"
            await answer(send, 503, text, {"retry-after": "10"})
            return
        self.clients += 1
        gone = asyncio.create_task(_until_gone(receive))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await self._send_events(name, send, {gone, closing})
        except (TimeoutError, asyncio.TimeoutError):
            self.dropped += 1
            self._drop(scope)
        finally:
            self.clients -= 1
            gone.cancel()
            closing.cancel()

    async def _send_events(self, name: str, send: Send, ends: set[asyncio.Task[object]]) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # or nginx would hold events back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        waiting = b"retry: 1000\n\n" + _event("hello", self._hub.hello())
        sent: tuple[int, int] | None = None
        clock = asyncio.get_running_loop().time
        pulse_due = 0.0
        while True:
            version = self._hub.version(name)
            if version != sent:
                waiting += _event("stream", self._hub.facts(name))
                sent = version
            if clock() >= pulse_due:
                pulse_due = clock() + _PULSE_S
                waiting += _event("pulse", json.dumps(finite(self._hub.pulse())).encode())
            if waiting:
                part = {"type": "http.response.body", "body": waiting, "more_body": True}
                await asyncio.wait_for(send(part), self._slow_s)
                waiting = b""
            done, _ = await asyncio.wait(ends, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if done:
                break
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> object:
    while (await receive())["type"] != "http.disconnect":
        pass
    return None


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
