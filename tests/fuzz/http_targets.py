"""HTTP in both directions: requests to the page, and answers to the sources that ask a server."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from stpl_core.bundle import open_bundle
from stpl_core.codec import FrameCodec
from tests.fuzz.mutate import ODD, damaged

Attempt = Callable[[int], str]
TINY = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"
TOKEN = "a-token-of-some-length"
_PATIENCE_S = 0.5
_TEXTS = (*(str(one) for one in ODD if str(one).isprintable()), "*/*", "\xff", "a\tb", ", ,", ";=")


def page_requests(folder: Path) -> Attempt:
    """Raw requests to a page with a token and one without: answered or refused, and it lives on."""
    from stpl_runtime.engine import open_session
    from tests.runtime.page.serving import serve

    bundle = open_bundle(TINY)
    session = open_session(bundle, ["step", "forecast", "rollout"], threads=1)
    stack = contextlib.ExitStack()
    pages = [
        stack.enter_context(serve(bundle, session, token=token, server={"silent_s": _PATIENCE_S}))
        for token in (None, TOKEN)
    ]
    for page in pages:
        page.give(0, 4)
        with page.events(headers={"Authorization": f"Bearer {TOKEN}"}) as sent:
            sent.until("pulse", lambda p: p["streams"][""]["nowcasts"]["made"] > 1)
    ports = [page.port for page in pages]
    addresses = [
        "/", "/page.js", "/events", "/healthz", "/metrics", "/nowcast/latest", "/nowcast/latest?",
        "/events?stream=tap", f"/pictures/{pages[0].hub.run}/0/input/0", "/?token=x", "//", "*",
        *(f"/nowcast/latest?stream=tap&format={word}" for word in ("npz", "npy", "png", "json")),
    ]  # fmt: skip

    def attempt(seed: int) -> str:
        stack  # noqa: B018  # the pages live as long as this
        random = Random(seed)
        port = ports[seed % 2]
        given = request(random, addresses)
        found = answer_to(port, given)
        status = found.split(b" ", 2)[1:2]
        assert not found or (found.startswith(b"HTTP/1.1 ") and status[0].isdigit()), found[:100]
        assert status != [b"500"], given[:300]
        if seed % 2 and TOKEN.encode() not in given and status and status[0][:1] in b"23":
            assert b"/healthz" in given, (given[:300], found[:100])
        if random.randrange(20) == 0:
            well = answer_to(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert well.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")), well
        return "used" if status in ([b"200"], [b"303"], [b"304"]) else "refused"

    return attempt


def request(random: Random, addresses: list[str]) -> bytes:
    """One or several requests in a row, some of them damaged."""
    headers = {
        "Host": [
            "localhost",
            "127.0.0.1:1",
            "[::1]",
            "evil.example",
            "",
            "[",
            "a@b",
        ],
        "Authorization": [f"Bearer {TOKEN}", "Bearer", "Basic eDp5", f"bearer  {TOKEN} "],
        "Cookie": ["stpl_page=x", "stpl_page", "=;;=", f"stpl_page={TOKEN}", "a" * 9000],
        "Accept": ["*/*", "image/png;q=2", "text/html,application/x-netcdf", "a/b;q=x", ","],
        "If-None-Match": ['"x"', "*", 'W/"'],
        "Content-Length": ["0", "1", "-1", "99999999999", "0x0", "1, 1"],
        "Transfer-Encoding": ["chunked", "gzip, chunked", "x"],
        "Connection": ["close", "keep-alive", "upgrade"],
        "Upgrade": ["websocket", "h2c"],
        "Sec-Fetch-Site": ["cross-site", "same-origin"],
        "Sec-Fetch-Mode": ["navigate", "cors"],
        "Sec-Fetch-Dest": ["document", "iframe"],
        "Range": ["bytes=0-1", "bytes=-"],
        "Last-Event-ID": ["1", "9" * 5000],
        "Expect": ["100-continue"],
    }
    whole = b""
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        address = random.choice(addresses)
        if random.randrange(3) == 0:
            address += random.choice(["%00", "%ff", "/..", "?stream=%80", "&format=",
                                      "a" * 2100, "?a=" + random.choice(_TEXTS),
                                      f"?token={TOKEN}"])  # fmt: skip
        method = random.choice(["GET"] * 8 + ["HEAD", "POST", "PRI", "CONNECT", "get", ""])
        version = random.choice(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2.0", "HTTP/9", ""])
        lines = [f"{method} {address} {version}", "Host: localhost"]
        for name in random.sample(sorted(headers), random.randrange(6)):
            value = random.choice(headers[name] * 3 + list(_TEXTS))
            lines.append(f"{name}:{random.choice(['', ' '])}{value}")
        if random.randrange(2):
            lines.append(f"Authorization: Bearer {TOKEN}")
        text = "\r\n".join(lines) + "\r\n\r\n"
        whole += text.encode("latin-1", "replace")
    return damaged(whole, random) if random.randrange(3) == 0 else whole


def answer_to(port: int, content: bytes) -> bytes:
    """The start of the first answer; nothing where the server closes without one, or waits."""
    found = b""
    reached = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S + 30.0)
    with reached as connection, contextlib.suppress(ConnectionError):
        connection.sendall(content)
        while b"\r\n\r\n" not in found and (part := connection.recv(65536)):
            found += part
    return found


class _Turns(threading.Event):
    """A stop that comes where a source would wait for its second poll."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        if self.waits >= 2:
            self.set()
        return True


