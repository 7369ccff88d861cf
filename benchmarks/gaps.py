"""What missing frames cost, held and bridged; writes benchmarks/results/gaps.json.

    python benchmarks/gaps.py BUNDLE RECIPE [--sequences 100] [--frames 50] [--loss 0.1]

Streams of moving digits that the model has not seen go through the nowcaster three times: with
frames missing at random and `hold`, the same ones with `bridge`, and with none missing. The mean
squared error of the nowcasts against the true frames is reported for the nowcasts that all three
streams made, and for those that depend on a stand-in; by lead time, and by how many frames before
the newest one the missing frame was. RECIPE (or the run's folder) defines how the digits move. The
committed figures are those of tests/data/predrnn-digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.frames import Frame
from stpl_core.options import OnGap
from stpl_deploy.cli.reports.output import document_text, print_table
from stpl_runtime.engine import Session, open_session
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_train.data import unseen_sequence
from stpl_train.recipe import load_recipe

RESULT = Path(__file__).parent / "results" / "gaps.json"
CADENCE_S = 300.0
Key = tuple[int, int]
"""Sequence, and the slot of the newest frame."""


@dataclass
class Errors:
    """Mean squared errors `(K,)` of the nowcasts of streams."""

    squares: dict[Key, NDArray[np.float64]] = field(default_factory=dict)
    fills: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    """How many slots before the newest, for each slot that had none of its own."""

    def mean(self, keys: Sequence[Key]) -> NDArray[np.float64]:
        """`(K,)` over these nowcasts."""
        return np.asarray(np.mean([self.squares[key] for key in keys], axis=0))


def measure(
    bundle: Bundle, session: Session, streams: Sequence[Array], loss: float
) -> dict[str, Errors]:
    """The same streams held, bridged, and with none missing."""
    return {
        "hold": stream_errors(bundle, session, streams, loss, "hold"),
        "bridge": stream_errors(bundle, session, streams, loss, "bridge"),
        "whole": stream_errors(bundle, session, streams, 0.0, "reset"),
    }


def stream_errors(
    bundle: Bundle, session: Session, streams: Sequence[Array], loss: float, on_gap: OnGap
) -> Errors:
    """Nowcast streams `(frames, C, H, W)` of which the share `loss` of the frames is missing.

    The first T frames of a stream are there. Which ones are missing depends on the stream's number
    alone.
    """
    start, step = datetime(2026, 1, 1, tzinfo=timezone.utc), timedelta(seconds=CADENCE_S)
    out, context, horizon = Errors(), bundle.manifest.context, bundle.manifest.horizon
    for stream, frames in enumerate(streams):
        there = np.random.default_rng(stream).random(len(frames)) >= loss
        there[:context] = True
        nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, on_gap=on_gap)
        for slot in np.flatnonzero(there):
            nowcaster.put(Frame(start + int(slot) * step, frames[slot]))
            nowcast = nowcaster.issue()
            if nowcast is None or slot + horizon >= len(frames):
                continue
            error = nowcast.frames - frames[slot + 1 : slot + 1 + horizon]  # (K, C, H, W)
            key = stream, int(slot)
            out.squares[key] = np.square(error, dtype=np.float64).mean(axis=(1, 2, 3))
            back = [context - 1 - k for k, how in enumerate(nowcast.context_fill) if how]
            out.fills[key] = tuple(back)
    return out


def ratio(one: Errors, other: Errors, keys: Sequence[Key]) -> float:
    """The mean squared error of the one over the other's."""
    return float(one.mean(keys).mean() / other.mean(keys).mean())


def ratio_range(one: Errors, other: Errors, keys: Sequence[Key]) -> list[float]:
    """5% and 95% of the ratio where whole streams are drawn anew, as many as there are."""
    streams = sorted({stream for stream, _ in keys})
    row = {stream: n for n, stream in enumerate(streams)}
    sums = np.zeros((2, len(streams)))
    for stream, slot in keys:
        for k, errors in enumerate((one, other)):
            sums[k, row[stream]] += errors.squares[stream, slot].mean()
    drawn = np.random.default_rng(0).integers(len(streams), size=(2000, len(streams)))
    ratios = sums[0][drawn].sum(axis=1) / sums[1][drawn].sum(axis=1)
    return [float(one) for one in np.quantile(ratios, (0.05, 0.95))]


def compare(errors: Mapping[str, Errors]) -> dict[str, dict[str, Any]]:
    """Errors by group of nowcasts, over those that all streams made."""
    held = errors["hold"]
    keys = sorted(set.intersection(*(set(one.squares) for one in errors.values())))
    groups = {
        "all nowcasts": keys,
        "with a stand-in": [key for key in keys if held.fills[key]],
    }
    for back in sorted({one[0] for key in keys if len(one := held.fills[key]) == 1}):
        name = f"one, {back} before newest"
        groups[name] = [key for key in keys if held.fills[key] == (back,)]
    return {
        name: {
            "nowcasts": len(of),
            **{how: one.mean(of).tolist() for how, one in errors.items()},
            "bridge_over_hold": ratio(errors["bridge"], held, of),
            "bridge_over_hold_5_95": ratio_range(errors["bridge"], held, of),
            "whole_over_hold": ratio(errors["whole"], held, of),
        }
        for name, of in groups.items()
    }


def main() -> None:
    """Stream, compare, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("recipe", help="a recipe, or the recipe.toml of the run")
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--loss", type=float, default=0.1)
    given = parser.parse_args()
    bundle, data = open_bundle(given.bundle), load_recipe(given.recipe).data
    session = open_session(bundle, ("step", "forecast"), threads=1)
    streams = [unseen_sequence(data, given.frames, n) for n in range(given.sequences)]
    errors = measure(bundle, session, streams, given.loss)
    session.close()
    groups = compare(errors)
    document = {
        "bundle": given.bundle.name,
        "data": data.model_dump(mode="json"),
        "sequences": given.sequences,
        "frames": given.frames,
        "loss": given.loss,
        "mse": groups,
    }
    with atomic_file(RESULT) as file:
        file.write(document_text(document).encode())
    print_table(
        f"MSE per pixel of the nowcasts, {given.loss:.0%} of the frames missing",
        ["", "nowcasts", "hold", "bridge", "none missing", "bridge/hold", "5..95%"],
        [
            [
                name,
                str(one["nowcasts"]),
                *(f"{np.mean(one[how]):.5f}" for how in ("hold", "bridge", "whole")),
                f"{one['bridge_over_hold']:.3f}",
                "{:.2f}..{:.2f}".format(*one["bridge_over_hold_5_95"]),
            ]
            for name, one in groups.items()
        ],
    )


if __name__ == "__main__":
    main()
