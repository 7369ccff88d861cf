"""Video files, by PyAV: grey by default, `--variable rgb` for colour; one sequence each.

PyAV's decoder may end without a word where a file is cut off, so the packets that came, or the time
that the last one reaches, are held against what the container promises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, ReadOptions, state_of
from stpl_core.readers.completeness import refuse_cut_video
from stpl_core.readers.film import FilmClock, fraction, upright
from stpl_core.readers.libraries import reads_with
from stpl_core.readers.names import is_utf8
from stpl_core.readers.units import grey_level
from stpl_core.safety.budget import check_pixels, most_pixels

SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg"),
    *(".ts", ".m2ts", ".mts", ".3gp"),
)
ABOUT = "video files: grey, or --variable rgb"
_BLOCK, _BLOCK_PIXELS = 32, 2**24
"""Most frames in a piece, and most pixels."""
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegts,mpegvideo,mpeg1video,mpeg2video,m4v"
)
"""FFmpeg's names. Playlists (HLS, DASH, concat) are not among them: they name other files and
addresses, which FFmpeg would follow, whatever the name of the file is."""
_FORMATS = {"grey": "gray", "rgb": "rgb24"}
_CHANNELS = {"grey": ("",), "rgb": ("red", "green", "blue")}


def open_video(path: Path) -> Any:
    """Open a film that is all in its own file.

    Raises:
        av.FFmpegError: it is of another kind, or damaged.
        MissingExtraError: PyAV is not installed.
    """
    with reads_with("video"):
        import av
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    if not is_utf8(path):
        return av.open(path.open("rb"), options=options)  # FFmpeg's names are text
    return av.open(f"file:{path.absolute()}", options=options)


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames in blocks."""
    kind = options.variable or "grey"
    if kind not in _FORMATS:
        raise FrameError(
            f"--variable {kind} of a video", expected="grey or rgb", fix="--variable grey"
        )
    refuse_cut_video(path)
    with open_video(path) as container:
        if not container.streams.video:
            raise FrameError(f"{path} holds no picture", expected="a video", fix="check the file")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        check_pixels(path, stream.width, stream.height)
        stream.codec_context.options = {
            "max_pixels": str(most_pixels())
        }  # it may change on the way
        clock, extent = FilmClock(stream), _Extent(container, stream)
        cadence_s = clock.step_s if stream.average_rate else None
        block: list[NDArray[Any]] = []
        elapsed: list[float] = []
        count = 0
        for packet in container.demux(stream):
            extent.packet(packet)
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ValueError(f"frame {count} is damaged")
                elapsed.append(clock.seconds(frame))
                block.append(upright(frame, _FORMATS[kind]))
                count += 1
                if len(block) >= max(1, min(_BLOCK, _BLOCK_PIXELS // (frame.width * frame.height))):
                    yield _piece(block, elapsed, count == len(block), kind, cadence_s, path)
                    block, elapsed = [], []
        if block:
            yield _piece(block, elapsed, count == len(block), kind, cadence_s, path)
        extent.check(count, clock)


def _piece(
    block: list[NDArray[Any]],
    elapsed: list[float],
    first: bool,
    kind: str,
    cadence_s: float | None,
    path: Path,
) -> Piece:
    stored = np.stack(block)
    pictures = stored[:, None] if kind == "grey" else np.moveaxis(stored, -1, 1)  # (n, C, H, W)
    frames = fraction(pictures)
    return Piece(
        frames=frames,
        state=state_of(frames),
        grid=pixel_grid(*frames.shape[2:]),
        quantity=grey_level(_CHANNELS[kind]),
        source=str(path),
        elapsed_s=np.array(elapsed),
        cadence_s=cadence_s,
        begins=np.arange(len(block)) == (0 if first else -1),
    )


class _Extent:
    """How far a film goes: promised by its container, and found."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._promised, self._packets, self._end_s = int(stream.frames), 0, 0.0
        self._length_s = _length_s(container, stream)
        self._start_s = float((stream.start_time or 0) * stream.time_base)

    def packet(self, packet: Any) -> None:
        """Take one into account; an AVI has empty ones where the camera gave no picture."""
        if packet.pts is None:
            return
        self._packets += 1
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        self._end_s = max(self._end_s, end - self._start_s)

    def check(self, count: int, clock: FilmClock) -> None:
        """Raise EOFError where it ends before its end.

        A film of no fixed rate has as many frames as it has; how long it is says what is missing.
        """
        short_s = self._length_s - self._end_s - clock.longest_s - clock.step_s
        if count == 0 or (self._packets < self._promised and short_s > 0):
            raise EOFError(f"it ends after {count} of {max(self._promised, 1)} frames")
        if self._promised == 0 and short_s > 0:
            raise EOFError(f"it ends after {self._end_s:.6g} of {self._length_s:.6g} s")


def _length_s(container: Any, stream: Any) -> float:
    """Of the pictures, without sound that goes on; 0 where nothing says it."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    clock = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))  # Matroska
    if clock is not None:
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
    alone = len(container.streams) == 1
    return float(container.duration / 1e6) if container.duration and alone else 0.0
