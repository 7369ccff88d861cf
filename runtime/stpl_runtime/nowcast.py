"""What a nowcaster makes and a sink writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.grid import Grid
from stpl_runtime.chances import Chances
from stpl_runtime.timing import time_text


@dataclass(frozen=True)
class Nowcast:
    """K predicted frames, when each is valid, and how they were made."""

    frames: Array
    """`(K, C, H, W)` float32, physical units, clipped to the codec's range."""
    context: Array
    """`(T, C, H, W)` float32, physical units: the frames it was made from."""
    units: str
    quantity: str
    low: float
    """Physical value that a picture shows as black."""
    high: float
    """Physical value that a picture shows as white."""
    issue_time: datetime | None = None
    """Valid time of the newest observed frame; UTC. None where the frames carry no time."""
    cadence_s: float | None = None
    """Seconds from one frame to the next; None where the frames carry no time."""
    context_times: tuple[datetime, ...] = ()
    """When each frame of the context was observed; empty where the frames carry no time."""
    context_fill: tuple[str, ...] = ()
    """How each frame of the context was had: "" observed, `held` or `bridged`; empty: all
    observed."""
    stream: str = ""
    """Which of several streams it belongs to; empty where there is one."""
    source_id: str = ""
    """Where the newest observed frame came from."""
    made_by: dict[str, str] = field(default_factory=dict)
    """Engine, provider, context mode, bundle checksum and the like."""
    latency_ms: float | None = None
    """From the newest frame's arrival to this nowcast; None for files."""

    grid: Grid | None = None
    """Where the pixels lie; None where the frames do not carry it."""
    observed: NDArray[np.bool_] | None = None
    """`(H, W)`, False where the newest frame had no data; None where it had everywhere."""
    context_observed: NDArray[np.bool_] | None = None
    """`(T, H, W)`, the same of each frame of the context; None where all had data everywhere."""
    standard_name: str = ""
    """CF standard name of the quantity, where the frames carry it."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What goes along with the data: `institution`, `licence`, `attribution`."""
    chances: Chances | None = None
    """How likely events are, where that was asked for."""
    members: Array | None = None
    """`(M, K, C, H, W)` float32, physical units: an ensemble, where one was asked for."""

    def observed_in(self, steps: int) -> NDArray[np.bool_] | None:
        """`(H, W)` of one frame, False where it has no data; None where it has everywhere.

        Args:
            steps: frames after the newest observed one; 0 or less for the context.
        """
        if steps >= 0 or self.context_observed is None:
            return self.observed if steps >= 0 else None
        seen: NDArray[np.bool_] = self.context_observed[len(self.context) - 1 + steps]
        return None if seen.all() else seen

    def masked(self) -> Array:
        """The predicted frames, NaN where the newest observed frame had no data."""
        if self.observed is None:
            return self.frames
        return np.where(self.observed, self.frames, np.float32(np.nan))

    def masked_chances(self) -> Array:
        """The chances `(K, Q, C, H, W)`, NaN where the newest observed frame had no data."""
        assert self.chances is not None, "asked for"
        values = self.chances.values
        if self.observed is None:
            return values
        return np.where(self.observed, values, np.float32(np.nan))

    def masked_members(self) -> Array:
        """The members `(M, K, C, H, W)`, NaN where the newest observed frame had no data."""
        assert self.members is not None, "asked for"
        if self.observed is None:
            return self.members
        return np.where(self.observed, self.members, np.float32(np.nan))

    @property
    def is_observed_everywhere(self) -> bool:
        """Whether no frame, past or predicted, has a part without data."""
        return all(
            seen is None or bool(seen.all()) for seen in (self.observed, self.context_observed)
        )

    @property
    def valid_times(self) -> tuple[datetime, ...]:
        """K times, each after `issue_time`; empty where the frames carry no time."""
        if self.issue_time is None or self.cadence_s is None:
            return ()
        step = timedelta(seconds=self.cadence_s)
        return tuple(self.issue_time + step * k for k in range(1, len(self.frames) + 1))

    @property
    def name(self) -> str:
        """A file name without suffix: `nowcast_<issue time>`."""
        return "nowcast" if self.issue_time is None else f"nowcast_{time_text(self.issue_time)}"

    def lead_text(self, steps: int) -> str:
        """A frame's time against the issue time, in words: `+15 min`, or `+3` without times.

        Args:
            steps: frames after the newest observed one; 0 or less for the context.
        """
        sign = "-" if steps < 0 else "+" if steps > 0 else ""
        if self.cadence_s is None:
            return f"{sign}{abs(steps)}"
        seconds = abs(steps) * self.cadence_s
        for unit, size in (("h", 3600.0), ("min", 60.0)):
            if self.cadence_s >= size and self.cadence_s % size == 0:
                return f"{sign}{seconds / size:g} {unit}"
        return f"{sign}{round(seconds, 3):g} s"
