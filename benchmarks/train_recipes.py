"""Train a recipe on given data and judge it on its test part; writes benchmarks/results/.

    python benchmarks/train_recipes.py predrnn-nowcast --data FMI_FOLDER KNMI_FOLDER --domain 256
    python benchmarks/train_recipes.py camera --data VIDEO.mp4
    python benchmarks/train_recipes.py era5-t2m --data ERA5.grib

The run lies under --work and is resumed if it was begun before; training stops after --minutes.
Windows of the test part start every --stride frames. --domain judges a model of tiles on larger
ones (models without a norm over the grid take any), where less comes in over the edge.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text
from stpl_deploy.judging import open_judged
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import Evaluation, evaluate
from stpl_runtime.evaluation.subject import Backend
from stpl_train.checkpoint import load_training
from stpl_train.progress import make_reporter
from stpl_train.recipe import load_recipe
from stpl_train.run import RECIPE, TRAINING, WEIGHTS, Run, open_run, save_recipe
from stpl_train.training import train

RESULTS = Path(__file__).parent / "results"


def train_recipe(arguments: argparse.Namespace) -> Path:
    """Train into the work folder, or go on there, for --minutes at most; 0 trains nothing."""
    paths = ", ".join(f'"{path}"' for path in arguments.data)
    settings = [f"data.path=[{paths}]", *arguments.settings]
    recipe = load_recipe(arguments.recipe, settings)
    out: Path = arguments.work / arguments.recipe
    if arguments.minutes == 0:
        return out
    # What Ctrl-C does: the iteration is finished and its state saved.
    stop = threading.Timer(arguments.minutes * 60, os.kill, (os.getpid(), signal.SIGINT))
    stop.daemon = True
    stop.start()
    try:
        going_on = (out / RECIPE).is_file()
        train(
            None if going_on else recipe,
            out,
            resume=True,
            device=arguments.device,
            reporter=make_reporter(quiet=False),
        )
    finally:
        stop.cancel()
    return out


def judge(run: Path, stride: int) -> Evaluation:
    """Score the run on the test part of its data."""
    judged = open_judged(run, backend=Backend(threads=1), testing=True)
    return evaluate(judged, archive_material(judged, part="test", stride=stride))


def widened(run: Path, side: int) -> Path:
    """The same weights for tiles of another side."""
    opened = open_run(run)
    recipe, path = opened.recipe, run.with_name(f"{run.name}-{side}")
    frame = (opened.frame_shape[0], side, side)
    data = recipe.data.model_copy(update={"frame": frame})
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    save_recipe(path, recipe.model_copy(update={"data": data}))
    shutil.copy(run / WEIGHTS, path)
    return path


def wall_seconds(run: Run) -> float:
    """From the start of the run to its last saved state, pauses included."""
    return run.file(TRAINING).stat().st_mtime - run.file(RECIPE).stat().st_mtime


def document(evaluation: Evaluation) -> dict[str, Any]:
    """Its scores, without the spectra and without where the data lies."""
    made = evaluation.document()
    made.pop("spectrum_of_truth")
    for scores in made["scores"].values():
        scores.pop("spectrum")
    made["data"] = "test part"
    return made


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--about", default="", help="the data in words, with its licence")
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--minutes", type=float, default=30.0, help="of training at most")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--cpu-seconds", type=float, help="CPU time of earlier calls for this run")
    parser.add_argument("--domain", type=int, help="side of larger tiles to judge on as well")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    before = time.process_time()
    path = train_recipe(arguments)
    used = time.process_time() - before
    results = {f"{arguments.recipe}": judge(path, arguments.stride)}
    if arguments.domain is not None:
        wide = widened(path, arguments.domain)
        results[f"{arguments.recipe}-{arguments.domain}"] = judge(wide, arguments.stride)
    run = open_run(path)
    progress = load_training(run.file(TRAINING)).progress
    assert progress.best is not None, "judged already"
    made = {
        "recipe": arguments.recipe,
        "settings": arguments.settings,
        "about": arguments.about,
        "iterations": progress.iteration,
        "best_iteration": progress.best.iteration,
        "parameters": sum(tensor.numel() for tensor in run.model().parameters()),
        "seconds": round(wall_seconds(run), 1),
        "cpu_seconds": round(used + (arguments.cpu_seconds or 0.0), 1),
        "threads": run.recipe.training.threads,
        "device": arguments.device,
        "evaluations": [document(evaluation) for evaluation in results.values()],
        "machine": describe(),
    }
    with atomic_file(RESULTS / f"recipe-{arguments.recipe}.json") as file:
        file.write(document_text(made).encode())
    for name, evaluation in results.items():
        print_scores(name, evaluation)


def print_scores(name: str, evaluation: Evaluation) -> None:
    """Print MSE and CSI per lead time."""
    chosen = ["mse", *(score for score in evaluation.names if score.startswith("csi"))]
    for score in chosen:
        for way, scores in evaluation.scores.items():
            leads = " ".join(f"{value:9.4g}" for value in scores.per_lead[score])
            sys.stdout.write(f"{name} {score:8} {way:12} {leads}\n")


if __name__ == "__main__":
    main()
