"""The picture of `data inspect`: first and last frame with a legend and units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stpl_core.colours import NO_DATA_COLOUR, NO_ECHO_COLOUR, ColourMap, colour_map
from stpl_core.errors import UsageError
from stpl_core.files import atomic_file
from stpl_core.readers.survey import Sight, Survey

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_SIDE, _GAP, _TOP, _LEGEND = 480, 12, 24, 110
_PAPER, _INK = (250, 250, 248), (40, 40, 40)
_BOX = 18


def save_sights(path: Path, survey: Survey, sights: list[Sight]) -> None:
    """Write the picture; its suffix says the format (.png, .jpg, ...).

    Raises:
        UsageError: Pillow has no format of this suffix.
    """
    from PIL import Image, ImageDraw

    Image.init()
    form = Image.EXTENSION.get(path.suffix.lower())
    if form is None or form not in Image.SAVE:
        raise UsageError(
            f"--picture {path} ends in {path.suffix or 'nothing'}",
            expected="a picture such as .png",
            fix=f"--picture {path.with_suffix('.png')}",
        )
    shown = sights if survey.frames > 1 else sights[:1]
    colours = colour_map(survey.quantity.units, survey.low or 0.0, survey.high or 1.0)
    panels = [_panel(sight, colours) for sight in shown]
    width = sum(panel.width + _GAP for panel in panels) + _GAP + _LEGEND
    height = max(_TOP + panels[0].height + _GAP, _TOP + (len(colours.limits) + 4) * _BOX)
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)
    left = _GAP
    for sight, panel in zip(shown, panels, strict=True):
        draw.text((left, 6), sight.time, fill=_INK)
        image.paste(panel, (left, _TOP))
        left += panel.width + _GAP
    _legend(draw, left, survey, colours)
    with atomic_file(path) as file:
        image.save(file, format=form)


def _panel(sight: Sight, colours: ColourMap) -> Image.Image:
    """A frame with square pixels, the longer side `_SIDE`; large ones lose rows, not colours."""
    from PIL import Image

    channels, height, width = sight.frame.shape
    stride = max(1, -(-max(height, width) // (2 * _SIDE)))
    frame, state = sight.frame[:, ::stride, ::stride], sight.state[::stride, ::stride]
    if channels == 3 and colours.limits == (0.0, 1.0):
        known = np.nan_to_num(np.moveaxis(frame, 0, -1))
        rgb = (np.clip(known, 0, 1) * 255).round().astype(np.uint8)  # (H, W, 3)
    else:
        rgb = colours.picture(frame[0], state)
    scale = _SIDE / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return Image.fromarray(rgb).resize(size, Image.Resampling.NEAREST)


def _legend(draw: ImageDraw.ImageDraw, left: int, survey: Survey, colours: ColourMap) -> None:
    units = survey.quantity.units
    draw.text((left, 6), "of full scale" if units == "1" else units, fill=_INK)
    top = _TOP
    if colours.classes:
        for limit, colour in zip(colours.limits[::-1], colours.colours[:0:-1], strict=True):
            _box(draw, left, top, colour, f">= {limit:g}")
            top += _BOX
        _box(draw, left, top, colours.colours[0], f"< {colours.limits[0]:g}")
        top += _BOX
    else:
        low, high = colours.limits
        steps = 8
        for n in range(steps, -1, -1):
            value = np.float32(low + (high - low) * n / steps)
            red, green, blue = colours.picture(np.full((1, 1), value))[0, 0].tolist()
            _box(draw, left, top, (red, green, blue), f"{value:.4g}")
            top += _BOX
    if survey.quantity.no_echo is not None:
        _box(draw, left, top, NO_ECHO_COLOUR, "no echo")
        top += _BOX
    if survey.share["no_data"] > 0:
        _box(draw, left, top, NO_DATA_COLOUR, "no data")


def _box(
    draw: ImageDraw.ImageDraw, left: int, top: int, colour: tuple[int, int, int], text: str
) -> None:
    draw.rectangle((left, top, left + _BOX, top + _BOX - 2), fill=colour, outline=_INK)
    draw.text((left + _BOX + 6, top + 2), text, fill=_INK)
