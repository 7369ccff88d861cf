"""The shipped model beside flow on whole radar fields, and on windows; writes benchmarks/results/.

    python benchmarks/whole_fields.py --fmi FOLDER --knmi FOLDER

Whole fields are what a nowcast is made of: the model covers them in tiles, and flow sees what comes
in. Windows of the model's size, cut first, are how training validates and how these scores were
made before. Both use the same frames: of KNMI the part that training never read, of FMI all of
them, which it did. Nowcasts start every --stride frames.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.output import document_text
from stpl_deploy.judging import open_judged
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import Evaluation, evaluate
from stpl_runtime.evaluation.subject import Backend, Judged

RESULT = Path(__file__).parent / "results" / "whole-fields.json"
MODEL = "pretrained:radar-nowcast"
DATA = {
    "KNMI": "26 August 2010, 05:30 to 07:35, which training never read",
    "FMI": "28 September 2016, 14:45 to 18:00, which it was trained on",
}
"""KNMI and FMI open data, CC BY 4.0."""


def scored(judged: Judged, windows: bool, **where: Any) -> dict[str, Any]:
    """The scores of one set under one protocol."""
    material = archive_material(judged, windows=windows, **where)
    if material.field is not None:
        judged = judged.covering(material.field)
    return document(evaluate(judged, material, baselines=["persistence", "flow"]))


def document(evaluation: Evaluation) -> dict[str, Any]:
    """Its scores per lead time, without the spectra and without where the data lies."""
    made = evaluation.document()
    for key in ("spectrum_of_truth", "data", "model", "engine"):
        made.pop(key)
    made["scores"] = {name: one["per_lead"] for name, one in made["scores"].items()}
    return made


def main() -> None:
    """Score both sets under both protocols and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--knmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--stride", type=int, default=4, help="frames from nowcast to nowcast")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    judged = open_judged(Path(MODEL), backend=Backend(threads=given.threads), testing=True)
    judged = replace(judged, data={**judged.data, "path": [given.fmi, given.knmi]})
    where: dict[str, dict[str, Any]] = {"KNMI": {"part": "test"}, "FMI": {"path": given.fmi}}
    found = {
        name: {
            "about": DATA[name],
            "field": scored(judged, False, stride=given.stride, **one),
            "windows": scored(judged, True, stride=given.stride, **one),
        }
        for name, one in where.items()
    }
    result = {"model": MODEL, "stride": given.stride, "sets": found, "machine": describe()}
    with atomic_file(RESULT) as file:
        file.write(document_text(result).encode())


if __name__ == "__main__":
    main()
