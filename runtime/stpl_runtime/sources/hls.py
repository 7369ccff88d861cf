"""A camera or channel that is sent as HLS: a playlist over HTTP, and pieces of film that it names.

    hls+https://HOST/live.m3u8            also `https://`, where the path ends so or the server
                                          answers with a playlist

The times are those of the playlist (EXT-X-PROGRAM-DATE-TIME); where it has none, its newest piece
counts as having ended when the playlist was fetched. From there on the film's own clock counts.

FFmpeg reads playlist and film; whatever it asks for is fetched here, under the same rules as all
that comes over HTTP. Of several forms of a film, the smallest that fills the model's grid is taken.
"""

from __future__ import annotations

import io
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from stpl_core.errors import FrameError
from stpl_core.readers.film import FilmClock
from stpl_runtime.ingest.pictures import Pictures, decoded, form_of, video_stream
from stpl_runtime.ingest.playlist import MOST_BYTES, Playlist, read_playlist
from stpl_runtime.ingest.sampling import Pacer, Sampler
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import reconnecting, without_credentials
from stpl_runtime.links.web import decoded_body
from stpl_runtime.links.web_access import ACCESS_OPTIONS, WebAccess, openers
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.timing import EPOCH

if TYPE_CHECKING:
    import httpx

OPTIONS = (*ACCESS_OPTIONS, "max_mb", "speed", "resize")
MAX_MB = 64.0
_TIMEOUT_S = 5.0
_TARGETS = 3
"""So many of the longest pieces may pass without a picture, beside the timeout."""
_WHOLE_S = 60.0
"""For one file: the film waits for it."""
_FFMPEG = {
    # What FFmpeg would fetch by itself it does not: `io_open` is asked for everything.
    "protocol_whitelist": "http,https",
    "http_persistent": "0",
    "http_multiple": "0",
    "allowed_extensions": "ALL",
    "allowed_segment_extensions": "ALL",
    "extension_picky": "0",
    "analyzeduration": "1000000",
}


class _NoFilmError(Exception):
    """It cannot be had now."""


class _OverError(Exception):
    """The playlist has an end, and it was reached."""


class HlsSource:
    """Keeps `stpl_runtime.source.Source`; the newest pictures win."""

    waits = False

    def __init__(self, access: WebAccess, spec: SourceSpec, health: Health | None = None) -> None:
        """Prepare; nothing is connected yet.

        Args:
            access: the URL of the playlist, and how its server is asked.
            spec: the frames that are expected.
            health: of the source that found out that this is one; None: its own.

        Raises:
            MissingExtraError: PyAV is not installed.
            UsageError: an option that does not hold, or a model of other frames.
        """
        self.name, self.health = access.name, health or Health()
        self.kind = f"hls+{access.url.partition(':')[0]}"
        options = Options(self.name, spec.options, spec.options)  # checked before
        self._access, self._size = access, spec.shape[1:]
        self._pictures = Pictures(spec, options.resize("area"), self.name)
        self._most_bytes = int(options.number("max_mb", MAX_MB, least=0.001, most=2000.0) * 1e6)
        self._speed = options.number("speed", 1.0)
        self.replays = False
        self._sampler: Sampler[Any] = Sampler(spec.cadence_s, EPOCH)

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield frames until `stop` or the end of the film, connecting again; see the protocol."""
        import av
        import httpx

        failures = (
            *(av.error.FFmpegError, httpx.HTTPError, FrameError, _NoFilmError),
            *(OSError, EOFError, ValueError, zlib.error),  # a body that cannot be unpacked
        )
        with self._access.client() as own, self._access.stranger() as other:
            clients = own, other

            def connect() -> Iterator[Arrival]:
                return self._connect(_Web(self._access, clients, self._most_bytes, stop), stop)

            try:
                yield from reconnecting(connect, stop, self.health, failures)
            except _OverError:
                self.health.ended()

    def _connect(self, web: _Web, stop: threading.Event) -> Iterator[Arrival]:
        """What one connection brings."""
        import av

        url, playlist = self._media(web)
        self.replays = playlist.ended
        begun = False
        try:
            for arrival in self._film(url, playlist, web, stop):
                begun = True
                yield arrival
        except av.error.FFmpegError as error:
            raise web.failure or error from error  # what FFmpeg makes of it says less
        if stop.is_set():
            return
        if web.ended and begun:
            for when, taken in self._sampler.rest():
                yield Arrival.now(self._pictures.frame(taken, when))
            raise _OverError
        raise web.failure or _NoFilmError("the film ended")

    def _film(
        self, url: str, playlist: Playlist, web: _Web, stop: threading.Event
    ) -> Iterator[Arrival]:
        """The frames of a playlist of pieces of film."""
        import av

        patience_s = self._access.timeout_s + _TARGETS * playlist.target_s
        with av.open(
            url, format="hls", options=_FFMPEG, io_open=web.open, timeout=(patience_s, patience_s)
        ) as container:
            stream = video_stream(container, self.name, "SLICE")
            self._pictures.form = form_of(container, stream)
            clock, damaged = FilmClock(stream), list[str]()
            pacer = Pacer(self._speed if playlist.ended else 0.0)
            begun = False
            for pictures in decoded(container, stream, damaged):
                if stop.is_set():
                    return
                if not begun:
                    damaged.clear()  # the rest of a picture that began before
                while damaged:
                    yield Arrival.now(BadFrame(self.name, damaged.pop(0)))
                for picture in pictures:
                    begun = True
                    self.health.up()
                    at = web.start + timedelta(seconds=clock.seconds(picture))
                    pacer.wait(at, stop)
                    for when, taken in self._sampler.offer(at, picture):
                        yield Arrival.now(self._pictures.frame(taken, when))

    def _media(self, web: _Web) -> tuple[str, Playlist]:
        """The playlist of pieces of film, where the user's names several of them."""
        url, playlist = web.playlist(self._access.url)
        if playlist.variants:
            url, playlist = web.playlist(playlist.variant_for(*self._size).url)
        if playlist.encrypted:
            raise FrameError(
                f"{self.name} is encrypted",
                expected="a playlist without EXT-X-KEY",
                fix=f"ffmpeg -i {self.name} -c copy -f nut - | stpl-deploy stream BUNDLE -",
            )
        if not playlist.segments:
            raise _NoFilmError("the playlist names no film yet")
        return url, playlist


