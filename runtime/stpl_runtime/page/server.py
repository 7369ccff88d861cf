"""The page's server: uvicorn in a thread of its own, on a port that is taken at once."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpl_core.errors import EnvironmentFault, MissingExtraError, UsageError
from stpl_runtime.page.app import drop_connection, make_app
from stpl_runtime.page.connections import protocol_for
from stpl_runtime.page.events import CLIENTS, Events
from stpl_runtime.page.guard import Access
from stpl_runtime.page.hub import Hub

if TYPE_CHECKING:
    import uvicorn

HOST, PORT = "127.0.0.1", 8765
TOKEN_VARIABLE = "STPL_TOKEN"  # noqa: S105  # its name
_CONNECTIONS = 128
_HEADER_BYTES = 16 * 1024
_SILENT_S = 10.0
"""How long a connection may be open before its first request, or its next one, is whole."""
_SHORTEST_TOKEN = 16


class PageServer:
    """Serves a hub; `start` and `stop`, once."""

    def __init__(
        self,
        hub: Hub,
        listening: socket.socket,
        access: Access,
        *,
        clients: int = CLIENTS,
        connections: int = _CONNECTIONS,
        slow_s: float = 10.0,
        silent_s: float = _SILENT_S,
    ) -> None:
        """Prepare.

        Args:
            hub: what is shown.
            listening: from `listen`.
            access: whether a token is asked for.
            clients: pages that may listen at once.
            connections: open at once, half of them by one address; more are answered with 503.
            slow_s: seconds that a page has for taking an event.
            silent_s: seconds that a connection has for its first request, and for each later one.
        """
        import uvicorn

        self.access = access
        self._socket, self._silent_s = listening, silent_s
        self._name: tuple[str, int] = listening.getsockname()[:2]
        self.events = Events(hub, drop_connection(self._connections), limit=clients, slow_s=slow_s)
        config = uvicorn.Config(
            make_app(hub, access, self.events),
            http=protocol_for(max(2, connections // 2)),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="critical",  # what strangers send is not worth a line; bugs: see Guard
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            timeout_graceful_shutdown=1,
        )
        self._server: uvicorn.Server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        """Where a browser finds the page, without a token."""
        host, port = self._name
        if host in ("0.0.0.0", "::"):  # noqa: S104  # nosec B104
            host = socket.gethostname()
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()
        self._ready.wait(10.0)

    def stop(self) -> None:
        """End every answer and the thread; takes about a tenth of a second."""
        self._server.should_exit = True
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self.events.close)
        self._thread.join(timeout=5.0)
        self._socket.close()

    def _connections(self) -> set[Any]:
        return self._server.server_state.connections

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        reaper = asyncio.create_task(self._drop_silent())
        self._ready.set()
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            reaper.cancel()

    async def _drop_silent(self) -> None:
        """Cut connections that never send a whole request: they would use up all there are."""
        clock = asyncio.get_running_loop().time
        seen: dict[Any, tuple[object, float]] = {}  # its newest request, if any, and since when
        while True:
            now = clock()
            asks = {c: c.cycle for c in self._connections()}
            asks = {c: ask for c, ask in asks.items() if ask is None or ask.response_complete}
            before, seen = seen, {c: (ask, now) for c, ask in asks.items()}
            seen.update((c, was) for c, was in before.items() if c in asks and was[0] is asks[c])
            for connection, (_, since) in seen.items():
                if now - since > self._silent_s:
                    connection.transport.abort()
            await asyncio.sleep(min(1.0, self._silent_s / 4))


def check_installed() -> None:
    """Look for the libraries of the extra `page`.

    Raises:
        MissingExtraError: one is not installed.
    """
    for library in ("fastapi", "prometheus_client", "uvicorn"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library.replace("_", "-"), "page")


def listen(host: str, port: int) -> socket.socket:
    """Take a port; 0 takes any free one.

    Raises:
        UsageError: no such host or port.
        EnvironmentFault: the port is in use, or may not be taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, OverflowError, UnicodeError) as error:
        raise UsageError(
            f"--host {host} --port {port}: {error}",
            expected="a name or address of this machine, and a port from 0 to 65535",
            fix=f"--host {HOST} --port {PORT}",
        ) from error
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise EnvironmentFault(
                f"port {port} of {host} is in use",
                expected="a free port for the page",
                fix=f"--port {port + 1 if port < 65535 else 0}, or stop what listens there",
            ) from error
        raise EnvironmentFault(
            f"cannot listen on {host} port {port}: {error.strerror}",
            expected="an address of this machine and a port that you may take (1024 or above)",
            fix=f"--host {HOST} --port {PORT}",
        ) from error
    listening.setblocking(False)
    return listening


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    host: str = listening.getsockname()[0]
    return host == "::1" or host.startswith("127.")


def page_access(
    loopback: bool, token_file: Path | None, environment: Mapping[str, str] = os.environ
) -> tuple[Access, str]:
    """The token that is asked for, and where it came from: a path, a variable, `made` or ``.

    On loopback there is none unless one is given; elsewhere one is made where none is given.

    Raises:
        UsageError: a file that cannot be read, or a token that is too short.
    """
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read {token_file}: {getattr(error, 'strerror', None) or error}",
                expected="a file with the token in it",
                fix=f"openssl rand -hex 24 > {token_file}",
            ) from error
        return Access(_checked(token, str(token_file))), str(token_file)
    if environment.get(TOKEN_VARIABLE):
        return Access(_checked(environment[TOKEN_VARIABLE], TOKEN_VARIABLE)), TOKEN_VARIABLE
    if loopback:
        return Access(), ""
    return Access(secrets.token_urlsafe(24)), "made"


def _checked(token: str, where: str) -> str:
    if (
        len(token) < _SHORTEST_TOKEN
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise UsageError(
            f"the token in {where} has {len(token)} characters"
            if len(token) < _SHORTEST_TOKEN
            else f"the token in {where} has characters that no header takes",
            expected=f"{_SHORTEST_TOKEN} or more letters, digits and signs",
            fix="openssl rand -hex 24",
        )
    return token
