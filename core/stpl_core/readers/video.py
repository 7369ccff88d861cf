"""Video files, by PyAV: grey by default, `--variable rgb` for colour; one sequence each.

PyAV's decoder may end without a word where a file is cut off, so lengths and the count of frames
are held against those in the container.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.budget import check_pixels, most_pixels
from stpl_core.errors import FrameError
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, ReadOptions, state_of
from stpl_core.readers.completeness import refuse_cut_video
from stpl_core.readers.libraries import reads_with
from stpl_core.readers.units import grey_level

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg")
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
        cadence_s = float(1 / stream.average_rate) if stream.average_rate else None
        block: list[NDArray[np.uint8]] = []
        elapsed: list[float] = []
        count = 0
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise ValueError(f"frame {count} is damaged")
            seconds = float(frame.time) if frame.time is not None else count * (cadence_s or 1.0)
            elapsed.append(seconds)
            block.append(np.asarray(frame.to_ndarray(format=_FORMATS[kind]), np.uint8))
            count += 1
            if len(block) >= max(1, min(_BLOCK, _BLOCK_PIXELS // (frame.width * frame.height))):
                yield _piece(block, elapsed, count == len(block), kind, cadence_s, path)
                block, elapsed = [], []
        if block:
            yield _piece(block, elapsed, count == len(block), kind, cadence_s, path)
        length_s = container.duration / 1e6 if container.duration else 0.0
        _check_whole(count, int(stream.frames), length_s, cadence_s)


def _piece(
    block: list[NDArray[np.uint8]],
    elapsed: list[float],
    first: bool,
    kind: str,
    cadence_s: float | None,
    path: Path,
) -> Piece:
    stored = np.stack(block)
    pictures = stored[:, None] if kind == "grey" else np.moveaxis(stored, -1, 1)  # (n, C, H, W)
    frames = pictures.astype(np.float32) / np.float32(255)
    since = np.array(elapsed)
    return Piece(
        frames=frames,
        state=state_of(frames),
        grid=pixel_grid(*frames.shape[2:]),
        quantity=grey_level(_CHANNELS[kind]),
        source=str(path),
        elapsed_s=since - since[0],
        cadence_s=cadence_s,
        begins=np.arange(len(block)) == (0 if first else -1),
    )


def _check_whole(count: int, promised: int, length_s: float, cadence_s: float | None) -> None:
    if promised == 0 and cadence_s:  # Matroska says how long it is, not how many frames it has
        promised = int(length_s / cadence_s - 1.5)
    if count == 0 or count < promised:
        raise EOFError(f"it ends after {count} of {max(promised, 1)} frames")
