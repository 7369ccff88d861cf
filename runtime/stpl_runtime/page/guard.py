"""Who may ask, and what: the outermost layer of the page's server.

On loopback nobody needs a token, and the Host header must name this machine: else a web page of
another site could read this one through a name of its own that leads here (DNS rebinding).
Elsewhere a token is needed: as `Authorization: Bearer TOKEN`, as the password of a Basic one (any
user: GIS programs send that), or as `?token=TOKEN`, for which the page gives the browser a cookie.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LONGEST_ADDRESS = 2048
_OPEN = ("/healthz",)
"""Asked without a token too; answers then with no more than the word."""

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer."""


@dataclass(frozen=True)
class Access:
    """What the guard asks for."""

    token: str | None = None
    """None: everybody who reaches the port may ask, under a name of this machine alone."""

    @property
    def cookie(self) -> str:
        """What the browser keeps in place of the token."""
        assert self.token is not None, "a page with a token"
        return hmac.new(self.token.encode(), b"stpl-deploy page", hashlib.sha256).hexdigest()


COOKIE = "stpl_page"


class Guard:
    """Refuses, or passes on to `app`; adds the security headers; a bug ends one answer, no more."""

    def __init__(self, app: App, access: Access) -> None:
        """Stand before `app`."""
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        assert scope["type"] == "http", "the server speaks HTTP alone"
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await answer(send, *refusal)
            return
        scope["trusted"] = trusted = self._trusted(headers, query)
        if not trusted and scope["path"] not in _OPEN:
            await answer(send, 401, _REFUSED, {"www-authenticate": "Bearer"})
            return
        given = [value for name, value in query if name == "token"]
        if given and self._access.token is not None and scope["path"] == "/":
            await self._settle_in(send, query)
            return
        await self._pass_on(scope, receive, send)

    async def _settle_in(self, send: Send, query: list[tuple[str, str]]) -> None:
        """Give a cookie, and the address without the token: it stays in no history."""
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        where = f"./?{rest}" if rest else "./"
        cookie = f"{COOKIE}={self._access.cookie}; Path=/; HttpOnly; SameSite=Strict"
        await answer(send, 303, "", {"location": where, "set-cookie": cookie})

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *_encoded(HEADERS)]
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            if not started:
                await answer(send, 500, "a bug in stpl-deploy; its log has the lines to report\n")

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and text where the request is refused whoever sent it."""
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "only GET and HEAD\n"
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return 413, "no request here has a body\n"
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_ADDRESS:
            return 414, "the address is too long\n"
        if self._access.token is None and not is_local_name(headers.get("host", "")):
            return 421, (
                "This page is for this machine alone: open it as localhost or 127.0.0.1, or start "
                "it with --host for a page with a token.\n"
            )
        # A link that leads here from elsewhere opens the page; another page's code gets nothing.
        followed = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
        if headers.get("sec-fetch-site") == "cross-site" and followed != ("navigate", "document"):
            return 403, "not for the page of another site\n"
        return None

    def _trusted(self, headers: dict[str, str], query: list[tuple[str, str]]) -> bool:
        access = self._access
        if access.token is None:
            return True
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        tokens = [value for name, value in query if name == "token"]
        if kind.lower() == "bearer":
            tokens.append(bearer.strip())
        elif kind.lower() == "basic":
            tokens.append(_password(bearer.strip()))
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        kept = [value for name, _, value in cookies if name == COOKIE]
        # Every comparison is made, and each takes the same time whatever was given.
        found = [same(token, access.token) for token in tokens]
        found += [same(value, access.cookie) for value in kept]
        return any(found)


_REFUSED = (
    "This page needs a token. Open the address that stpl-deploy printed when it started (it ends "
    "in ?token=...), or send the header Authorization: Bearer TOKEN, or the token as a password.\n"
)


def _password(given: str) -> str:
    """Of `Authorization: Basic`; empty, which is no token, where it is none."""
    try:
        pair = base64.b64decode(given, validate=True).decode()
    except ValueError:
        return ""
    return pair.partition(":")[2]


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that gives away nothing of where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def is_local_name(host: str) -> bool:
    """Whether a Host header names this machine: localhost or a loopback address, any port."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    if port and not port.isdigit():
        return False
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def answer(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    """Send a short text."""
    body = text.encode()
    every = {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **HEADERS,
        **(headers or {}),
    }
    await send({"type": "http.response.start", "status": status, "headers": _encoded(every)})
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
