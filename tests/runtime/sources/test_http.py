"""Polling over HTTP, against a server with ETags that can fail in every way named here."""

from __future__ import annotations

import base64
import contextlib
import io
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.codec import FrameCodec
from stpl_core.errors import UsageError
from stpl_core.frames import Frame
from stpl_runtime.source import BadFrame, Notes, SourceSpec, open_source
from tests.runtime.conftest import Cli, picture
from tests.runtime.sources.source_reader import SourceReader

pytest.importorskip("httpx")

FAST = {"interval": "0.02", "timeout": "2"}
FORBIDDEN, BROKEN, CUT = b"403", b"500", b"cut"
MODIFIED = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def spec(cadence_s: float | None = None, **options: str) -> SourceSpec:
    return SourceSpec((1, 16, 16), FrameCodec(), cadence_s=cadence_s, options={**FAST, **options})


def npy(slot: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, picture(slot))
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `files`; `plan` holds answers that come before."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.files: dict[str, bytes] = {}
        self.plan: list[str] = []
        self.seen: list[tuple[str, int, dict[str, str]]] = []
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def root(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, content: bytes) -> None:
        with self.changed:
            self.files[path] = content

    def wait_for(self, status: int, count: int = 1) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: sum(found == status for _, found, _ in self.seen) >= count, timeout=30
            ), self.seen[-5:]

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.changed:
            way = self.server.plan.pop(0) if self.server.plan else "well"
            content = self.server.files.get(self.path)
        tag = f'"{hash(content)}"'
        if way == "busy":
            self._answer(503, b"", {"Retry-After": "0"})
        elif way == "odd":  # a digit, and no number
            self._answer(503, b"", {"Retry-After": "\xb2"})
        elif way == "denied":
            self._answer(401, b"")
        elif content in (FORBIDDEN, BROKEN):
            self._answer(int(content[:3]), b"")
        elif way == "moved":
            self._answer(302, b"", {"Location": f"http://{self.server.root}/moved.npy"})
        elif way == "lost":
            self._answer(302, b"", {"Location": "http://no..where/"})
        elif content is None:
            self._answer(404, b"")
        elif way == "cut" or content == CUT:
            self._answer(200, content[:-100], {"Content-Length": str(len(content))})
            self.close_connection = True
        elif way == "drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # until nobody listens
                for place in range(len(content)):
                    self.wfile.write(content[place : place + 1])
                    time.sleep(0.02)
            self.close_connection = True
        elif way == "growing":
            self._answer(200, content[:-100], {"ETag": '"growing"'})
        elif self.headers.get("If-None-Match") == tag:
            self._answer(304, b"")
        else:
            stamp = format_datetime(MODIFIED, usegmt=True)
            self._answer(200, content, {"ETag": tag, "Last-Modified": stamp})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Length": str(len(content)), **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        with self.server.changed:
            self.server.seen.append((self.path, status, dict(self.headers)))
            self.server.changed.notify_all()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def test_only_what_is_new_arrives_and_only_that_is_sent(server: Server) -> None:
    with SourceReader(open_source(f"http://{server.root}/latest.npy", spec())) as reader:
        server.wait_for(404, 2)  # not there yet is no failure
        assert reader.wait_for_state("up").reason == ""
        for n in range(3):
            server.put("/latest.npy", npy(n))
            reader.wait_for(n + 1)
            server.wait_for(304, n + 1)
        frames = reader.frames
    assert [status for _, status, _ in server.seen].count(200) == 3
    for n, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.data, picture(n))
        assert frame.valid_time == MODIFIED
        assert frame.source_id == "latest.npy"


@pytest.mark.parametrize(
    ("path", "cadence_s", "note"),
    [
        ("/latset.npy", None, "latset.npy is not there yet: HTTP 404 Not Found; it is asked"),
        ("/%Y%m%d%H%M.npy", 60.0, "none of the newest 32 slots is there yet, up to 20"),
    ],
)
def test_a_url_that_is_never_there_is_reported(
    server: Server, path: str, cadence_s: float | None, note: str
) -> None:
    """No failure, and yet a misspelt one must not be waited for in silence."""
    source = open_source(f"http://me:hush@{server.root}{path}", spec(cadence_s))
    assert isinstance(source, Notes)
    with SourceReader(source):
        server.wait_for(404, 65 if cadence_s else 2)
        assert note in source.note
        assert "hush" not in source.note


def test_a_stream_tells_it_once(server: Server, cli: Cli, bundle: Bundle) -> None:
    words = ("--idle-timeout", 1, "--source-option", "interval=0.05")
    code, _, err = cli("stream", bundle.path, f"http://{server.root}/latset.npy", *words)
    assert (code, err.count("is not there yet: HTTP 404")) == (0, 1)
    assert len(server.seen) > 1


