"""The shipped model beside flow on whole radar fields, and on windows; writes benchmarks/results/.

    python benchmarks/whole_fields.py --fmi FOLDER --knmi FOLDER --mrms FILE

Whole fields are what a nowcast is made of, and flow sees what comes in. The model sees them at
once, as a bundle of `export --grid` does. Windows of its size, cut first, are how training
validates. Of KNMI it is the part that training never read (the last of both folders), of MRMS an
hour that had no part in anything. Nowcasts start every --stride frames.
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
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import Evaluation, evaluate
from stpl_runtime.evaluation.subject import Backend, Judged
from stpl_train.run import open_run
from stpl_train.validation import forecasts

RESULT = Path(__file__).parent / "results" / "whole-fields.json"
MODEL = "pretrained:radar-nowcast"
DATA = {
    "KNMI": "26 August 2010, 05:30 to 07:35, which training never read",
    "MRMS": "10 June 2019, 00:00 to 01:10, 5.1 by 7.7 degrees of the United States, every second "
    "of its frames: 4 minutes apart where training had 5. Another country, and nothing of it had a "
    "part in training, thresholds or choices",
}
"""KNMI open data, CC BY 4.0; MRMS of NOAA, a work of the US Government."""


def at_once(judged: Judged) -> Judged:
    """The same weights on a whole field, as a bundle of `export --grid` has them."""

    def covering(field: tuple[int, int]) -> Judged:
        _, model = regrid(open_run(Path(MODEL)), field)
        below, right = (
            made - asked for made, asked in zip(model.frame_shape[1:], field, strict=True)
        )

        def forecast(frames: Array) -> Array:
            edges = ((0, 0), (0, judged.horizon), (0, 0), (0, below), (0, right))
            inside = judged.codec.model_from_physical(frames)  # (N, T, C, H, W)
            made = forecasts(model, np.pad(inside, edges, mode="edge"), judged.context, 1)
            return judged.codec.physical_from_model(made[..., : field[0], : field[1]])

        return replace(judged, frame=(judged.frame[0], *field), forecast=forecast, cover=None)

    return replace(judged, cover=covering)


def scored(judged: Judged, windows: bool, **where: Any) -> dict[str, Any]:
    """The scores of one set under one protocol."""
    material = archive_material(judged, windows=windows, any_grid=True, **where)
    if material.field is not None:
        judged = judged.covering(material.field)
    return document(evaluate(judged, material, baselines=["persistence", "flow"], scales=()))


def document(evaluation: Evaluation) -> dict[str, Any]:
    """Its scores per lead time, without the spectra and without where the data lies."""
    made = evaluation.document()
    for key in ("spectrum_of_truth", "data", "model", "engine"):
        made.pop(key)
    made["scores"] = {name: one["per_lead"] for name, one in made["scores"].items()}
    return made


def main() -> None:
    """Score the sets under each protocol and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--knmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--mrms", type=Path, required=True, help="an archive, 2 minutes apart")
    parser.add_argument("--stride", type=int, default=2, help="frames from nowcast to nowcast")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    judged = open_judged(Path(MODEL), backend=Backend(threads=given.threads), testing=True)
    judged = replace(judged, data={**judged.data, "path": [given.fmi, given.knmi]})
    faster = {**judged.data, "path": given.mrms, "every": 2, "cadence_s": 240.0}
    mrms = replace(judged, data=faster, cadence_s=240.0)
    torch.set_num_threads(given.threads)
    test = {"part": "test", "stride": given.stride}
    sets = {
        "KNMI": [
            scored(at_once(judged), False, **test),
            scored(judged, True, **test),
        ],
        "MRMS": [scored(at_once(mrms), False, path=given.mrms, stride=1)],
    }
    found = {name: {"about": DATA[name], "protocols": sets[name]} for name in sets}
    result = {"model": MODEL, "stride": given.stride, "sets": found, "machine": describe()}
    with atomic_file(RESULT) as file:
        file.write(document_text(result).encode())


if __name__ == "__main__":
    main()
