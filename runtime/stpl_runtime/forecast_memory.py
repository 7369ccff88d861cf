"""What a nowcast will need of memory on the CPU, beside what its process takes already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from stpl_core.bundle import Bundle
from stpl_core.host.memory import WORTH_A_LINE, require_memory
from stpl_runtime.chances import exceedance_of
from stpl_runtime.engines.graph_memory import live_bytes
from stpl_runtime.engines.tiled import TILES_AT_ONCE, Size, Tiling, default_overlap
from stpl_runtime.nowcasting.predict import BATCH, graphs_needed

_FLOAT = 4
_ENGINES = ("onnx", "auto")
"""Whose work lies in this machine's memory; `auto` counts as `onnx`, which it takes unmeasured."""
_ARENA = 2.2
"""A graph's own arena, over the values that live at the same time: it keeps what it once had."""
_LIBRARY = 45e6
"""The runtime's library with its threads."""
_WEIGHTS = 1.0
"""Copies of the weights for each graph, packed for its kernels."""
_STATES = 5
"""Copies of the states: zero, before a step and after it, in the program and in the arena."""
_FRAMES = 5.2
"""Copies of the frames that come out: one by one, stacked, joined, in physical units, clipped."""
_CHANCES = 3.2
"""Copies of the chances: one by one, stacked, of all sequences, masked."""
_MEMBERS = 3.2
"""Copies of an ensemble's members: as they are made, masked, as the bytes of a file."""
_DRAWING = 40
"""Frames' worth of numbers, in double precision, while one frame of one member is drawn."""
_SURE = 1.15
"""A setting that is suggested must really fit: so much more than estimated."""


@dataclass(frozen=True)
class ForecastMemory:
    """The parts of it, in bytes, for `sequences` that run at the same time."""

    bundle: Bundle
    domain: Size
    overlap: int | None
    sequences: int
    values: Mapping[str, int]
    """Graph -> what its values take, for one sequence."""
    streams: int = 1
    """Each with states and frames of its own."""
    batch: int = 1
    """Of the streams, that run in one call."""
    chances: bool = False
    """Those of events are wanted too."""
    members: int = 0
    """Of an ensemble, which needs the chances."""

    @property
    def tiles(self) -> int:
        """Of one sequence."""
        manifest = self.bundle.manifest
        _, height, width = manifest.frame
        if self.domain == (height, width):
            return 1
        usual = default_overlap((height, width), manifest.horizon)
        overlap = usual if self.overlap is None else self.overlap
        return Tiling(self.domain, (height, width), overlap).count

    def bytes(self, horizon: int) -> float:
        """All of it."""
        manifest, count = self.bundle.manifest, self.sequences
        tiles = self.tiles * count
        at_once = min(tiles * self.batch, TILES_AT_ONCE) if self.tiles > 1 else count * self.batch
        graphs = graphs_needed(manifest, horizon, chances=self.chances)
        weights = self._weights() * (1 + _WEIGHTS * len(graphs))
        frame = prod(manifest.frame) * _FLOAT
        state = sum(prod(part.shape) for part in manifest.state) * _FLOAT
        values = sum(self.values.get(graph, 0) for graph in graphs)
        unrolled = horizon * frame if "forecast" in graphs else 0
        running = at_once * (_ARENA * values + 2 * unrolled)
        whole = manifest.frame[0] * prod(self.domain) * _FLOAT * count
        joined = horizon * max(_FRAMES * whole, 2 * tiles * frame + whole)
        levels = len(exceedance_of(manifest).levels) if self.chances else 0
        own = _STATES * tiles * state + joined + _CHANCES * levels * horizon * whole
        if self.members:
            own += (_MEMBERS * horizon + 1) * self.members * whole  # and the waves of their noise
            own += (horizon + 2 * levels + _DRAWING) * whole  # its paths, and what one frame takes
        return _LIBRARY + weights + running + self.streams * own

    def _weights(self) -> int:
        files = self.bundle.manifest.files
        return sum(spec.bytes for name, spec in files.items() if name.startswith("weights"))


def plan_memory(
    bundle: Bundle,
    engine: str,
    horizon: int | None,
    domain: Size | None = None,
    overlap: int | None = None,
    sequences: int = 1,
    streams: int = 1,
    *,
    batch: int = 1,
    chances: bool = False,
    members: int = 0,
) -> str:
    """One line on the memory of nowcasts; refuses those that cannot fit.

    Args:
        bundle: an opened bundle.
        engine: the word of the engine.
        horizon: frames to predict; None takes the bundle's.
        domain: (H, W) of the frames; None: the model's.
        overlap: of tiles; None: the default.
        sequences: in one call of `predict`.
        streams: that share the engine.
        batch: of them, that run in one call.
        chances: those of events are wanted too.
        members: of an ensemble; 0: none.

    Returns:
        The line; empty where it is little, or not estimated: an engine with memory of its own.

    Raises:
        EnvironmentFault: more is needed than there is; names the setting that fits.
    """
    if engine not in _ENGINES:
        return ""
    manifest = bundle.manifest
    values = _values(bundle)
    if values is None:
        return ""
    at_once = max(1, min(sequences, BATCH))
    covered = domain or manifest.domain
    planned = ForecastMemory(
        bundle, covered, overlap, at_once, values, streams, batch, chances, members
    )
    steps = manifest.horizon if horizon is None else horizon
    needed = planned.bytes(steps)
    size = "x".join(map(str, planned.domain))
    tiles = f" in {planned.tiles} tiles" if planned.tiles > 1 else ""
    ensemble = f" with {members} members" if members else ""
    line = require_memory(
        needed,
        f"a nowcast of {steps} frames of {size}{tiles}{ensemble}",
        lambda room: _smaller(planned, steps, room),
    )
    return line if needed >= WORTH_A_LINE else ""


def _values(bundle: Bundle) -> dict[str, int] | None:
    """None where the step's are not known: a graph that is none is refused when it is opened."""
    found = {}
    for name in ("step", "forecast"):
        if (graph := bundle.manifest.graphs.get(name)) is None:
            continue
        try:
            size = live_bytes(bundle.content(graph.file))
        except (ValueError, LookupError, OverflowError):
            continue
        if size is not None:
            found[name] = size
    return found if "step" in found else None


def _smaller(planned: ForecastMemory, steps: int, room: float) -> str:
    """The setting that fits into `room` bytes."""
    fewer = range(planned.members - 1, 1, -1)
    fits = (n for n in fewer if replace(planned, members=n).bytes(steps) * _SURE <= room)
    if found := next(fits, 0):
        return f"--members {found}"
    low, high = 0, steps  # the greatest number of frames that fits is in low..high - 1
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = planned.bytes(middle) * _SURE <= room
        low, high = (middle, high) if is_enough else (low, middle)
    if low:
        return f"--horizon {low}"
    return "a smaller --grid, a higher ulimit -v or memory limit, or stop other programs"
