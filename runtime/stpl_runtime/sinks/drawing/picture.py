"""What the pictures share: a frame as an image, with its time above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stpl_core.codec import Array
from stpl_core.drawing.colours import (
    DARK,
    FORECAST,
    NO_DATA_ON_DARK,
    PAST,
    SAFE,
    STAND_IN,
    STANDARD,
    Colour,
    ColourMap,
    colour_map,
)
from stpl_core.drawing.maps import with_map
from stpl_core.drawing.palettes import NATIONAL
from stpl_core.drawing.pictures import canvas, frame_picture, scaled, text_width, write_text
from stpl_core.errors import UsageError
from stpl_core.grid import Grid
from stpl_core.scores.images import Mask
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.options import Options
from stpl_runtime.sink import SinkSpec
from stpl_runtime.timing import utc_text

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 96
"""Least height of a frame on a picture, in pixels."""
MOST = 384
"""Greatest height: a strip of a whole country's frames must still open."""
MARGIN = 6
TITLE = 20


class Tile(NamedTuple):
    """One labelled frame."""

    image: Image
    steps: int
    """Frames after the newest observed one; 0 or less for the context."""


def tiles(
    nowcast: Nowcast, most: int = MOST, *, with_times: bool = False, palette: str = STANDARD
) -> list[Tile]:
    """Every frame of the context, then of the forecast, labelled with its time.

    A frame that stands in for one that was missing says so; pixels that were not observed have a
    colour of their own: there, and those of the newest frame in the forecast.

    Args:
        nowcast: one nowcast.
        most: greatest height of a frame, pixels.
        with_times: label each with its valid time, too.
        palette: a word of `stpl_core.drawing.colours.palettes`.
    """
    first = 1 - len(nowcast.context)
    had = nowcast.context_fill or ("",) * len(nowcast.context)
    made = []
    for n, frame in enumerate((*nowcast.context, *nowcast.frames)):
        steps = first + n
        words = ["now" if steps == 0 else nowcast.lead_text(steps), *had[n : n + 1]]
        time = _time_of(nowcast, steps) if with_times else ""
        label = ", ".join(filter(None, (" ".join(filter(None, words)), time)))
        border = FORECAST if steps > 0 else STAND_IN if had[n : n + 1] != ("",) else PAST
        colours = colour_map(nowcast.units, nowcast.low, nowcast.high, palette)
        picture = _image(frame, colours, nowcast.observed_in(steps), most, nowcast.grid)
        made.append(Tile(_framed(picture, label, border), steps))
    return made


def frames_per_second(word: str, spec: SinkSpec | None, usual: float) -> float:
    """The option `fps` of an animation's word.

    Raises:
        UsageError: it is no number from 0.1 to 50, which all players can show.
    """
    given = (spec or SinkSpec()).options
    options = Options(f"the sink {word}", given, ("fps", "colours"), f"--sink {word},")
    return options.number("fps", usual, least=0.1, most=50.0)


def chosen_palette(word: str, spec: SinkSpec | None) -> str:
    """The option `colours` of a picture's word; where a unit lacks the palette, the standard one.

    Raises:
        UsageError: no such palette.
    """
    found = (spec or SinkSpec()).options.get("colours", STANDARD)
    words = (STANDARD, SAFE, *NATIONAL)
    if found not in words:
        raise UsageError(
            f"--sink {word},colours={found}: no such colours",
            expected=f"one of {', '.join(words)}",
            fix=f"--sink {word},colours={SAFE}:DIR",
        )
    return found


def title(nowcast: Nowcast) -> str:
    """What is shown, and from when."""
    units = "" if nowcast.units == "1" else f" ({nowcast.units})"
    issued = "" if nowcast.issue_time is None else f", issued {utc_text(nowcast.issue_time)}"
    filled = sum(map(bool, nowcast.context_fill))
    missing = f", {filled} of {len(nowcast.context)} frames not observed" if filled else ""
    stream = f"{nowcast.stream}: " if nowcast.stream else ""
    return f"{stream}{nowcast.quantity}{units}{issued}{missing}"


def _time_of(nowcast: Nowcast, steps: int) -> str:
    """When a frame is valid, in words; empty without times."""
    times = (*nowcast.context_times, *nowcast.valid_times)
    place = len(nowcast.context_times) - 1 + steps
    return utc_text(times[place]) if nowcast.context_times and place < len(times) else ""


def _framed(picture: Image, label: str, colour: Colour) -> Image:
    """A picture in a coloured border, with a label above."""
    width = max(picture.width + 4, text_width(label) + 2)
    tile = canvas(width, picture.height + 4 + TITLE, DARK)
    write_text(tile, (1, 2), label, colour)
    tile.paste(colour, (0, TITLE, picture.width + 4, TITLE + picture.height + 4))
    tile.paste(picture, (2, TITLE + 2))
    return tile


def _image(
    frame: Array, colours: ColourMap, observed: Mask | None, most: int, grid: Grid | None
) -> Image:
    """`(C, H, W)` in physical units, as large as it is drawn, with the map over it."""
    from PIL import Image

    picture = frame_picture(frame, colours, observed=observed, no_data=NO_DATA_ON_DARK)
    height, width = picture.shape[:2]
    if height > most:
        size = (max(1, round(width * most / height)), most)
        return with_map(Image.fromarray(picture).resize(size, Image.Resampling.BOX), grid)
    factor = max(1, -(-_SIDE // height))
    return with_map(scaled(picture, width * factor, height * factor), grid)


def is_colour_picture(nowcast: Nowcast) -> bool:
    """Whether the three channels of a frame are red, green and blue."""
    return nowcast.units == "1" and nowcast.frames.shape[-3] == 3
