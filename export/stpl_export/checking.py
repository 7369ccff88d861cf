"""The sequences that judge an export: some of them must be able to break its promises.

On frames in which nothing is, or nothing moves (a dry day, a covered lens), every precision is
exact. Where the data given has fewer than `LEAST_LIVE` sequences that can show a fault, those that
the run kept for validation are added, and the export reports so; where those cannot either, the
export is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.frames import read_sequences
from stpl_core.npz_extras import read_beside
from stpl_export.precision.calibrate import MOST_SEQUENCES
from stpl_export.regrid import cover
from stpl_runtime.proof.live_sequences import live_sequences
from stpl_train.forecaster import FrameShape
from stpl_train.recipe import ArraySection, DataSection, SyntheticSection
from stpl_train.run import VALIDATION, Run

LEAST_LIVE = 2
"""One that judges, one that calibrates."""

Observed = NDArray[np.bool_] | None


def judging_sequences(
    run: Run, data: Path | None, frame: FrameShape
) -> tuple[Array, Observed, str]:
    """Sequences `(N, T + K, *frame)` in model units, what was observed, where they came from.

    Those of another size are cut, or mirrored at their edges.

    Raises:
        FrameError: the data cannot be read or is too short, or nothing moves in any sequence.
    """
    section = run.recipe.data
    kept = run.validation()
    kept, kept_observed = cover(kept, read_beside(run.file(VALIDATION), kept)[0], frame)
    kept_label = _label(section)
    usable = live_sequences(kept)
    if data is None:
        if not usable.any():
            raise _dead(kept_label, len(kept))
        return kept, kept_observed, kept_label
    given, observed = cover(*_read(run, data), frame)
    live = int(live_sequences(given, like=kept).sum())
    if live >= LEAST_LIVE:
        return given, observed, data.name
    if not usable.any():
        if live:
            return given, observed, data.name
        raise _dead(data.name, len(given))
    chosen = np.flatnonzero(usable)[: MOST_SEQUENCES * 2]
    seen = None if kept_observed is None else kept_observed[chosen]
    label = (
        f"{len(chosen)} sequences of {kept_label}, and {data.name} ({live} of {len(given)} move)"
    )
    return *_interleaved((kept[chosen], seen), (given, observed)), label


def _read(run: Run, data: Path) -> tuple[Array, Observed]:
    section = run.recipe.data
    length = section.context + section.horizon
    physical = read_sequences(data, run.frame_shape, section.codec)
    if physical.shape[1] < length:
        raise FrameError(
            f"{data} has sequences of {physical.shape[1]} frames",
            expected=f"at least {length} = {section.context} + {section.horizon}",
            fix="give longer sequences",
        )
    observed = read_beside(data, physical)[0]
    frames = section.codec.model_from_physical(physical[:, :length])
    return frames, None if observed is None else observed[:, :length]


def _interleaved(
    one: tuple[Array, Observed], other: tuple[Array, Observed]
) -> tuple[Array, Observed]:
    """Both in turn, so that each half has some of both (see `split_sequences`)."""
    count = len(one[0]) + len(other[0])
    order = np.argsort(
        np.concatenate([np.linspace(0, 1, len(side[0])) for side in (one, other)]), kind="stable"
    )
    assert len(order) == count
    frames = np.concatenate([one[0], other[0]])[order]
    if one[1] is None and other[1] is None:
        return frames, None
    seen = [
        np.ones((len(part), part.shape[1], *part.shape[3:]), np.bool_) if mask is None else mask
        for part, mask in (one, other)
    ]
    return frames, np.concatenate(seen)[order]


def _dead(label: str, count: int) -> FrameError:
    return FrameError(
        f"nothing moves in any of the {count} sequences of {label}: they prove no engine",
        expected="sequences in which something is and moves",
        fix="--data FILE with such sequences",
    )


def _label(section: DataSection) -> str:
    """Where a run's own sequences came from."""
    if isinstance(section, SyntheticSection):
        return section.source
    where = section.path.name if isinstance(section, ArraySection) else section.source
    return f"{where}, validation part"
