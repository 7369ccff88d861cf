"""The shipped model beside flow on whole radar fields, and on windows; writes benchmarks/results/.

    python -m benchmarks.whole_fields --fmi FOLDER --knmi FOLDER

Whole fields are what a nowcast is made of, and flow sees what comes in. The model sees them at
once, as a bundle of `export --grid` does. Windows of its size, cut first, are how training
validates. It is the part of KNMI that training never read, the last of the folders. Events that
training never saw are in benchmarks/leave_one_out.py. Nowcasts start every --stride frames.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text
from stpl_deploy.judging import open_judged
from stpl_export.regrid import regrid
from stpl_runtime.chances import Chances
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import Evaluation, evaluate
from stpl_runtime.evaluation.subject import Backend, Judged
from stpl_train.models.advect import Advect
from stpl_train.run import open_run

RESULT = Path(__file__).parent / "results" / "whole-fields.json"
MODEL = "pretrained:radar-nowcast"
DATA = {
    "KNMI": "26 August 2010, 05:30 to 07:35, which training never read",
}
"""KNMI open data, CC BY 4.0."""
SIDES = (None, 256, 192, 128)
"""Whole fields, and windows."""


def at_once(judged: Judged, run: Path) -> Judged:
    """The same weights on a whole field, as a bundle of `export --grid` has them."""

    def covering(field: tuple[int, int]) -> Judged:
        _, model = regrid(open_run(run), field)
        assert isinstance(model, Advect)
        levels = judged.codec.physical_from_model(model.levels.numpy())
        thresholds = tuple(float(f"{level:.4g}") for level in levels)

        def likely(frames: Array) -> tuple[Array, Chances]:
            made = [forecast_at_once(model, judged, one) for one in frames]
            values, chances = (np.stack(part) for part in zip(*made, strict=True))
            return values, Chances(thresholds, chances)

        return replace(judged, frame=(judged.frame[0], *field), cover=None, likely=likely,
                       forecast=lambda frames: likely(frames)[0])  # fmt: skip

    return replace(judged, cover=covering)


@torch.no_grad()
def forecast_at_once(model: Advect, judged: Judged, frames: Array) -> tuple[Array, Array]:
    """`(T, C, H, W)`, physical -> `(K, C, H, W)`, physical, and chances `(K, Q, C, H, W)`."""
    size = frames.shape[-2:]
    below, right = (made - had for made, had in zip(model.frame_shape[1:], size, strict=True))
    inside = judged.codec.model_from_physical(frames)
    padded = np.pad(inside, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
    every = tuple(range(1, judged.horizon + 1))
    guess, chance = model.matched_forecasts(torch.from_numpy(padded[None]), every)
    values = judged.codec.physical_from_model(guess[0].clamp(0, 1).numpy())
    return values[..., : size[0], : size[1]], chance[0].numpy()[..., : size[0], : size[1]]


def scored(judged: Judged, side: int | None, **where: Any) -> dict[str, Any]:
    """The scores on whole fields, or on windows of a side that are cut first."""
    if side is None:
        material = archive_material(judged, **where)
    else:
        cut = replace(judged, frame=(1, side, side))
        material = archive_material(cut, windows=True, **where)
    assert judged.cover is not None
    height, width = material.frames.shape[-2:]
    judged = judged.cover((height, width))
    return document(evaluate(judged, material, baselines=["persistence", "flow"], scales=()))


def document(evaluation: Evaluation) -> dict[str, Any]:
    """What the tables and their readers need of it."""
    made = evaluation.document()
    for key in ("spectrum_of_truth", "data", "model", "engine", "blocks"):
        made.pop(key)
    made["scores"] = {
        name: {
            score: values
            for score, values in one["per_lead"].items()
            if score.startswith(("mse", "rmse", "csi", "bias"))
        }
        for name, one in made["scores"].items()
    }
    if made.get("chances") is not None:
        chances = made["chances"]["by_threshold"]
        kept = ("threshold", "skill", "reliability", "roc_area")
        made["chances"] = {"by_threshold": [{key: one[key] for key in kept} for one in chances]}
    return {key: value for key, value in made.items() if not key.startswith("difference")}


def main() -> None:
    """Score the sets under each protocol and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--knmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--run", type=Path, default=Path(MODEL), help="in its place")
    parser.add_argument("--stride", type=int, default=2, help="frames from nowcast to nowcast")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    judged = open_judged(given.run, backend=Backend(threads=given.threads), testing=True)
    judged = replace(judged, data={**judged.data, "path": [given.fmi, given.knmi]})
    torch.set_num_threads(given.threads)
    judged = at_once(judged, given.run)
    protocols = [scored(judged, side, part="test", stride=given.stride) for side in SIDES]
    sets = {"KNMI": protocols}
    found = {name: {"about": DATA[name], "protocols": sets[name]} for name in sets}
    result = {"model": MODEL, "stride": given.stride, "sets": found, "machine": describe()}
    with atomic_file(RESULT) as file:
        file.write(document_text(result).encode())


if __name__ == "__main__":
    main()
