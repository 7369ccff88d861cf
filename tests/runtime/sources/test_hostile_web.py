"""Servers that mean ill, or mean well and are broken: the source goes on, and asks nobody else."""

from __future__ import annotations

import gzip
import io
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")

from stpl_core.codec import FrameCodec  # noqa: E402
from stpl_core.errors import FrameError  # noqa: E402
from stpl_core.frames import Frame  # noqa: E402
from stpl_runtime.links import web  # noqa: E402
from stpl_runtime.links.reconnect import without_credentials  # noqa: E402
from stpl_runtime.source import Arrival, BadFrame, SourceSpec  # noqa: E402
from stpl_runtime.sources.http import open_http  # noqa: E402

SPEC = SourceSpec((1, 8, 8), FrameCodec(), options={"interval": "0.02", "max_mb": "1"})
Answer = Callable[[int], tuple[int, dict[str, bytes], bytes]]


def frame(value: float) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full((8, 8), value, np.float32))
    return buffer.getvalue()


class Server:
    """Answers each request by its number; counts them."""

    def __init__(self, answer: Answer) -> None:
        self.count = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.count += 1
                status, headers, body = answer(outer.count)
                head = f"HTTP/1.1 {status} x\r\n".encode()
                headers = {"Content-Length": str(len(body)).encode(), **headers}
                for name, value in headers.items():
                    head += name.encode() + b": " + value + b"\r\n"
                self.wfile.write(head + b"Connection: close\r\n\r\n" + body)
                self.close_connection = True

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"//127.0.0.1:{self._server.server_port}/rain_202401010000.npy"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def first(server: Server, count: int) -> list[Arrival]:
    """The first arrivals of a source at the server."""
    stop, found = threading.Event(), list[Arrival]()
    late = threading.Timer(20.0, stop.set)
    late.start()
    for arrival in open_http(server.url, SPEC).arrivals(stop):
        found.append(arrival)
        if len(found) == count:
            stop.set()
    late.cancel()
    return found


@pytest.mark.parametrize(
    "header",
    [
        {"ETag": b'"\xe9t\xe9"'},
        {"Last-Modified": b"le 1 f\xe9vrier"},
        {"Set-Cookie": b"name=\xe9; Path=/"},
        {"Last-Modified": b"Fri, 31 Dec 9999 23:59:59 -1200"},
        {"Last-Modified": b"Mon, 01 Jan 0001 00:00:00 +1400"},
        {"ETag": b'"' + b"x" * 5000 + b'"'},
    ],
    ids=lambda header: "-".join(header),
)
def test_a_header_that_no_request_can_carry(
    serve: Callable[[Answer], Server], header: dict[str, bytes]
) -> None:
    """The next request is sent all the same, and brings the next frame."""
    server = serve(lambda count: (200, header, frame(min(count, 3) / 10)))
    found = first(server, 3)
    assert [type(arrival.item) for arrival in found] == [Frame] * 3


@pytest.mark.parametrize("encoding", [b"gzip, gzip", b"gzip"])
def test_a_body_that_unpacks_without_end(
    serve: Callable[[Answer], Server], encoding: bytes
) -> None:
    bomb = gzip.compress(bytes(2**27))
    body = gzip.compress(bomb) if b"," in encoding else bomb
    headers = {"Content-Encoding": encoding}

    def answer(count: int) -> tuple[int, dict[str, bytes], bytes]:
        return (200, headers, body) if count == 1 else (200, {}, frame(0.5))

    found = first(serve(answer), 2 if encoding == b"gzip" else 1)
    assert isinstance(found[-1].item, Frame)
    if encoding == b"gzip":
        assert isinstance(found[0].item, BadFrame)


def test_a_retry_at_once_is_not_taken_at_its_word(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda count: (503, {"Retry-After": b"0"}, b""))
    stop = threading.Event()
    source = open_http(server.url, SPEC)
    thread = threading.Thread(target=lambda: list(source.arrivals(stop)))
    begin = time.monotonic()
    thread.start()
    while server.count < 3 and time.monotonic() - begin < 20:
        stop.wait(0.01)
    took = time.monotonic() - begin
    stop.set()
    thread.join()
    assert server.count == 3
    assert took >= 0.9  # two waits of half a second: the server's clock, and no speed of ours