def test_a_body_that_is_cut_off_is_asked_for_again(server: Server) -> None:
    server.put("/a.npy", npy(0))
    server.plan = ["cut", "busy", "odd", "cut"]
    with SourceReader(open_source(f"http://{server.root}/a.npy", spec())) as reader:
        reader.wait_for(1)
        np.testing.assert_array_equal(reader.frames[0].data, picture(0))
        assert reader.wait_for_state("up").reconnects == 1
    assert [status for _, status, _ in server.seen][:5] == [200, 503, 503, 200, 200]


def test_a_file_that_grows_on_the_server_is_waited_for_and_a_broken_one_is_bad(
    server: Server,
) -> None:
    server.put("/a.npy", npy(0))
    server.plan = ["growing"]
    with SourceReader(open_source(f"http://{server.root}/a.npy", spec())) as reader:
        reader.wait_for(1)
        assert isinstance(reader.items[0], Frame)
        server.put("/a.npy", npy(1)[:-50])
        bad = reader.wait_for(2)[1]
        assert isinstance(bad, BadFrame)
        assert bad.reason.startswith("a.npy cannot be read as .npy")
        server.wait_for(304, 2)
        server.put("/a.npy", npy(2))
        reader.wait_for(3)
        assert len(reader.items) == 3
        assert reader.source.health.now().state == "up"


def test_too_many_bytes_are_refused_before_they_are_read(server: Server) -> None:
    server.put("/a.npy", npy(0) + bytes(2000))
    with SourceReader(open_source(f"http://{server.root}/a.npy", spec(max_mb="0.002"))) as reader:
        (bad,) = reader.wait_for(1)
        assert isinstance(bad, BadFrame)
        assert "expected at most 0.002 MB" in bad.reason
        server.wait_for(304)
        assert len(reader.items) == 1


def test_redirects_are_followed_and_401_is_down(server: Server) -> None:
    server.put("/moved.npy", npy(0))
    server.plan = ["moved"]
    with SourceReader(open_source(f"http://{server.root}/a.npy", spec())) as reader:
        reader.wait_for(1)
        server.put("/moved.npy", npy(1))
        server.plan = ["lost", "moved"]
        reader.wait_for(2)
        server.plan = ["denied"] * 50
        assert reader.wait_for_state("down").reason == "HTTP 401 Unauthorized"


def test_credentials_are_sent_and_never_printed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/a.npy", npy(0))
    word = f"http://olga:geheim7@{server.root}/a.npy?token=abc123"
    server.put("/a.npy?token=abc123", npy(0))
    server.plan = ["denied"]
    source = open_source(word, spec())
    with SourceReader(source) as reader:
        reader.wait_for(1)
        assert "Authorization" not in server.seen[0][2]  # who asks for Digest never sees it
        sent = server.seen[1][2]["Authorization"]
        assert base64.b64decode(sent.split()[1]) == b"olga:geheim7"
        server.close()
        now = reader.wait_for_state("down")
    text = f"{source.name} {now.reason} {reader.items[0].source_id}"
    for secret in ("geheim7", "olga", "abc123"):
        assert secret not in text
    monkeypatch.setenv("RADAR_TOKEN", "t0ken")
    other = Server()
    other.put("/a.npy", npy(0))
    options = spec(token_env="RADAR_TOKEN")
    with SourceReader(open_source(f"http://{other.root}/a.npy", options)) as reader:
        reader.wait_for(1)
    other.close()
    assert other.seen[0][2]["Authorization"] == "Bearer t0ken"


def test_a_server_that_is_killed_and_restarted_is_found_again(server: Server) -> None:
    server.put("/a.npy", npy(0))
    port = server.server_address[1]
    with SourceReader(open_source(f"http://{server.root}/a.npy", spec())) as reader:
        reader.wait_for(1)
        server.close()
        reader.wait_for_state("down")
        time.sleep(1.0)  # long enough for the back-off to grow
        again = Server(port)
        back = time.monotonic()
        again.put("/a.npy", npy(1))
        reader.wait_for(2)
        took = reader.arrivals[1].arrived - back
        assert reader.source.health.now().reconnects == 1
        again.close()
    sys.stderr.write(f"http: found again after {took:.2f} s\n")
    assert took < 10.0  # 2 s on a quiet machine


