"""The addresses of the newest nowcast for GIS programs.

/wms        WMS 1.3.0
/wmts       WMTS 1.0.0
/tiles/...  XYZ tiles
/edr/...    OGC API - EDR

All of it is drawn in one thread of its own, so that maps never take the pictures' turn. Answers
are asked for anew each time, and have a tag that changes with the nowcast.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

from stpl_core.errors import MissingExtraError
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.page.gis.coverage import Document
from stpl_runtime.page.gis.edr import Edr
from stpl_runtime.page.gis.openapi import COVERAGE, OPENAPI
from stpl_runtime.page.gis.refusal import RefusedError
from stpl_runtime.page.gis.tiles import tile
from stpl_runtime.page.gis.wms import Answer, lasting, wms
from stpl_runtime.page.gis.wmts import DOCUMENT, wmts
from stpl_runtime.page.hub import Hub

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

Endpoint = Callable[["Request"], Awaitable["Response"]]
T = TypeVar("T")
_FRESH = "private, no-cache, must-revalidate"
"""QGIS keeps what it may, and would show it again."""
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


def routes(hub: Hub) -> list[BaseRoute]:
    """The addresses."""
    from starlette.routing import Route

    answers = _Answers(hub)
    edr = answers.edr
    return [
        Route("/wms", answers.wms),
        Route("/wmts", answers.wmts),
        Route(DOCUMENT, answers.wmts),
        Route("/tiles/{layer}/{z:int}/{x:int}/{y:int}.png", answers.tile),
        Route("/edr", edr(lambda found, _: found.landing())),
        Route("/edr/", edr(lambda found, _: found.landing())),
        Route("/edr/api", edr(lambda found, _: found.api(), OPENAPI)),
        Route("/edr/conformance", edr(lambda found, _: found.conformance())),
        Route("/edr/collections", edr(lambda found, _: found.collections())),
        Route(
            "/edr/collections/{name}",
            edr(lambda found, asked: found.collection(asked.path_params["name"])),
        ),
        Route(
            "/edr/collections/{name}/position",
            edr(
                lambda found, asked: found.position(asked.path_params["name"], asked.query_params),
                COVERAGE,
            ),
        ),
        Route(
            "/edr/collections/{name}/area",
            edr(
                lambda found, asked: found.area(asked.path_params["name"], asked.query_params),
                COVERAGE,
            ),
        ),
    ]


class _Answers:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limiter: CapacityLimiter | None = None

    async def _in_thread(self, make: Callable[[], T]) -> T:
        from anyio import CapacityLimiter, to_thread

        if self._limiter is None:  # made in the server's loop
            self._limiter = CapacityLimiter(1)
        return await to_thread.run_sync(make, limiter=self._limiter)

    def _nowcasts(self) -> dict[str, Nowcast]:
        views = self._hub.views.items()
        return {name: view.latest for name, view in views if view.latest is not None}

    def _headers(self, nowcasts: dict[str, Nowcast]) -> dict[str, str]:
        """With a tag that is another one for every set of nowcasts, and for every start."""
        parts = [(name, one.name, one.latency_ms) for name, one in nowcasts.items()]
        tag = hashlib.sha256(repr((self._hub.run, parts)).encode()).hexdigest()[:16]
        return {"cache-control": _FRESH, "etag": f'"{tag}"'}

    async def wms(self, request: Request) -> Response:
        """WMS 1.3.0."""

        def answer(nowcasts: dict[str, Nowcast], given: dict[str, str]) -> Answer:
            kept = lasting(given)
            url = f"{_root(request)}/wms?{urlencode(kept)}{'&' if kept else ''}"
            return wms(nowcasts, given, url)

        return await self._by_parameters(request, answer)

    async def wmts(self, request: Request) -> Response:
        """What the WMTS says of itself."""
        root = _root(request)
        return await self._by_parameters(request, lambda found, given: wmts(found, given, root))

    async def _by_parameters(
        self, request: Request, answer: Callable[[dict[str, Nowcast], dict[str, str]], Answer]
    ) -> Response:
        """An answer to parameters whose names may be in small letters or large ones."""
        from starlette.responses import Response

        nowcasts = self._nowcasts()
        headers = self._headers(nowcasts)
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        given = {name.lower(): value for name, value in request.query_params.multi_items()}
        made = await self._in_thread(lambda: answer(nowcasts, given))
        if made.is_refusal:
            headers = {"cache-control": "no-store"}
        return Response(made.content, made.status, headers, media_type=made.media)

    async def tile(self, request: Request) -> Response:
        """An XYZ tile."""
        from starlette.responses import PlainTextResponse, Response

        nowcasts, parts = self._nowcasts(), request.path_params
        headers = self._headers(nowcasts)
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        place, given = (parts["z"], parts["x"], parts["y"]), dict(request.query_params)
        try:
            png = await self._in_thread(lambda: tile(nowcasts, parts["layer"], place, given))
        except (RefusedError, MissingExtraError) as error:
            status, text = _refused(error)
            return PlainTextResponse(f"{text}\n", status, {"cache-control": "no-store"})
        return Response(png, headers=headers, media_type="image/png")

    def edr(
        self, document: Callable[[Edr, Request], Document], media: str = "application/json"
    ) -> Endpoint:
        """An endpoint for one of the documents of EDR."""

        async def endpoint(request: Request) -> Response:
            from starlette.responses import JSONResponse, Response

            nowcasts = self._nowcasts()
            headers = self._headers(nowcasts)
            if request.headers.get("if-none-match") == headers["etag"]:
                return Response(status_code=304, headers=headers)
            token = request.query_params.get("token")
            query = "" if token is None else f"?{urlencode({'token': token})}"
            url = f"{_root(request)}/edr"
            try:
                made = await self._in_thread(lambda: document(Edr(nowcasts, url, query), request))
            except (RefusedError, MissingExtraError) as error:
                status, text = _refused(error)
                body = {"code": str(status), "description": text}
                return JSONResponse(body, status, {"cache-control": "no-store"})
            return Response(json.dumps(made, allow_nan=False), 200, headers, media_type=media)

        return endpoint


def _refused(error: RefusedError | MissingExtraError) -> tuple[int, str]:
    return (error.status, error.text) if isinstance(error, RefusedError) else (501, str(error))


def _root(request: Request) -> str:
    """How the program that asks reaches this server: by the Host header, which is checked."""
    host = request.headers.get("host", "")
    secure = request.headers.get("x-forwarded-proto") == "https"
    return f"{'https' if secure else 'http'}://{host if _HOST.fullmatch(host) else 'localhost'}"
