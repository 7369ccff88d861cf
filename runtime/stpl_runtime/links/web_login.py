"""User and password for a web server: Digest where it offers that, else Basic; for it alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

_ABSENT = (404, 410)


class Login:
    """Asks without a password first, unless by TLS: who offers Digest never sees it in clear.

    Basic it is where the server refuses, sends us on or answers with a web page. The way is
    remembered. Another host, to which a redirect leads, gets nothing.
    """

    def __init__(self, user: str, password: str) -> None:
        """Prepare; nothing is known of the server yet."""
        import httpx

        self._basic = httpx.BasicAuth(user, password)
        self._digest = httpx.DigestAuth(user, password)
        self._way: httpx.Auth | None = None

    def for_client(self) -> httpx.Auth:
        """The same as httpx takes it."""
        import httpx

        auth = httpx.Auth()
        auth.auth_flow = self.auth_flow  # type: ignore[method-assign]
        return auth

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Give the requests to send, one after the other; see `httpx.Auth`."""
        if self._way is None and request.url.scheme == "https":
            self._way = self._basic
        if self._way is None:
            response = yield request
            if _is_plain_success(response, request):
                return
            if response.status_code in _ABSENT:
                self._way = self._basic  # the next time: some hide what is there from strangers
                return
            self._way = self._digest if _offers_digest(response) else self._basic
            if _same_server(response.request.url, request.url) and self._way is self._digest:
                request = response.request
        yield from self._flow(self._way, request)

    def _flow(
        self, way: httpx.Auth, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """One request by a way that is known; another where the server has changed its mind."""
        import httpx

        flow = way.auth_flow(request)
        try:
            response = yield next(flow)
            if response.status_code != 401 or not _same_server(response.request.url, request.url):
                return
            if way is self._basic and _offers_digest(response):
                self._way, flow = self._digest, self._digest.auth_flow(request)
                response = yield next(flow)
            yield flow.send(response)
        except StopIteration:
            return
        except (KeyError, NotImplementedError, httpx.ProtocolError):
            return  # a challenge that nobody can answer: the refusal stands


def _is_plain_success(response: httpx.Response, request: httpx.Request) -> bool:
    """Whether a request without a password was answered with what was asked for."""
    if response.status_code == 304:
        return True
    page = response.headers.get("content-type", "").lower().startswith("text/html")
    return response.is_success and not page and response.request.url == request.url


def _offers_digest(response: httpx.Response) -> bool:
    challenges = response.headers.get_list("www-authenticate")
    return any(challenge.lower().startswith("digest ") for challenge in challenges)


def _same_server(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
