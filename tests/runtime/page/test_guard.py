"""The page's server through real requests on loopback: whom it refuses, and what it bounds."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from stpl_core.bundle import Bundle
from stpl_core.errors import EnvironmentFault, UsageError
from stpl_runtime.engine import Session
from stpl_runtime.page.guard import is_local_name
from stpl_runtime.page.server import is_loopback, listen, page_access
from tests.runtime.conftest import Cli
from tests.runtime.page.serving import Served, serve

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def served(bundle: Bundle, session: Session) -> Iterator[Served]:
    """A page of a stream that is well."""
    with serve(bundle, session) as page:
        page.give(0, 4)
        page.settle(2)
        yield page


def test_strange_requests_are_refused(served: Served) -> None:
    assert served.get("/", method="POST")[0] == 405
    assert served.get("/nowcast/latest", method="DELETE")[0] == 405
    assert served.get("/", body=b"x" * 10)[0] == 413
    assert served.get(f"/?{'x' * 3000}")[0] == 414
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
    for path in ("/", "/events", "/metrics"):
        status, _, body = served.get(path, method="HEAD")
        assert (status, body) == (200, b""), path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("[::1]:8765", 200),
        ("127.8.8.8", 200),
        ("evil.example", 421),
        ("evil.example:8765", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("192.168.1.4", 421),
        ("localhost:x", 421),
        ("", 421),
    ],
)
def test_names_that_are_not_of_this_machine_are_refused(
    served: Served, host: str, status: int
) -> None:
    """DNS rebinding: a page of another site whose name leads here sends its own name."""
    assert is_local_name(host) == (status == 200)
    assert served.get("/healthz", {"Host": host})[0] == status


def test_a_token(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, token=TOKEN) as page:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/", "/page.js", "/events", "/metrics", "/nowcast/latest", "/pictures/a/0/b"):
            status, headers, body = page.get(path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
            assert b"needs a token" in body
            assert page.get(path, {"Authorization": f"Bearer {TOKEN}x"})[0] == 401
            assert page.get(path, {"Authorization": f"Basic {TOKEN}"})[0] == 401
            assert page.get(path, {"Cookie": f"stpl_page={TOKEN}"})[0] == 401
        assert page.get("/metrics", bearer)[0] == 200
        assert page.get("/metrics", {**bearer, "Host": "edge-7.lan"})[0] == 200
        assert page.get(f"/metrics?token={TOKEN}")[0] == 200
        assert page.get("/?token=no")[0] == 401
        status, headers, _ = page.get(f"/?token={TOKEN}&stream=a")
        assert (status, headers["location"]) == (303, "./?stream=a")
        cookie, *rules = headers["set-cookie"].split("; ")
        assert TOKEN not in cookie
        assert {"HttpOnly", "SameSite=Strict"} <= set(rules)
        assert page.get("/", {"Cookie": f"other=1; {cookie}"})[0] == 200
        assert set(json.loads(page.get("/healthz")[2])) == {"status"}
        assert "streams" in json.loads(page.get("/healthz", bearer)[2])


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert page_access(True, None, {}) == (page_access(True, None, {})[0], "")
    assert page_access(True, None, {})[0].token is None
    made, how = page_access(False, None, {})
    assert how == "made"
    assert made.token is not None
    assert len(made.token) >= 32
    assert made.token != page_access(False, None, {})[0].token
    assert page_access(False, file, {"STPL_TOKEN": "x" * 20})[0].token == TOKEN
    assert page_access(True, None, {"STPL_TOKEN": "x" * 20})[0].token == "x" * 20
    for text in ("short", "with a blank in it", "a\ttab-in-the-middle", "ünïcode-long-enough"):
        file.write_text(text)
        with pytest.raises(UsageError, match="token"):
            page_access(False, file, {})
    with pytest.raises(UsageError, match="cannot read"):
        page_access(False, tmp_path / "no", {})


def test_so_many_pages_and_no_more(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, server={"clients": 2}) as page:
        with page.events() as one, page.events() as two:
            one.until("hello")
            two.until("hello")
            with page.events() as three:
                assert three.status == 503
                assert three.response.getheader("retry-after") == "10"
            one.response.close()
        with page.events() as four:  # there is room again
            assert four.status in (200, 503)


def test_a_page_that_takes_nothing_is_dropped(
    bundle: Bundle, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(bundle, session, server={"slow_s": 0.3}) as page:
        more = iter(range(10**9))
        monkeypatch.setattr(page.hub, "facts", lambda name: b'"' + b"x" * 2**22 + b'"')
        monkeypatch.setattr(page.hub, "version", lambda name: (next(more), 0))
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        with connection:
            connection.connect(("127.0.0.1", page.port))
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with page.events() as sent:  # one that reads is not held up
                while not page.server.events.dropped:
                    sent.next()
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(2**16):  # to the end, which there is now
                    pass
        assert page.server.events.dropped == 1


def test_connections_that_ask_nothing_are_cut(bundle: Bundle, session: Session) -> None:
    with (
        serve(bundle, session, server={"silent_s": 0.2}) as page,
        socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\n")  # and no more
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b"", "cut without an answer"


def test_connections_that_stop_within_a_later_request_are_cut(
    bundle: Bundle, session: Session
) -> None:
    with (
        serve(bundle, session, server={"silent_s": 0.2}) as page,
        socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection,
        connection.makefile("rb") as answers,
    ):
        asked = b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n"
        until = time.monotonic() + 0.8
        while time.monotonic() < until:  # one that asks again and again is left alone
            connection.sendall(asked + b"\r\n")
            assert b"200 OK" in answers.readline()
            head = b"".join(iter(answers.readline, b"\r\n")).lower()
            answers.read(int(head.partition(b"content-length: ")[2].split()[0]))
        connection.sendall(asked)  # and no more
        with contextlib.suppress(ConnectionResetError):
            assert answers.read(1) == b"", "cut without an answer"


def test_stopping_lets_every_page_go(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session) as page, page.events() as sent:
        sent.until("pulse")
        page.server.stop()
        while sent.response.readline():
            pass
        assert not page.server._thread.is_alive()


def test_a_port_in_use(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        assert is_loopback(taken)
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentFault, match="in use"):
            listen("127.0.0.1", port)
        code, out, err = cli("serve", bundle.path, tmp_path, "--port", port)
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert f"try: --port {port + 1}" in err
    with pytest.raises(UsageError):
        listen("no.such.host.invalid", 80)


def test_serve_refuses_bad_arguments(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    for words, say in [
        (("--host", "no.such.host.invalid"), "--host"),
        (("--port", "70000"), "65535"),
        (("--stale-after", "soon"), "--stale-after 7d"),
        (("--alarm", "3", "--no-skill"), "leave --no-skill out"),
        (("--thresholds", "a,b"), "--thresholds 0.1,1,5"),
        (("--thresholds", "1,nan"), "--thresholds 0.1,1,5"),
        (("--token-file", tmp_path / "no"), "cannot read"),
    ]:
        code, out, err = cli("serve", bundle.path, tmp_path, "--port", "0", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert say in err


def test_one_client_does_not_take_all_connections(bundle: Bundle, session: Session) -> None:
    """Thirty open connections of one address, of which eight may be: the next is answered."""
    with (
        serve(bundle, session, server={"connections": 16}) as page,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(30):
            stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
        assert page.get("/")[0] == 200


@pytest.mark.parametrize("path", ["/", "/events", "/nowcast/latest"])
def test_another_sites_code_gets_nothing(served: Served, path: str) -> None:
    refused = served.get(path, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"})
    assert refused[0] == 403
    for site in ("same-origin", "none"):
        assert served.get("/", {"Sec-Fetch-Site": site})[0] == 200
    link = {
        "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document",
    }  # fmt: skip
    assert served.get("/", link)[0] == 200
