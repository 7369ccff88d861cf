"""Films as cameras leave them, written with PyAV: any times, rotation, sound."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 32, 48
_MILLI = Fraction(1, 1000)


def scene(k: int) -> NDArray[np.uint8]:
    """Black left, white right, and a grey bar at the top that tells the frames apart."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, WIDTH // 2 :] = 255
    picture[:8, : 1 + k % WIDTH] = 128
    return picture


def film(
    path: Path,
    times: list[float],
    codec: str = "libx264",
    sound_s: float = 0.0,
    base: Fraction = _MILLI,
    rate: int = 10,
) -> Path:
    """A film with a picture at each of `times`; `sound_s` of silence beside it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = base
        sound = container.add_stream("pcm_s16le", rate=8000) if sound_s else None
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(scene(k), format="rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for k in range(int(sound_s)):
                quiet = av.AudioFrame.from_ndarray(
                    np.zeros((1, 8000), np.int16), format="s16", layout="mono"
                )
                quiet.sample_rate, quiet.pts, quiet.time_base = 8000, 8000 * k, Fraction(1, 8000)
                container.mux(sound.encode(quiet))
            container.mux(sound.encode(None))
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Give an MP4 the display matrix of x' = a x + c y, y' = b x + d y."""
    one = 0x10000
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 0x40000000)
    made = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 0x40000000)
    content = path.read_bytes()
    place = content.index(plain, content.index(b"tkhd"))
    path.write_bytes(content[:place] + made + content[place + len(made) :])
    return path
