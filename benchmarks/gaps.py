"""What missing frames cost, held and bridged; writes benchmarks/results/gaps.json.

    python benchmarks/gaps.py BUNDLE RECIPE [--sequences 100] [--frames 50] [--loss 0.1]

Streams of moving digits that the model has not seen go through the nowcaster three times: with
frames missing at random and `hold`, the same ones with `bridge`, and with none missing. The mean
squared error of the nowcasts against the true frames is told for all nowcasts that all three
streams made, and for those that depend on a stand-in; by lead time and by how many frames before
the newest one the missing frame was. RECIPE (or the run's folder) says how the digits move.
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

from stpl_deploy.bundle import Bundle, open_bundle
from stpl_deploy.cli.output import document_text, print_table
from stpl_deploy.codec import Array
from stpl_deploy.files import atomic_file
from stpl_deploy.frames import Frame
from stpl_runtime.engine import Session, open_session
from stpl_runtime.nowcaster import Nowcaster
from stpl_runtime.standins import OnGap
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
    stand_ins: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    """How many slots before the newest, for each slot that had none of its own."""

    def mean(self, keys: Sequence[Key]) -> NDArray[np.float64]:
        """`(K,)` over these nowcasts."""
        return np.asarray(np.mean([self.squares[key] for key in keys], axis=0))


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
            back = [context - 1 - k for k, how in enumerate(nowcast.stand_ins) if how]
            out.stand_ins[key] = tuple(back)
    return out


def compare(errors: Mapping[str, Errors]) -> dict[str, dict[str, Any]]:
    """Errors by group of nowcasts, over those that all streams made."""
    held = errors["hold"]
    keys = sorted(set.intersection(*(set(one.squares) for one in errors.values())))
    groups = {
        "all nowcasts": keys,
        "those with a stand-in": [key for key in keys if held.stand_ins[key]],
    }
    for back in sorted({one[0] for key in keys if len(one := held.stand_ins[key]) == 1}):
        name = f"the only one {back} before the newest"
        groups[name] = [key for key in keys if held.stand_ins[key] == (back,)]
    return {
        name: {
            "nowcasts": len(of),
            **{how: one.mean(of).tolist() for how, one in errors.items()},
            "bridge_over_hold": float(errors["bridge"].mean(of).mean() / held.mean(of).mean()),
            "whole_over_hold": float(errors["whole"].mean(of).mean() / held.mean(of).mean()),
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
    errors = {
        "hold": stream_errors(bundle, session, streams, given.loss, "hold"),
        "bridge": stream_errors(bundle, session, streams, given.loss, "bridge"),
        "whole": stream_errors(bundle, session, streams, 0.0, "reset"),
    }
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
        ["", "nowcasts", "hold", "bridge", "none missing", "bridge / hold"],
        [
            [
                name,
                str(one["nowcasts"]),
                *(f"{np.mean(one[how]):.5f}" for how in ("hold", "bridge", "whole")),
                f"{one['bridge_over_hold']:.3f}",
            ]
            for name, one in groups.items()
        ],
    )


if __name__ == "__main__":
    main()
