"""The demo's film: past | truth | nowcast | error, one row per nowcast, as an animated GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.files import atomic_file

if TYPE_CHECKING:
    from PIL import Image

Row = tuple[Array, Array, Array]
"""Context `(T, C, H, W)`, truth and nowcast `(K, C, H, W)`, values in [0, 1]."""

_SIDE, _GAP, _TOP = 150, 10, 26
_PANELS = ("past", "truth", "nowcast", "error")
_PAPER, _INK, _EMPTY = (250, 250, 248), (40, 40, 40), (225, 225, 222)


def save_film(path: Path, rows: Sequence[Row], *, frame_ms: int = 220) -> None:
    """Write the film; the past plays first, then truth, nowcast and error side by side.

    In the error panel blue is too little and red too much.
    """
    from PIL import Image

    context, horizon = len(rows[0][0]), len(rows[0][1])
    pictures = [_picture(rows, t, context) for t in range(context + horizon)]
    palette = pictures[-1].quantize(colors=255)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [frame_ms] * len(frames)
    durations[-1] *= 6
    with atomic_file(path) as file:
        frames[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            optimize=True,
        )


def _picture(rows: Sequence[Row], t: int, context: int) -> Image.Image:
    from PIL import Image, ImageDraw

    width = len(_PANELS) * (_SIDE + _GAP) + _GAP
    image = Image.new("RGB", (width, _TOP + len(rows) * (_SIDE + _GAP)), _PAPER)
    draw = ImageDraw.Draw(image)
    lead = t - context + 1
    for n, name in enumerate(_PANELS):
        text = name if n else f"past {t + 1}" if lead < 1 else "past"
        if name in ("truth", "nowcast") and lead >= 1:
            text = f"{name} +{lead}"
        draw.text((_GAP + n * (_SIDE + _GAP), 7), text, fill=_INK)
    for r, (past, truth, nowcast) in enumerate(rows):
        panels: list[NDArray[np.uint8] | None] = [
            _grey(past[min(t, context - 1)]),
            None,
            None,
            None,
        ]
        if lead >= 1:
            panels[1:] = [
                _grey(truth[lead - 1]),
                _grey(nowcast[lead - 1]),
                _signed(nowcast[lead - 1] - truth[lead - 1]),
            ]
        for n, panel in enumerate(panels):
            corner = (_GAP + n * (_SIDE + _GAP), _TOP + r * (_SIDE + _GAP))
            if panel is None:
                end = (corner[0] + _SIDE - 1, corner[1] + _SIDE - 1)
                draw.rectangle((corner, end), fill=_EMPTY)
            else:
                small = Image.fromarray(panel)
                image.paste(small.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), corner)
    return image


def _grey(frame: Array) -> NDArray[np.uint8]:
    """`(C, H, W)` in [0, 1] -> `(H, W, 3)`."""
    level = np.round(255 * np.clip(frame.mean(axis=0), 0, 1)).astype(np.uint8)
    return np.tile(level[..., None], (1, 1, 3))


def _signed(error: Array) -> NDArray[np.uint8]:
    """`(C, H, W)` in [-1, 1] -> `(H, W, 3)`: white is none, blue too little, red too much."""
    e = np.clip(error.mean(axis=0), -1, 1)[..., None]  # (H, W, 1)
    red, blue = np.array([190.0, 30, 45]), np.array([40.0, 80, 180])
    colour = 255 + np.abs(e) * (np.where(e > 0, red, blue) - 255)
    return np.asarray(np.round(colour), dtype=np.uint8)
