"""MJPEG and HLS over HTTP, and digest passwords, each against a real server and FFmpeg's film."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("httpx")
av = pytest.importorskip("av")

from stpl_core.bundle import Bundle  # noqa: E402
from stpl_core.codec import FrameCodec  # noqa: E402
from stpl_core.errors import FrameError, UsageError  # noqa: E402
from stpl_core.frames import Frame  # noqa: E402
from stpl_core.safety.budget import most_pixels, set_most_pixels  # noqa: E402
from stpl_runtime.ingest.multipart import (  # noqa: E402
    Multipart,
    NotMultipartError,
    boundary_of,
)
from stpl_runtime.ingest.playlist import read_playlist  # noqa: E402
from stpl_runtime.source import BadFrame, Source, SourceSpec, open_source  # noqa: E402
from tests.runtime.conftest import Cli  # noqa: E402
from tests.runtime.sources.source_reader import SourceReader  # noqa: E402

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def spec(cadence_s: float | None = None, **options: str) -> SourceSpec:
    return SourceSpec((1, 16, 16), FrameCodec(), cadence_s=cadence_s, options=options)


def jpeg(level: int, size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def levels(reader: SourceReader) -> list[int]:
    return [round(float(f.data.mean()) * 255) for f in reader.items if isinstance(f, Frame)]


class Camera(ThreadingHTTPServer):
    """Answers by `answer`; with `password`, only who knows it (digest), as RFC 7616 has it."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.password = ""
        self.algorithm = "MD5"
        self.nonces: dict[str, int] = {}
        self.uses_of_a_nonce = 1_000
        self.seen: list[tuple[str, str, int]] = []
        self.answer: Callable[[Handler], None] = lambda handler: handler.give(404, b"")
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def root(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Camera
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if self.server.password and not self._knows(given):
            nonce = secrets.token_hex(8)
            self.server.nonces[nonce] = 0
            challenge = (
                f'Digest realm="cam, one", nonce="{nonce}", qop="auth", '
                f"algorithm={self.server.algorithm}"
            )
            self.give(401, b"who?", {"WWW-Authenticate": challenge})
            return
        self.server.answer(self)

    def give(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization", ""), status))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def stream(self, kind: str, parts: list[bytes], *, stays: bool) -> None:
        """Parts as they are, then silence or the end."""
        self.server.seen.append((self.path, self.headers.get("Authorization", ""), 200))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # until nobody listens
            for part in parts:
                self.wfile.write(part)
                self.wfile.flush()
        if stays:
            self.server.closing.wait(60)
        self.close_connection = True

    def _knows(self, given: str) -> bool:
        facts = dict(re.findall(r'(\w+)="?([^",]*)"?', given))
        nonce = facts.get("nonce", "")
        if not given.startswith("Digest ") or nonce not in self.server.nonces:
            return False
        self.server.nonces[nonce] += 1
        if self.server.nonces[nonce] > self.server.uses_of_a_nonce:
            return False
        kind = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[self.server.algorithm]

        def hashed(text: str) -> str:
            return kind(text.encode()).hexdigest()

        one = hashed(f"{facts['username']}:cam, one:{self.server.password}")
        two = hashed(f"GET:{self.path}")
        wanted = hashed(f"{one}:{nonce}:{facts['nc']}:{facts['cnonce']}:{facts['qop']}:{two}")
        return facts.get("response") == wanted and facts["uri"] == self.path


@pytest.fixture
def camera() -> Iterator[Camera]:
    running = Camera()
    yield running
    running.close()


def part(content: bytes, *, length: bool = True, boundary: str = "frame") -> bytes:
    size = f"Content-Length: {len(content)}\r\n" if length else ""
    head = f"--{boundary}\r\nContent-Type: image/jpeg\r\n{size}\r\n"
    return head.encode() + content + b"\r\n"


MIXED = "multipart/x-mixed-replace; boundary=frame"

# -- MJPEG ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["http", "mjpeg+http"])
@pytest.mark.parametrize("length", [True, False])
def test_pictures_without_an_end(camera: Camera, word: str, length: bool) -> None:
    parts = [part(jpeg(40 * n), length=length) for n in range(1, 5)]
    ends = b"--frame\r\n"  # without a length, a part is whole when the next one begins
    camera.answer = lambda handler: handler.stream(MIXED, [*parts, ends], stays=True)
    before = datetime.now(timezone.utc)
    with SourceReader(open_source(f"{word}://{camera.root}/video.mjpg", spec())) as reader:
        reader.wait_for(4)
        assert reader.source.health.now().state == "up"
        camera.closing.set()
    found = levels(reader)
    assert all(abs(a - b) <= 2 for a, b in zip(found[:4], [40, 80, 120, 160], strict=True))
    times = [frame.valid_time for frame in reader.frames]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= datetime.now(timezone.utc)  # arrival, whatever the names say
    assert reader.frames[0].data.shape == (1, 16, 16)
    assert reader.frames[0].notes["resized"]


def test_bad_parts_are_bad_frames_and_the_others_arrive(camera: Camera) -> None:
    whole, large = jpeg(90), os.urandom(300_000)
    parts = [
        part(whole),
        part(b"no picture"),
        part(b""),
        part(whole[: len(whole) // 2]),
        part(large),
        part(large, length=False),
        part(jpeg(200)),
    ]
    camera.answer = lambda handler: handler.stream(MIXED, [*parts, b"--frame--\r\n"], stays=True)
    with SourceReader(open_source(f"http://{camera.root}/a", spec(max_mb="0.1"))) as reader:
        items = reader.wait_for(7)
        camera.closing.set()
    assert [isinstance(item, BadFrame) for item in items] == [False, *[True] * 5, False]
    reasons = [item.reason for item in items if isinstance(item, BadFrame)]
    assert "an empty part" in reasons[1]
    assert "max_mb=" in reasons[3]
    assert "max_mb=" in reasons[4]


def test_every_part_is_counted_once(camera: Camera, cli: Cli, bundle: Bundle) -> None:
    good, bad = [part(jpeg(40 + 20 * n)) for n in range(5)], [part(b"x"), part(b""), part(b"y")]
    parts = [*good[:2], *bad, *good[2:]]
    camera.answer = lambda handler: handler.stream(MIXED, parts, stays=True)
    word = f"http://{camera.root}/a"
    code, out, err = cli("stream", bundle.path, word, "--idle-timeout", 3, "--json",
                         "--policy", "queue", "--source-option", "timeout=30")  # fmt: skip
    assert code == 0, err
    counts = json.loads(out)["counts"]
    assert counts["received"] == 8
    assert counts["bad"] == 3
    fates = ("used", "late", "duplicate", "dropped", "bad", "pending")
    assert sum(counts[fate] for fate in fates) == 8
    assert f"{word} is MJPEG: read as mjpeg+http:" in err


def test_a_picture_beyond_the_budget_is_not_decoded(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [part(jpeg(90, 512)), part(jpeg(90))]
    camera.answer = lambda handler: handler.stream(MIXED, parts, stays=True)
    monkeypatch.setattr(Image.Image, "load", _unless_large(Image.Image.load))
    before = most_pixels()
    set_most_pixels(100_000)
    try:
        with SourceReader(open_source(f"http://{camera.root}/a", spec())) as reader:
            bad, good = reader.wait_for(2)
            camera.closing.set()
    finally:
        set_most_pixels(before)
    assert isinstance(bad, BadFrame)
    assert "--max-pixels" in bad.reason
    assert isinstance(good, Frame)


def _unless_large(load: Callable[[Image.Image], object]) -> Callable[[Image.Image], object]:
    def checked(image: Image.Image) -> object:
        assert image.width < 512, "it was decoded"
        return load(image)

    return checked


def test_a_camera_that_goes_away_is_found_again(camera: Camera) -> None:
    camera.answer = lambda handler: handler.stream(MIXED, [part(jpeg(50))], stays=False)
    with SourceReader(open_source(f"http://{camera.root}/a", spec())) as reader:
        reader.wait_for(3)  # three connections
        assert reader.source.health.now().reconnects >= 2
        port = camera.server_address[1]
        camera.close()
        reader.wait_for_state("down")
        count = len(reader.items)
        again = Camera(port)
        again.answer = lambda handler: handler.stream(MIXED, [part(jpeg(99))], stays=True)
        reader.wait_for(count + 1)
        reader.wait_for_state("up")
        again.close()


def test_a_silent_camera_is_down(camera: Camera) -> None:
    camera.answer = lambda handler: handler.stream(MIXED, [b"--frame\r\n"], stays=True)
    source = open_source(f"mjpeg+http://{camera.root}/a", spec(timeout="0.2"))
    with SourceReader(source) as reader:
        assert reader.wait_for_state("down").reason
    assert not reader.items


def test_with_a_cadence_slots_are_taken(camera: Camera) -> None:
    """Far more pictures than slots: no slot twice, each frame near its own."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", MIXED)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not handler.server.closing.wait(0.01):
                handler.wfile.write(part(jpeg(70)))

    camera.answer = answer
    with SourceReader(open_source(f"http://{camera.root}/a", spec(0.2))) as reader:
        reader.wait_for(4)
        camera.closing.set()
    stamps = [frame.valid_time.timestamp() / 0.2 for frame in reader.frames]
    slots = [round(stamp) for stamp in stamps]
    assert slots == list(dict.fromkeys(slots))
    assert all(abs(stamp - slot) <= 0.25 for stamp, slot in zip(stamps, slots, strict=True))


@given(
    contents=st.lists(st.binary(max_size=200).filter(lambda c: b"--B" not in c), max_size=5),
    cuts=st.lists(st.integers(1, 60), max_size=40),
    lengths=st.booleans(),
    newline=st.sampled_from([b"\r\n", b"\n"]),
)
@settings(max_examples=60, deadline=None)
def test_parts_come_out_as_they_went_in(
    contents: list[bytes], cuts: list[int], lengths: bool, newline: bytes
) -> None:
    body = b"preamble" + newline
    for content in contents:
        size = b"Content-length: %d" % len(content) + newline if lengths else b""
        body += b"--B" + newline + b"X: y" + newline + size + newline + content + newline
    body += b"--B--"
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(body[at : at + cut])
        at += cut
    chunks.append(body[at:])
    found = list(Multipart([chunk for chunk in chunks if chunk], b"--B", 1000).parts())
    wanted = (
        contents
        if lengths
        else [c.removesuffix(b"\r") if newline == b"\n" else c for c in contents]
    )
    assert found == wanted


def test_boundaries_as_cameras_write_them() -> None:
    for text in ('boundary="--a b"', "boundary=--a b", 'x=1; boundary="a b"'):
        assert boundary_of(f"multipart/x-mixed-replace; {text}") == b"--a b"
    with pytest.raises(NotMultipartError):
        boundary_of("multipart/x-mixed-replace")
    with pytest.raises(NotMultipartError):
        list(Multipart([b"x" * 70_000], b"--B", 10).parts())


# -- passwords -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_digest_password_is_never_sent_in_clear(camera: Camera, algorithm: str) -> None:
    camera.password, camera.algorithm, camera.uses_of_a_nonce = "se:cret@/", algorithm, 2
    numbers = iter(range(1, 1000))
    camera.answer = lambda handler: handler.give(200, jpeg(next(numbers) % 250, 16))
    word = f"http://olga:se%3Acret%40%2F@{camera.root}/a.jpg?x=1"
    with SourceReader(open_source(word, spec(interval="0.01"))) as reader:
        reader.wait_for(5)  # the nonce runs out meanwhile
        assert reader.source.health.now().reconnects == 0
    assert all(not given or given.startswith("Digest ") for _, given, _ in camera.seen)
    assert camera.seen[0][1:] == ("", 401)
    for secret in ("olga", "cret"):
        assert secret not in f"{reader.source.name} {reader.source.health.now().reason}"


def test_a_wrong_digest_password_is_down_and_said(camera: Camera) -> None:
    camera.password = "right"
    with SourceReader(open_source(f"http://a:wrong@{camera.root}/a.jpg", spec())) as reader:
        assert reader.wait_for_state("down").reason == "HTTP 401 Unauthorized"


def test_mjpeg_and_hls_with_digest(
    camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.password = "geheim"
    monkeypatch.setenv("CAMERA_PASSWORD", "geheim")
    camera.answer = lambda handler: handler.stream(MIXED, [part(jpeg(50))], stays=True)
    options = {"password_env": "CAMERA_PASSWORD"}
    with SourceReader(open_source(f"http://olga@{camera.root}/a", spec(**options))) as reader:
        reader.wait_for(1)
        camera.closing.set()
    film(tmp_path, 10)
    serve_folder(camera, tmp_path)
    word = f"http://olga@{camera.root}/live.m3u8"
    with SourceReader(open_source(word, spec(speed="0", **options))) as reader:
        reader.wait_for_end()
    assert len(reader.frames) == 10
    assert {given.split()[0] for _, given, status in camera.seen if status == 200} == {"Digest"}


def test_another_host_gets_no_credentials(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a redirect, which asks for a password of its own; 127.0.0.1 leads to localhost."""
    other = Camera()
    other.password = "geheim"
    where = f"http://localhost:{other.server_address[1]}/b.jpg"
    camera.answer = lambda handler: handler.give(302, b"", {"Location": where})
    word = f"http://olga:geheim@{camera.root}/a.jpg"
    with SourceReader(open_source(word, spec(interval="0.01"))) as reader:
        reader.wait_for_state("down")
    assert other.seen
    assert not any(given for _, given, _ in other.seen)
    other.close()


# -- HLS -----------------------------------------------------------------------------------------


def film(folder: Path, count: int, fps: int = 10, **options: str) -> None:
    """A playlist with segments of a second, made by FFmpeg."""
    given = {"hls_time": "1", "hls_list_size": "0", **options}
    with av.open(str(folder / "live.m3u8"), "w", format="hls", options=given) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": str(fps), "bf": "0", "crf": "1"}
        for n in range(count):
            frame = av.VideoFrame.from_ndarray(
                np.full((64, 64, 3), 20 + 5 * (n % 40), np.uint8), format="rgb24"
            )
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def serve_folder(camera: Camera, folder: Path) -> None:
    def answer(handler: Handler) -> None:
        path = folder / handler.path.strip("/").partition("?")[0]
        handler.give(200, path.read_bytes()) if path.is_file() else handler.give(404, b"")

    camera.answer = answer


def offsets(source_frames: list[Frame], start: datetime) -> list[float]:
    return [round((frame.valid_time - start).total_seconds(), 2) for frame in source_frames]


@pytest.mark.parametrize("kind", ["mpegts", "fmp4"])
def test_a_film_that_has_an_end(camera: Camera, tmp_path: Path, kind: str) -> None:
    film(tmp_path, 30, hls_segment_type=kind, hls_flags="program_date_time")
    text = (tmp_path / "live.m3u8").read_text()
    stated = re.search(r"DATE-TIME:(\S+)", text)
    assert stated is not None
    start = read_playlist(text.encode(), "http://h/live.m3u8", NOW).segments[0].start
    serve_folder(camera, tmp_path)
    with SourceReader(open_source(f"http://{camera.root}/live.m3u8", spec(speed="0"))) as reader:
        reader.wait_for_end()
    assert reader.source.health.now().state == "ended"
    assert offsets(reader.frames, start) == [n / 10 for n in range(30)]
    wanted = [20 + 5 * n for n in range(30)]
    assert all(abs(a - b) <= 4 for a, b in zip(levels(reader), wanted, strict=True))


class Live:
    """A playlist that slides over the segments of a film, as a camera's does."""

    def __init__(self, folder: Path, count: int) -> None:
        film(folder, count)
        self.folder = folder
        self.names = sorted(path.name for path in folder.glob("*.ts"))
        self.newest, self.size = 3, 3
        self.changed = threading.Condition()

    def playlist(self) -> bytes:
        first = self.newest - self.size
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{first}")
        for name in self.names[first : self.newest]:
            lines += ["#EXTINF:1.0,", name]
        return "\n".join(lines).encode()

    def serve(self, camera: Camera, path: str = "/live.m3u8") -> None:
        def answer(handler: Handler) -> None:
            name = handler.path.strip("/")
            if handler.path == path:
                handler.give(200, self.playlist(), {"Content-Type": "application/x-mpegURL"})
            elif name in self.names[self.newest - self.size : self.newest]:
                handler.give(200, (self.folder / name).read_bytes())
                if name == self.names[self.newest - 1] and self.newest < len(self.names):
                    self.newest += 1  # the camera goes on once its newest one was fetched
            else:
                handler.give(404, b"")

        camera.answer = answer


@pytest.mark.parametrize("path", ["/live.m3u8", "/watch?id=1"])
def test_a_playlist_that_slides(camera: Camera, tmp_path: Path, path: str) -> None:
    live = Live(tmp_path, 70)
    live.serve(camera, path)
    before = datetime.now(timezone.utc)
    with SourceReader(open_source(f"http://{camera.root}{path}", spec())) as reader:
        reader.wait_for(55)
        assert reader.source.health.now().state == "up"
    frames = reader.frames[:55]
    first = frames[0].valid_time
    # The newest piece counts as having ended when the playlist came.
    assert abs((first - before).total_seconds() + 3.0) < 2.0
    assert offsets(frames, first) == [n / 10 for n in range(55)]
    asked = [path for path, _, _ in camera.seen if path.endswith(".ts")]
    assert asked == sorted(set(asked))  # each piece once


def test_a_server_that_goes_away_under_a_film(camera: Camera, tmp_path: Path) -> None:
    live = Live(tmp_path, 40)
    live.serve(camera)
    port = camera.server_address[1]
    word = f"hls+http://{camera.root}/live.m3u8"
    with SourceReader(open_source(word, spec(timeout="1"))) as reader:
        reader.wait_for(25)
        camera.close()
        reader.wait_for_state("down")
        count = len(reader.items)
        again = Camera(port)
        live.serve(again)
        reader.wait_for(count + 5)
        reader.wait_for_state("up")
        again.close()


def test_the_form_that_fills_the_grid_is_taken(camera: Camera, tmp_path: Path) -> None:
    film(tmp_path, 10)
    master = "#EXTM3U\n" + "".join(
        f"#EXT-X-STREAM-INF:BANDWIDTH={size},RESOLUTION={size}x{size}\n{name}\n"
        for size, name in ((8, "small.m3u8"), (64, "live.m3u8"), (1080, "large.m3u8"))
    )
    (tmp_path / "master.m3u8").write_text(master)
    serve_folder(camera, tmp_path)
    word = f"http://{camera.root}/master.m3u8"
    with SourceReader(open_source(word, spec(speed="0"))) as reader:
        reader.wait_for_end()
    assert len(reader.frames) == 10
    assert not any("small" in path or "large" in path for path, _, _ in camera.seen)


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("file:///etc/hostname", "the playlist names file:///etc/hostname"),
        ("http://169.254.169.254/latest/meta-data", "own network"),
        ("crypto+http://127.0.0.1/x.ts", "the playlist names crypto"),
        ("gopher://h/x.ts", "Invalid data"),  # FFmpeg takes no such name
        ("concat:/etc/hostname", "Invalid data"),
    ],
)
def test_a_playlist_opens_nothing_else(camera: Camera, named: str, reason: str) -> None:
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{named}\n#EXT-X-ENDLIST\n"
    camera.answer = lambda handler: handler.give(200, text.encode())
    source = open_source(f"http://{camera.root}/live.m3u8", spec(timeout="1"))
    with SourceReader(source) as reader:
        assert reason in reader.wait_for_state("down").reason
    assert not reader.items


def test_pieces_on_another_host_are_asked_without_credentials(
    camera: Camera, tmp_path: Path
) -> None:
    other = Camera()
    film(tmp_path, 10)
    serve_folder(other, tmp_path)
    text = (tmp_path / "live.m3u8").read_text()
    text = text.replace("live0.ts", f"http://localhost:{other.server_address[1]}/live0.ts")
    camera.password = "geheim"
    camera.answer = lambda handler: handler.give(200, text.encode())
    word = f"http://olga:geheim@{camera.root}/live.m3u8"
    with SourceReader(open_source(word, spec(speed="0"))) as reader:
        reader.wait_for_end()
    assert len(reader.frames) == 10
    assert [given for _, given, _ in other.seen] == [""]
    other.close()


def test_an_encrypted_film_is_refused_in_one_line(camera: Camera) -> None:
    text = '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:1,\na.ts\n'
    camera.answer = lambda handler: handler.give(200, text.encode())
    with SourceReader(open_source(f"http://{camera.root}/live.m3u8", spec())) as reader:
        assert "is encrypted" in reader.wait_for_state("down").reason


def test_times_in_a_playlist() -> None:
    """By the dates in it, before or after EXTINF; without, the newest piece ends now."""
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:4"]
    for n, seconds in enumerate((4, 3, 2)):
        lines += [f"#EXTINF:{seconds}.0,", f"a{n}.ts"]
    found = read_playlist("\n".join(lines).encode(), "http://h/x/live.m3u8?y", NOW)
    assert [segment.url for segment in found.segments] == [f"http://h/x/a{n}.ts" for n in range(3)]
    starts = [(segment.start - NOW).total_seconds() for segment in found.segments]
    assert starts == [-9.0, -5.0, -2.0]
    assert (found.dated, found.ended) == (False, False)
    lines.insert(5, "#EXT-X-PROGRAM-DATE-TIME:2026-03-01T10:00:00.500+01:00")
    found = read_playlist("\n".join([*lines, "#EXT-X-ENDLIST"]).encode(), "http://h/l", NOW)
    stated = datetime(2026, 3, 1, 9, 0, 0, 500_000, timezone.utc)
    assert [segment.start for segment in found.segments] == [
        stated - timedelta(seconds=4),
        stated,
        stated + timedelta(seconds=3),
    ]
    assert (found.dated, found.ended) == (True, True)
    ranged = (
        "#EXTM3U\n#EXT-X-BYTERANGE:100@0\n#EXTINF:1,\nx.ts\n#EXT-X-BYTERANGE:50\n#EXTINF:1,\nx.ts\n"
    )
    pieces = read_playlist(ranged.encode(), "http://h/l", NOW).segments
    assert [piece.offset for piece in pieces] == [0, 100]
    with pytest.raises(FrameError, match="no playlist"):
        read_playlist(b"<html>", "http://h/l", NOW)


def test_a_model_of_rain_refuses_film() -> None:
    rain = FrameCodec(units="mm h-1", low=0.0, high=50.0)
    with pytest.raises(UsageError, match="gives grey or colour pictures"):
        open_source("hls+http://h/l.m3u8", SourceSpec((1, 8, 8), rain))


def test_a_web_page_is_told(camera: Camera) -> None:
    camera.answer = lambda handler: handler.give(200, b"<!DOCTYPE html><title>x</title>")
    with SourceReader(open_source(f"http://{camera.root}/", spec(interval="0.01"))) as reader:
        (item,) = reader.wait_for(1)
    assert isinstance(item, BadFrame)
    assert "is a web page" in item.reason


def test_the_modules_are_sources() -> None:
    for word in ("mjpeg+https", "hls+https"):
        source: Source = open_source(f"{word}://olga:geheim@h/x", spec())
        assert source.name == "https://h/x"
        with pytest.raises(UsageError, match="no option intervall"):
            open_source(f"{word}://h/x", spec(intervall="1"))