def test_one_file_for_each_slot(server: Server) -> None:
    """Those that are missing are looked for again, and none is asked for twice."""
    cadence = 60.0
    newest = int(time.time() // cadence)
    times = [
        datetime.fromtimestamp(n * cadence, timezone.utc) for n in range(newest - 5, newest + 1)
    ]
    paths = [f"/{at:%Y%m%d}/radar_{at:%H%M}.npy" for at in times]
    for n in (1, 2, 4):
        server.put(paths[n], npy(n))
    word = f"http://{server.root}/%Y%m%d/radar_%H%M.npy"
    with SourceReader(open_source(word, spec(cadence, back="5"))) as reader:
        reader.wait_for(3)
        assert [frame.valid_time for frame in reader.frames] == [times[n] for n in (1, 2, 4)]
        server.put(paths[3], npy(3))  # late
        reader.wait_for(4)
        assert reader.frames[3].valid_time == times[3]
        server.put(paths[5], b"garbage")
        assert isinstance(reader.wait_for(5)[4], BadFrame)
    asked = [path for path, status, _ in server.seen if status == 200]
    assert sorted(asked) == sorted([*paths[1:5], paths[5], paths[5]])
    assert paths[0] not in [path for path, _, _ in server.seen]


@pytest.mark.parametrize(
    ("word", "given", "found"),
    [
        ("http://", {}, "no host"),
        ("http://h:port/x", {}, "Invalid port"),
        ("http://xn--/x", {}, "is no URL: Malformed A-label"),
        ("http://h..org/x", {}, "is no URL"),
        ("https://u:pw@h/%Y%m%d.h5", {}, "--cadence"),
        ("http://h/x", {"intervall": "3"}, r"no option intervall; .*try: interval=3"),
        ("http://h/x", {"interval": "often"}, "interval=often; expected a number"),
        ("http://h/x", {"token_env": "NO_SUCH_VARIABLE"}, "no such environment variable"),
        ("https://h/x", {"ca": "/no/such.pem"}, r"ca=/no/such\.pem cannot be used: No such file"),
        ("https://h/x", {"ca": __file__}, "cannot be used: .*expected a PEM file"),
    ],
)
def test_bad_input(word: str, given: dict[str, str], found: str) -> None:
    with pytest.raises(UsageError, match=found) as caught:
        open_source(word, SourceSpec((1, 16, 16), FrameCodec(), options=given))
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("refusal", [FORBIDDEN, BROKEN])
def test_slots_that_are_refused_hold_up_no_other(server: Server, refusal: bytes) -> None:
    """As buckets behind a web server do, which answer 403 for what is not there; or by a fault."""
    now = datetime.now(timezone.utc)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight - timedelta(days=n) for n in range(12, -1, -1)]
    paths = [f"/radar_{at:%Y%m%d}.npy" for at in days]
    for n, path in enumerate(paths):
        server.put(path, npy(n) if n in (9, 11) else refusal)
    source = open_source(f"http://{server.root}/radar_%Y%m%d.npy", spec(86400.0, back="13"))
    with SourceReader(source) as reader:
        reader.wait_for(2)
        state = "up" if refusal == FORBIDDEN else "down"
        reader.wait_for_state(state)
        with server.changed:
            server.seen.clear()
        server.wait_for(int(refusal[:3]), 30)  # each was asked for again
        server.put(paths[12], npy(12))
        reader.wait_for(3)
        reader.wait_for_state(state)
        server.put(paths[3], npy(3))  # given after all
        reader.wait_for(4)
        assert [frame.valid_time for frame in reader.frames] == [days[n] for n in (9, 11, 12, 3)]


def test_a_slot_that_always_breaks_off_holds_up_no_other(server: Server) -> None:
    midnight = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight - timedelta(days=n) for n in range(7, -1, -1)]
    for n, at in enumerate(days):
        server.put(f"/radar_{at:%Y%m%d}.npy", CUT if n < 6 else npy(n))
    source = open_source(f"http://{server.root}/radar_%Y%m%d.npy", spec(86400.0, back="8"))
    with SourceReader(source) as reader:
        reader.wait_for(2)
        server.put(f"/radar_{days[0]:%Y%m%d}.npy", npy(0))  # whole after all
        reader.wait_for(3)
        assert [frame.valid_time for frame in reader.frames] == [days[n] for n in (6, 7, 0)]


def test_a_server_that_refuses_every_slot_is_down(server: Server) -> None:
    today = datetime.now(timezone.utc)
    for n in range(-1, 13):
        server.put(f"/radar_{today - timedelta(days=n):%Y%m%d}.npy", FORBIDDEN)
    word = f"http://{server.root}/radar_%Y%m%d.npy"
    with SourceReader(open_source(word, spec(86400.0, back="13"))) as reader:
        assert reader.wait_for_state("down").reason == "HTTP 403 Forbidden"
        server.put(f"/radar_{today:%Y%m%d}.npy", npy(1))
        reader.wait_for(1)


def test_a_body_that_drips_in_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the whole never does."""
    monkeypatch.setattr("stpl_runtime.sources.http._WHOLE_S", 0.2)
    server.put("/latest.npy", npy(1))
    server.plan += ["drip"]
    with SourceReader(open_source(f"http://{server.root}/latest.npy", spec())) as reader:
        assert "the body took more than 0.2 s" in reader.wait_for_state("down").reason
        reader.wait_for(1)