class _Web:
    """Fetches what one connection of FFmpeg asks for."""

    def __init__(
        self,
        access: WebAccess,
        clients: tuple[httpx.Client, httpx.Client],
        most_bytes: int,
        stop: threading.Event,
    ) -> None:
        self._access, self._clients, self._most = access, clients, most_bytes
        self._stop = stop
        self._playlists: dict[str, Playlist] = {}
        self._start: datetime | None = None
        self.ended = False
        """Whether the newest playlist has an end."""
        self.failure: Exception | None = None
        """Why the newest request failed; None where it did not."""

    @property
    def start(self) -> datetime:
        """When the first piece of film begins that was asked for."""
        return self._start or datetime.now(timezone.utc)

    def open(self, url: str, flags: int, options: dict[str, str]) -> io.BytesIO:
        """What PyAV calls for each file that FFmpeg wants."""
        if self._stop.is_set():
            raise OSError("stopped")
        begin = int(options.get("offset", 0))
        self._note_start(url, begin)
        end = int(options.get("end_offset", 0))
        try:
            content, where = self._fetched(url, self._most, (begin, end))
        except Exception as error:
            self.failure = error
            raise OSError(str(error)) from error
        self.failure = None
        if content.startswith(b"#EXTM3U"):
            self._read(content, where)
        return io.BytesIO(content)

    def playlist(self, url: str) -> tuple[str, Playlist]:
        """A playlist, and where it lies in the end."""
        content, where = self._fetched(url, MOST_BYTES)
        return where, self._read(content, where)

    def _read(self, content: bytes, where: str) -> Playlist:
        playlist = read_playlist(content, where, datetime.now(timezone.utc))
        self._playlists[where] = playlist
        self.ended = playlist.ended
        return playlist

    def _note_start(self, url: str, offset: int) -> None:
        if self._start is not None:
            return
        for playlist in self._playlists.values():
            for segment in playlist.segments:
                if (segment.url, segment.offset) == (url, offset):
                    self._start = segment.start
                    return

    def _fetched(self, url: str, most: int, part: tuple[int, int] = (0, 0)) -> tuple[bytes, str]:
        """The body behind a URL, and the URL where it was found in the end."""
        if not url.startswith(("http://", "https://")):
            raise _NoFilmError(f"the playlist names {without_credentials(url)[:80]}")
        client = self._clients[0 if self._access.is_own(url) else 1]
        begin, end = part
        headers = {"Range": f"bytes={begin}-{end - 1}"} if end > begin else {}
        with client.stream("GET", url, headers=headers) as response:
            if not response.is_success:
                raise _NoFilmError(f"HTTP {response.status_code} {response.reason_phrase}".strip())
            body, until = bytearray(), time.monotonic() + _WHOLE_S
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > most:
                    raise _NoFilmError(
                        f"{without_credentials(url)} has more than {most / 1e6:g} MB; "
                        "try: --source-option max_mb=MEGABYTES"
                    )
                if self._stop.is_set() or time.monotonic() > until:
                    raise _NoFilmError(f"a file took more than {_WHOLE_S:g} s")
            encoding = response.headers.get("Content-Encoding", "").strip().lower()
            content = decoded_body(bytes(body), encoding, most)
            if headers and response.status_code != 206:
                content = content[begin:end]
            return content, str(response.url)


open_http, open_https = openers("hls", HlsSource, OPTIONS, _TIMEOUT_S)
