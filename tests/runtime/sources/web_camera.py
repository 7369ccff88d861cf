"""A web server as a camera has one, and what it sends: MJPEG's parts, HLS's playlists, pieces."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpl_core.codec import FrameCodec
from stpl_core.frames import Frame
from stpl_runtime.source import SourceSpec
from tests.runtime.sources.source_reader import SourceReader

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def spec(cadence_s: float | None = None, **options: str) -> SourceSpec:
    return SourceSpec((1, 16, 16), FrameCodec(), cadence_s=cadence_s, options=options)


def jpeg(level: int, size: int = 64) -> bytes:
    return jpeg_of(np.full((size, size, 3), level, np.uint8))


def jpeg_of(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
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

    def stream(self, kind: str, parts: Iterable[bytes], *, stays: bool) -> None:
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


def part(content: bytes, *, length: bool = True, boundary: str = "frame") -> bytes:
    size = f"Content-Length: {len(content)}\r\n" if length else ""
    head = f"--{boundary}\r\nContent-Type: image/jpeg\r\n{size}\r\n"
    return head.encode() + content + b"\r\n"


MIXED = "multipart/x-mixed-replace; boundary=frame"


def film(folder: Path, count: int, fps: int = 10, **options: str) -> None:
    """A playlist with segments of a second, made by FFmpeg."""
    import av

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
