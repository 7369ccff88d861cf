"""What of the newest nowcasts can be shown on a map: its layers, their times and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.drawing.colours import STANDARD, ColourMap, chance_map, colour_map, palettes
from stpl_core.scores.images import Mask
from stpl_runtime.chances import CHANCE
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.page.gis.ground import Ground, ground_of
from stpl_runtime.page.gis.refusal import RefusedError, quoted
from stpl_runtime.page.gis.times import places_in
from stpl_runtime.timing import utc_text

FORECAST, OBSERVED = "nowcast", "observed"
_CODE = "InvalidDimensionValue"


@dataclass(frozen=True)
class Layer:
    """One quantity of one stream at several times."""

    name: str
    """`nowcast`, `observed` or `probability_of_exceedance_0.5`; of one of several streams
    `STREAM:nowcast`."""
    word: str
    """Its name without that of the stream."""
    title: str
    nowcast: Nowcast
    steps: tuple[int, ...]
    """Frames after the newest observed one, rising; 0 and less are the past."""
    threshold: int | None = None
    """Of the chances: which one."""

    @cached_property
    def ground(self) -> Ground:
        """Where its pixels lie.

        Raises:
            MissingExtraError: pyproj is not installed.
        """
        assert self.nowcast.grid is not None, "see `layers_of`"
        return ground_of(self.nowcast.grid)

    @property
    def times(self) -> tuple[datetime, ...]:
        """When each of its frames is valid; empty where the frames carry no time."""
        nowcast = self.nowcast
        known = (*nowcast.context_times, *nowcast.valid_times)
        first = 1 - len(nowcast.context_times)
        return tuple(known[step - first] for step in self.steps) if nowcast.valid_times else ()

    @property
    def standard(self) -> int:
        """The step that is meant where none is asked for: the first ahead, or the newest."""
        return self.steps[0] if self.steps[0] > 0 else self.steps[-1]

    @property
    def units(self) -> str:
        """Of its values, in CF notation."""
        return self.nowcast.units if self.threshold is None else "1"

    @property
    def about(self) -> str:
        """A sentence for those who choose a layer."""
        nowcast = self.nowcast
        issued = "" if nowcast.issue_time is None else f", issued {utc_text(nowcast.issue_time)}"
        ends = f"{nowcast.lead_text(self.steps[0])} to {nowcast.lead_text(self.steps[-1])}"
        return f"{self.title}{issued}: {ends}, in {self.units}. LEAD=N is the Nth frame ahead."

    def time_of(self, step: int) -> datetime | None:
        """When a frame is valid; None where the frames carry no time."""
        return self.times[self.steps.index(step)] if self.times else None

    def frame(self, step: int) -> Array:
        """`(C, H, W)`: values of one time."""
        found: Array
        if self.threshold is not None:
            assert self.nowcast.chances is not None, "see `layers_of`"
            found = self.nowcast.chances.values[step - 1, self.threshold]
        elif step > 0:
            found = self.nowcast.frames[step - 1]
        else:
            found = self.nowcast.context[len(self.nowcast.context) - 1 + step]
        return found

    def value(self, step: int, x: int, y: int) -> float | None:
        """Of a pixel, its first channel; in the fewest digits that are its float32."""
        width = self.frame(step).shape[-1]
        return self.values(step, np.array([y * width + x]))[0]

    def values(self, step: int, pixels: NDArray[np.int64]) -> list[float | None]:
        """The same of several pixels, by their numbers along the rows."""
        frame, observed = self.frame(step), self.nowcast.observed_in(step)
        values = frame.reshape(len(frame), -1)[:, pixels].astype(np.float32)  # (C, N)
        seen: Mask = np.asarray(np.isfinite(values).all(axis=0), np.bool_)
        if observed is not None:
            seen &= observed.ravel()[pixels]
        return [
            float(str(value)) if known else None
            for value, known in zip(values[0], seen.tolist(), strict=True)
        ]

    def seen(self, step: int) -> Mask:
        """`(H, W)`, False where a frame has no value."""
        seen: Mask = np.asarray(np.isfinite(self.frame(step)).all(axis=0), np.bool_)
        observed = self.nowcast.observed_in(step)
        return seen if observed is None else seen & observed

    @property
    def styles(self) -> dict[str, str]:
        """Word -> title of the palettes that it can be drawn with, the standard one first."""
        return palettes(self.units) if self.threshold is None else {STANDARD: "chance"}

    def colours(self, style: str) -> ColourMap:
        """The colours of a word of `styles`."""
        if self.threshold is not None:
            return chance_map()
        return colour_map(self.nowcast.units, self.nowcast.low, self.nowcast.high, style)

    def step_at(self, time: str, lead: str) -> int:
        """The frame that is asked for.

        Args:
            time: an instant or an interval, of which the first frame counts; empty: the standard.
            lead: frames after the newest observed one; empty: by `time`.

        Raises:
            RefusedError: there is no such frame, or both were given.
        """
        if time in ("", "current"):
            return self._step(lead) if lead else self.standard
        if lead:
            raise RefusedError("TIME and LEAD: expected one of them", _CODE)
        if not self.times:
            raise RefusedError(
                "TIME: the frames carry no time; expected LEAD, such as LEAD=1", _CODE
            )
        return self.steps[places_in(time, self.times, "TIME")[0]]

    def _step(self, lead: str) -> int:
        digits = lead.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) < 6 and int(lead) in self.steps:
            return int(lead)
        raise RefusedError(
            f"LEAD={quoted(lead)}: expected {self.steps[0]} to {self.steps[-1]}", _CODE
        )


def layers_of(nowcasts: Mapping[str, Nowcast]) -> dict[str, Layer]:
    """The layers of all streams that lie on the Earth, by their name.

    Args:
        nowcasts: the newest one of each stream.

    Raises:
        RefusedError: there are none.
        MissingExtraError: pyproj is not installed.
    """
    if not nowcasts:
        raise RefusedError("no nowcast yet", status=503)
    placed = {name: one for name, one in nowcasts.items() if _is_placed(one)}
    if not placed:
        raise RefusedError(
            "the frames do not say where on the Earth they lie; expected frames with a projection, "
            "such as ODIM, GeoTIFF or CF NetCDF",
            status=404,
        )
    found = [layer for name, one in placed.items() for layer in _of_stream(name, one)]
    for layer in found:
        _ = layer.ground
    return {layer.name: layer for layer in found}


def rights(layers: Sequence[Layer]) -> str:
    """The licences of what they were made from; `none` where nothing is said."""
    found = sorted({layer.nowcast.notes.get("licence", "") for layer in layers} - {""})
    return "; ".join(found) or "none"


def _is_placed(nowcast: Nowcast) -> bool:
    grid = nowcast.grid
    if grid is None or not grid.crs_wkt:
        return False
    return len(nowcast.frames) > 0 and nowcast.frames.shape[2:] == (grid.height, grid.width)


def _of_stream(stream: str, nowcast: Nowcast) -> list[Layer]:
    quantity, units = nowcast.quantity, nowcast.units
    ahead = tuple(range(1, len(nowcast.frames) + 1))
    past = _observed_steps(nowcast)
    parts: list[tuple[str, str, tuple[int, ...], int | None]] = [
        (FORECAST, f"{quantity}, forecast", ahead, None)
    ]
    if past:
        parts.append((OBSERVED, f"{quantity}, observed", past, None))
    for n, threshold in enumerate(nowcast.chances.thresholds if nowcast.chances else ()):
        title = f"chance of {quantity} at or above {threshold:g} {units}"
        parts.append((f"{CHANCE}_{threshold:g}", title, ahead, n))
    before, about = (f"{stream}:", f"{stream}: ") if stream else ("", "")
    return [
        Layer(f"{before}{word}", word, f"{about}{title}", nowcast, steps, n)
        for word, title, steps, n in parts
    ]


def _observed_steps(nowcast: Nowcast) -> tuple[int, ...]:
    """Frames of the context that were observed: no stand-ins."""
    count, fills = len(nowcast.context), nowcast.context_fill
    return tuple(n + 1 - count for n in range(count) if n >= len(fills) or not fills[n])
