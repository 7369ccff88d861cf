"""Radar models beside persistence and flow on KNMI's whole field; writes benchmarks/results/.

    python benchmarks/whole_field_models.py --fmi FOLDER --knmi FOLDER [MODEL ...]

A model whose weights know no grid is exported for the whole field; --tiled names those that cover
it in tiles of their own size, as a stream would. Every way reads the same frames and is judged on
the same pixels, those that were observed throughout: no way lacks what comes in over an edge. The
frames are the test part of the two archives, which training never reads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.output import document_text
from stpl_deploy.judging import open_judged
from stpl_export.export import export_run
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import evaluate
from stpl_runtime.evaluation.subject import Backend
from stpl_train.pretrained import run_path

RESULT = Path(__file__).parent / "results" / "whole-field-models.json"
FIELD = (765, 700)
"""KNMI's, rows and columns."""
SHOWN = ("mse", "csi_0.1", "csi_1", "csi_5", "bias_5")
LEADS = (1, 3, 6, 12)


def judge(model: str, tiled: bool, given: argparse.Namespace) -> dict[str, Any]:
    """Scores per lead time of one model and of the baselines."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        grid = None if tiled else FIELD
        export_run(run_path(Path(model)), bundle, grid=grid, sequences=1)
        domain = FIELD if tiled else None
        judged = open_judged(
            bundle, backend=Backend(threads=given.threads), testing=True, domain=domain
        )
        judged = replace(judged, data={**judged.data, "path": [given.fmi, given.knmi]})
        material = archive_material(judged, part="test", stride=given.stride)
        began = time.process_time()
        found = evaluate(judged, material, baselines=["persistence", "flow"])
        seconds = time.process_time() - began
    made = found.document()
    return {
        "model": model,
        "tiled": tiled,
        "windows": found.sequences,
        "cpu_seconds": round(seconds, 1),
        "scores": {way: one["per_lead"] for way, one in made["scores"].items()},
    }


def markdown(results: list[dict[str, Any]]) -> str:
    """A table of every model, with flow and persistence beside them."""
    ways = {one["model"].removeprefix("pretrained:"): one["scores"]["model"] for one in results}
    ways |= {way: results[0]["scores"][way] for way in ("flow", "persistence")}
    lines = ["| score | model | " + " | ".join(f"{5 * lead} min" for lead in LEADS) + " |"]
    lines.append("|---|---|" + "---|" * len(LEADS))
    for score in SHOWN:
        for way, scores in ways.items():
            if score in scores:
                cells = [f"{scores[score][lead - 1]:.3g}" for lead in LEADS]
                lines.append(f"| {score} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def wins(result: dict[str, Any], over: str) -> dict[str, int]:
    """Lead times at which the model is at least as good, of each score."""
    ours, theirs = result["scores"]["model"], result["scores"][over]
    return {
        score: sum(
            (a <= b) if score == "mse" else (a >= b)
            for a, b in zip(ours[score], theirs[score], strict=True)
        )
        for score in SHOWN
        if not score.startswith("bias")
    }


def main() -> None:
    """Judge, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["pretrained:radar-advect"])
    parser.add_argument("--tiled", nargs="*", default=["pretrained:radar-nowcast"])
    parser.add_argument("--fmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--knmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--stride", type=int, default=2, help="frames from nowcast to nowcast")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    asked = [(model, False) for model in given.models] + [(one, True) for one in given.tiled]
    results = [judge(model, tiled, given) for model, tiled in asked]
    made = {"field": list(FIELD), "stride": given.stride, "models": results, "machine": describe()}
    with atomic_file(given.out) as file:
        file.write(document_text(made).encode())
    sys.stdout.write(markdown(results))
    for one in results:
        for over in ("flow", "persistence"):
            sys.stdout.write(f"{one['model']} at least as good as {over}: {wins(one, over)}\n")


if __name__ == "__main__":
    main()
