"""The picture of `data inspect`: first and last frame with a legend and units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stpl_core.drawing.colours import (
    INK,
    NO_DATA_COLOUR,
    NO_ECHO_COLOUR,
    PAPER,
    Colour,
    ColourMap,
    colour_map,
)
from stpl_core.drawing.maps import with_map
from stpl_core.drawing.pictures import (
    canvas,
    frame_picture,
    legend_entries,
    scaled,
    thinned,
    write_text,
)
from stpl_core.errors import UsageError
from stpl_core.files import atomic_file
from stpl_core.grid import Grid
from stpl_core.readers.survey import Sight, Survey

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE, _GAP, _TOP, _LEGEND = 480, 12, 24, 110
_BOX = 18
_RAMP_BOXES = 9


def save_sights(path: Path, survey: Survey, sights: list[Sight]) -> None:
    """Write the picture; its suffix says the format (.png, .jpg, ...).

    Raises:
        UsageError: Pillow has no format of this suffix.
    """
    from PIL import Image

    Image.init()
    form = Image.EXTENSION.get(path.suffix.lower())
    if form is None or form not in Image.SAVE:
        raise UsageError(
            f"--picture {path} ends in {path.suffix or 'nothing'}",
            expected="a picture such as .png",
            fix=f"--picture {path.with_suffix('.png')}",
        )
    shown = sights if survey.frames > 1 else sights[:1]
    units = survey.quantity.units
    ends = (0.0, 1.0) if units == "1" else (survey.low or 0.0, survey.high or 1.0)
    colours = colour_map(units, *ends)
    panels = [_panel(sight, colours, survey.grid) for sight in shown]
    width = sum(panel.width + _GAP for panel in panels) + _GAP + _LEGEND
    height = max(_TOP + panels[0].height + _GAP, _TOP + (len(colours.limits) + 4) * _BOX)
    image = canvas(width, height, PAPER)
    left = _GAP
    for sight, panel in zip(shown, panels, strict=True):
        write_text(image, (left, 6), sight.time)
        image.paste(panel, (left, _TOP))
        left += panel.width + _GAP
    _legend(image, left, survey, colours)
    with atomic_file(path) as file:
        image.save(file, format=form)


def _panel(sight: Sight, colours: ColourMap, grid: Grid) -> Image:
    """A frame with square pixels, the longer side `_SIDE`; large ones lose rows, not colours.

    The map lies over it where the grid has a place on the Earth.
    """
    frame, state = thinned(sight.frame, 2 * _SIDE), thinned(sight.state, 2 * _SIDE)
    rgb = frame_picture(frame, colours, state=state)
    scale = _SIDE / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return with_map(scaled(rgb, *size), grid)


def _legend(image: Image, left: int, survey: Survey, colours: ColourMap) -> None:
    units = survey.quantity.units
    write_text(image, (left, 6), "of full scale" if units == "1" else units)
    boxes: list[tuple[Colour, str]] = []
    for colour, low, high in reversed(legend_entries(colours, _RAMP_BOXES)):
        if not colours.classes:
            boxes.append((colour, f"{low:.4g}"))
        else:
            boxes.append((colour, f"< {high:g}" if low is None else f">= {low:g}"))
    if survey.quantity.no_echo is not None:
        boxes.append((NO_ECHO_COLOUR, "no echo"))
    if survey.share["no_data"] > 0:
        boxes.append((NO_DATA_COLOUR, "no data"))
    for n, (colour, text) in enumerate(boxes):
        top = _TOP + n * _BOX
        image.paste(INK, (left, top, left + _BOX + 1, top + _BOX - 1))
        image.paste(colour, (left + 1, top + 1, left + _BOX, top + _BOX - 2))
        write_text(image, (left + _BOX + 6, top + 1), text)
