"""The demo's film: past | truth | nowcast | error, one row per nowcast, as an animated GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stpl_core.codec import Array
from stpl_core.drawing.colours import EMPTY, PAPER, colour_map
from stpl_core.drawing.pictures import canvas, difference_picture, frame_picture, scaled, write_text
from stpl_core.files import atomic_file

if TYPE_CHECKING:
    from PIL import Image

Row = tuple[Array, Array, Array]
"""Context `(T, C, H, W)`, truth and nowcast `(K, C, H, W)`, values in [0, 1]."""

_SIDE, _GAP, _TOP = 150, 10, 26
_PANELS = ("past", "truth", "nowcast", "error")


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
    width = len(_PANELS) * (_SIDE + _GAP) + _GAP
    image = canvas(width, _TOP + len(rows) * (_SIDE + _GAP), PAPER)
    lead = t - context + 1
    for n, name in enumerate(_PANELS):
        text = name if n else f"past {t + 1}" if lead < 1 else "past"
        if name in ("truth", "nowcast") and lead >= 1:
            text = f"{name} +{lead}"
        write_text(image, (_GAP + n * (_SIDE + _GAP), 7), text)
    grey = colour_map("1", 0.0, 1.0)
    for r, (past, truth, nowcast) in enumerate(rows):
        panels = [frame_picture(past[min(t, context - 1)], grey)]
        if lead >= 1:
            now, then = nowcast[lead - 1], truth[lead - 1]
            panels += [frame_picture(then, grey), frame_picture(now, grey)]
            panels += [difference_picture(now, then, None, "1", -1.0, 1.0)]
        for n in range(len(_PANELS)):
            left, top = _GAP + n * (_SIDE + _GAP), _TOP + r * (_SIDE + _GAP)
            if n < len(panels):
                image.paste(scaled(panels[n], _SIDE, _SIDE), (left, top))
            else:
                image.paste(EMPTY, (left, top, left + _SIDE, top + _SIDE))
    return image