def test_a_redirect_inside_is_not_followed(
    serve: Callable[[Answer], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a public host to this machine: refused before anything is sent there."""
    inner = serve(lambda count: (200, {}, frame(0.5)))
    request = httpx.Request("GET", f"http:{inner.url}")
    with pytest.raises(httpx.UnsupportedProtocol, match="own network"):
        web.NoInnerAddress("93.184.216.34")(request)
    web.NoInnerAddress("127.0.0.1")(request)  # a broker of this machine may speak of it
    cloud = httpx.Request("GET", "http://169.254.169.254/latest/meta-data")
    for near in ("127.0.0.1", "10.0.0.1", ""):
        with pytest.raises(httpx.UnsupportedProtocol):
            web.NoInnerAddress(near)(cloud)
    hook = web.Redirects("http://93.184.216.34/x")
    hook(httpx.Request("GET", "http://93.184.216.34/x"))
    for url in ("http://127.0.0.1/", "http://[::1]/", "http://[::ffff:10.0.0.1]/", cloud.url):
        with pytest.raises(httpx.UnsupportedProtocol):
            hook(httpx.Request("GET", url))
    assert inner.count == 0


@pytest.mark.parametrize(
    "url", [b"file:///etc/hostname", b"ftp://127.0.0.1/", b"http://169.254.1.1/"]
)
def test_a_redirect_elsewhere_is_a_failure_and_no_end(
    serve: Callable[[Answer], Server], url: bytes
) -> None:
    def answer(count: int) -> tuple[int, dict[str, bytes], bytes]:
        return (302, {"Location": url}, b"") if count == 1 else (200, {}, frame(0.5))

    found = first(serve(answer), 1)
    assert isinstance(found[0].item, Frame)


def test_bodies_are_unpacked_once_and_within_a_limit() -> None:
    assert web.decoded_body(b"abc", "", 10) == b"abc"
    assert web.decoded_body(gzip.compress(b"abc"), "gzip", 10) == b"abc"
    with pytest.raises(FrameError):
        web.decoded_body(gzip.compress(bytes(1000)), "gzip", 10)
    with pytest.raises(ValueError, match="expected gzip"):
        web.decoded_body(b"abc", "br", 10)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("http://user:pa/ss@host/x", "pa/ss"),
        ("http://user:p@ss/word@host/x", "ss/word"),
        ("mqtt://me:s3cret@broker/topic", "s3cret"),
        ("rtmp://host/live/stream-key-1", "stream-key-1"),
        ("https://host/x?jwt=eyJhbGciOi", "eyJhbGciOi"),
        ("https://host/x?code=abc123&y=1", "abc123"),
        ("http://cam/video?usr=a&psw=hidden", "hidden"),
        ("https://host/x?SAS=abc", "abc"),
        ("https://host/x?next=token=abc=def", "abc"),
        ("https://host/x?token=abc=def", "def"),
        ("https://host/x?X-Amz-Signature=abcdef", "abcdef"),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    masked = without_credentials(f"cannot reach {text} now")
    assert secret not in masked
    assert "***" in masked


@pytest.mark.parametrize("part", ["a.", "a-", "://", "x:", "=", "a=", "token=", "rtmp://a/b/"])
def test_a_long_text_is_masked_at_once(part: str) -> None:
    """One message with such an address held a stream up for hours."""
    masked = without_credentials(f"file://{part * 200_000}?token=hidden")
    assert "hidden" not in masked
    assert len(masked) < 10_000


@pytest.mark.parametrize(
    "host",
    ["100.64.0.1", "100.100.100.200", "168.63.129.16", "0.0.0.0", "224.0.0.1", "240.0.0.1",
     "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[fd00:ec2::254]", "[::]"],
)  # fmt: skip
def test_inner_addresses_in_disguise(host: str) -> None:
    """Of clouds, carriers and translators: each leads inside."""
    with pytest.raises(httpx.UnsupportedProtocol, match="own network"):
        web.NoInnerAddress("93.184.216.34")(httpx.Request("GET", f"http://{host}/"))


@pytest.mark.parametrize("host", ["93.184.216.34", "[2606:2800:220:1::1]", "[64:ff9b::5db8:d822]"])
def test_outer_addresses_are_asked(host: str) -> None:
    web.NoInnerAddress("")(httpx.Request("GET", f"http://{host}/"))


@pytest.mark.parametrize(
    "text",
    ["http://host:8080/radar/latest.png", "https://host/a?time=12&layer=rain", "rtmp://host/live"],
)
def test_what_is_no_secret_is_left(text: str) -> None:
    assert without_credentials(text) == text
