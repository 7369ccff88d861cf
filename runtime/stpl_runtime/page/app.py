"""The addresses of the page's server.

/                                      the page; beside it its scripts, styles and icon
/events?stream=                        what happens, as server-sent events
/pictures/RUN/STREAM/...?colours=      frames as PNG, at addresses that never change what they show
/points/RUN/STREAM/NOWCAST/X/Y         a pixel's values through the frames, and where it lies
/map/GRID/DETAIL                       coasts, borders, cities and overlays in pixels of the frames
/nowcast/latest?stream=&format=        the newest nowcast as a file, also by the Accept header
/wms                                   the newest nowcast for GIS programs: WMS 1.3.0
/wmts                                  the same as WMTS 1.0.0, whose tiles are those below
/tiles/LAYER/Z/X/Y.png?lead=&style=    the same as XYZ tiles in EPSG:3857
/edr                                   its values at a position or in an area: OGC API - EDR
/healthz                               ok and degraded: 200; stale and down: 503
/metrics                               for Prometheus
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar

from stpl_core.drawing.colours import STANDARD, palettes
from stpl_core.errors import MissingExtraError
from stpl_core.json_numbers import finite
from stpl_runtime.page.events import Events
from stpl_runtime.page.gis.routes import routes as routes_for_gis
from stpl_runtime.page.guard import Access, App, Guard, Scope
from stpl_runtime.page.hub import Hub
from stpl_runtime.page.outputs import FORMATS, Outputs, chosen_format
from stpl_runtime.page.prometheus import exposition
from stpl_runtime.page.stream_view import StreamView
from stpl_runtime.page.verdict import SERVING

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.requests import Request
    from starlette.responses import Response
T = TypeVar("T")

_STATIC = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "tools.js": "text/javascript",
    "map.js": "text/javascript",
    "point.js": "text/javascript",
    "settings.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "leaflet/leaflet.js": "text/javascript",
    "leaflet/leaflet.css": "text/css",
}
_KEEP = {"cache-control": "private, max-age=86400, immutable"}
_WORKERS = 2
"""Threads that draw pictures and make files: the nowcasts need the processor more."""


def make_app(hub: Hub, access: Access, events: Events) -> App:
    """Put the addresses behind the guard."""
    from fastapi import FastAPI
    from starlette.routing import BaseRoute, Route

    answers = _Answers(hub, events)
    routes: list[BaseRoute] = [
        Route("/events", events),
        Route("/pictures/{run}/{stream:int}/{address:path}", answers.picture),
        Route("/points/{run}/{stream:int}/{key}/{x:int}/{y:int}", answers.point),
        Route("/map/{key}/{detail}", answers.map),
        Route("/nowcast/latest", answers.latest),
        *routes_for_gis(hub),
        Route("/healthz", answers.healthz),
        Route("/metrics", answers.metrics),
        *(
            Route("/" if name == "index.html" else f"/{name}", _static(name, media))
            for name, media in _STATIC.items()
        ),
    ]
    app = FastAPI(
        title="stpl-deploy", routes=routes, openapi_url=None, docs_url=None, redoc_url=None
    )
    return Guard(app, access)


def _static(name: str, media: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for a file of the page, which browsers ask for anew and get when it changed."""
    from starlette.responses import Response

    content = files("stpl_runtime.page").joinpath("static", *name.split("/")).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"cache-control": "no-cache", "etag": tag}

    async def endpoint(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media, headers=headers)

    return endpoint


class _Answers:
    def __init__(self, hub: Hub, events: Events) -> None:
        self._hub, self._events = hub, events
        self._outputs = Outputs(hub.run)
        self._limiter: CapacityLimiter | None = None

    async def _in_thread(self, make: Callable[..., T], *given: object) -> T:
        """Run what takes its time in a thread."""
        from anyio import CapacityLimiter, to_thread

        if self._limiter is None:  # made in the server's loop
            self._limiter = CapacityLimiter(_WORKERS)
        return await to_thread.run_sync(make, *given, limiter=self._limiter)

    async def picture(self, request: Request) -> Response:
        from starlette.responses import Response

        view = self._view(request)
        if view is None:
            return _text(404, "that picture was of an earlier start\n")
        palette = request.query_params.get("colours", STANDARD)
        if palette not in palettes(view.look.units):
            return _text(400, f"colours: expected one of {', '.join(palettes(view.look.units))}\n")
        png = await self._in_thread(view.png, request.path_params["address"], palette)
        if png is None:
            return _text(404, "that picture is not kept any more\n")
        return Response(png, media_type="image/png", headers=_KEEP)

    def _view(self, request: Request) -> StreamView | None:
        """The stream that an address names; None where it is of an earlier start."""
        parts, names = request.path_params, self._hub.names
        if parts["run"] != self._hub.run or parts["stream"] >= len(names):
            return None
        return self._hub.views[names[parts["stream"]]]

    async def point(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        view, parts = self._view(request), request.path_params
        found = None if view is None else view.point(parts["key"], parts["x"], parts["y"])
        if found is None:
            return _text(404, "no such pixel, or its nowcast is not kept any more\n")
        return JSONResponse(found, headers={"cache-control": "no-store"})

    async def map(self, request: Request) -> Response:
        from starlette.responses import Response

        parts = request.path_params
        found = await self._in_thread(self._hub.maps.json, parts["key"], parts["detail"])
        if found is None:
            return _text(404, "that map is not kept any more\n")
        return Response(found, media_type="application/json", headers=_KEEP)

    async def latest(self, request: Request) -> Response:
        from starlette.responses import Response

        name = request.query_params.get("stream", self._hub.names[0])
        if name not in self._hub.views:
            return _text(404, self._hub.no_stream(name))
        asked = request.query_params.get("format")
        word = chosen_format(asked, request.headers.get("accept", "*/*"))
        if word is None:
            status = 406 if asked is None else 400
            return _text(status, f"format {asked}: expected one of {', '.join(FORMATS)}\n")
        nowcast = self._hub.views[name].latest
        if nowcast is None:
            return _text(503, "no nowcast yet\n", {"retry-after": "5"})
        tag = self._outputs.tag(nowcast, word)
        headers = {"cache-control": "no-cache", "etag": tag, "vary": "accept"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        try:
            made = await self._in_thread(self._outputs.file, nowcast, word)
        except MissingExtraError as error:
            return _text(501, f"{error}\n")
        headers["content-disposition"] = f'inline; filename="{made.name}"'
        return Response(made.content, media_type=made.media, headers=headers)

    async def healthz(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        pulse = self._hub.pulse()
        status = 200 if pulse["status"] in SERVING else 503
        document = pulse if request.scope["trusted"] else {"status": pulse["status"]}
        return JSONResponse(
            finite(document), status_code=status, headers={"cache-control": "no-store"}
        )

    async def metrics(self, request: Request) -> Response:
        from starlette.responses import Response

        text, kind = exposition(self._hub, self._events.clients)
        return Response(text, headers={"content-type": kind, "cache-control": "no-store"})


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(text, status, {"cache-control": "no-store", **(headers or {})})


def drop_connection(server_connections: Callable[[], set[object]]) -> Callable[[Scope], None]:
    """What cuts the connection of a request, although its reader takes nothing any more."""

    def drop(scope: Scope) -> None:
        for connection in list(server_connections()):
            if getattr(connection, "client", None) == scope["client"]:
                connection.transport.abort()  # type: ignore[attr-defined]

    return drop