class _Server:
    """Answers every request with the bytes that lie there for its path, and closes."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5.0)
                head = b""
                while b"\r\n\r\n" not in head and (part := connection.recv(65536)):
                    head += part
                self.asked += 1
                path = head.split(b" ", 2)[1].decode("latin-1") if b" " in head else "/"
                connection.sendall(self.answers.get(path, self.answers["/"]))


def server_answers(folder: Path) -> Attempt:
    """Heads and bodies from a server, to each source that asks one: frames, bad frames, or down."""
    from stpl_runtime.source import BadFrame, SourceSpec, open_source

    # Each client reads all certificates: a tenth of a second for what no input here changes.
    ssl.create_default_context = cache(ssl.create_default_context)
    server = _Server()
    common = {"timeout": "2", "max_mb": "1"}
    more: dict[str, dict[str, str]] = {"": {"back": "2"}, "mjpeg": {}, "hls": {}}
    whole = bodies(folder)
    root = f"http://127.0.0.1:{server.port}"

    def attempt(seed: int) -> str:
        random = Random(seed)
        word, path, kind, body = random.choice(whole)
        if random.randrange(3):
            body = damaged(body, random)
        server.answers = {"/": answer(random, kind, body, root)}
        if word == "hls":
            server.answers["/live.m3u8"] = answer(random, kind, playlist(random), root)
        options = {**common, **more[word]}
        spec = SourceSpec((1, 24, 32), FrameCodec(), cadence_s=300.0, options=options)
        source = open_source(f"{word and word + '+'}{root}{path}", spec)
        stop = _Turns()
        items = _some(source.arrivals(stop), stop)
        reason = source.health.now().reason
        assert reason.isprintable(), ascii(reason[:300])
        assert len(reason) < 2000, reason[:300]
        good = [item for item in items if not isinstance(item, BadFrame)]
        return "used" if good else "refused"

    return attempt


def _some(arrivals: Iterator[Any], stop: threading.Event) -> list[Any]:
    found = []
    for arrival in arrivals:
        found.append(arrival.item)
        if len(found) > 20:
            stop.set()
    return found


def bodies(folder: Path) -> list[tuple[str, str, str, bytes]]:
    """(word before the URL, path, Content-Type, body)."""
    import av
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 255, (24, 32)).astype(np.uint8)
    array, png, jpg = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, values)
    Image.fromarray(values).save(png, "PNG")
    Image.fromarray(values).save(jpg, "JPEG")
    part = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpg.getvalue())
    film = folder / "a.ts"
    with av.open(str(film), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25, width=32, height=24)
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(values, format="gray8")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    mjpeg = "multipart/x-mixed-replace; boundary=b"
    return [
        ("", "/a.npy", "application/octet-stream", array.getvalue()),
        ("", "/a.png", "image/png", png.getvalue()),
        ("", "/a_%Y%m%d%H%M.png", "image/png", png.getvalue()),
        (
            "",
            "/a.pgm.gz",
            "application/gzip",
            gzip.compress(b"P5\n32 24\n255\n" + values.tobytes()),
        ),
        ("mjpeg", "/video", mjpeg, (part + jpg.getvalue() + b"\r\n") * 3 + b"--b--\r\n"),
        ("hls", "/live.m3u8", "application/vnd.apple.mpegurl", film.read_bytes()),
    ]


def playlist(random: Random) -> bytes:
    """Of one piece of film, with lines added, exchanged or spoilt."""
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0", "#EXTINF:0.4,",
             "a.ts", "#EXT-X-ENDLIST"]  # fmt: skip
    odd = [
        '#EXT-X-KEY:METHOD=AES-128,URI="file:///etc/hostname"', "file:///etc/hostname", "b.ts",
        '#EXT-X-MAP:URI="file:///etc/hostname"', "#EXT-X-BYTERANGE:" + "9" * 5000 + "@0",
        "#EXT-X-BYTERANGE:1@99999999999999999999", "#EXTINF:1e999,", "#EXTINF:" + "9" * 5000,
        "#EXT-X-PROGRAM-DATE-TIME:9999-12-31T23:59:59Z", "#EXT-X-STREAM-INF:RESOLUTION=0x0",
        "#EXT-X-PROGRAM-DATE-TIME:0001-01-01T00:00:00+14:00", "\xff" * 50,
        "concat:/etc/hostname|x", "#EXT-X-TARGETDURATION:-1", "http://[",
        "subfile,,start,0,end,9,,:/etc/hostname",
    ]  # fmt: skip
    for _ in range(random.randrange(4)):
        place = random.randrange(1, len(lines))
        lines[place : place + random.randrange(2)] = [random.choice(odd)]
    content = "\n".join(lines).encode("latin-1")
    return damaged(content, random) if random.randrange(4) == 0 else content


def answer(random: Random, kind: str, body: bytes, root: str) -> bytes:
    """A head and a body, each right or not."""
    headers = {
        "Content-Type": [kind] * 6 + ["text/html", "multipart/x-mixed-replace", "a" * 300, "\xff",
                                      "application/x-mpegurl"],
        "ETag": ['"x"', "\xff", "x" * 3000],
        "Last-Modified": ["Thu, 01 Jan 2026 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "x",
                          "Mon, 01 Jan 0001 00:00:00 +1400", "Thu, 01 Jan 2026 00:00:00 +9999"],
        "Date": ["x", "Thu, 01 Jan 1970 00:00:00 GMT"],
        "Retry-After": ["0", "-1", "9" * 400, "1e9", "\xb2", "Fri, 31 Dec 9999 23:59:59 GMT"],
        "Content-Encoding": ["gzip", "deflate", "br", "gzip, gzip", "identity", "\xff"],
        "Set-Cookie": ["a=b", "\xff=\xff", "a" * 9000],
        "Location": ["file:///etc/hostname", "http://169.254.169.254/x", f"{root}/b", "//", "http://[",
                     "ftp://a/", "http://a..b/", "\xff", "/a" * 4000, "http://169.254.0.1:99999/"],
        "Content-Range": ["bytes 0-1/2"],
        "Transfer-Encoding": ["chunked", "x"],
        "WWW-Authenticate": ["Basic realm=x", "Digest nonce=", "\xff"],
    }  # fmt: skip
    status = random.choice([200] * 12 + [204, 206, 301, 302, 304, 307, 401, 403, 404, 429, 500, 503,
                                         100, 999, 0])  # fmt: skip
    lines = [f"HTTP/1.1 {status} {random.choice(['OK', '', 'x' * 200, chr(27) + '[31m'])}"]
    if "gzip" not in kind and random.randrange(8) == 0:
        body = random.choice([gzip.compress, zlib.compress])(body)
        lines.append(f"Content-Encoding: {random.choice(['gzip', 'deflate'])}")
    chosen = random.sample(sorted(headers), random.randrange(4))
    if 300 < status < 400:
        chosen.append("Location")
    names = ["Content-Type", *(name for name in chosen if name != "Content-Type")]
    lines += [f"{name}: {random.choice(headers[name])}" for name in names]
    if random.randrange(2):
        size = random.choice([len(body)] * 6 + [len(body) + 1, 0, -1, 10**9, 10**30])
        lines.append(f"Content-Length: {size}")
    lines.append("Connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    if random.randrange(8) == 0 and b"Location" not in head:
        head = damaged(head, random)
    return head + body
