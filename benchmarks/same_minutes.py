"""The radar model and papers' models, on the same data for the same minutes; writes results/.

    python -m benchmarks.same_minutes --fmi FOLDER --knmi FOLDER [--only NAME ...] [--minutes 12]

Each trains on one thread for as many iterations as take --minutes of CPU, its learning rate going
down over just these; the radar model with three seeds. Then all forecast the same whole fields of
the last hours of KNMI, which none of them saw: the radar model at once, the others in tiles of
their size. A run that is already under --work is scored as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.whole_fields import at_once, scored
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text
from stpl_deploy.judging import open_judged
from stpl_runtime.evaluation.subject import Backend
from stpl_train.models.advect import Advect
from stpl_train.progress import make_reporter
from stpl_train.recipe import load_recipe
from stpl_train.run import WEIGHTS, open_run
from stpl_train.training import train

RESULT = Path(__file__).parent / "results" / "same-minutes.json"
_TRIED = 12
"""Iterations by which the time of one is found, beside the first two."""
_AUGMENT = (
    "data.augment.candidates=4", "data.augment.heavy=0.55", "data.augment.zoomed=0.0",
    "data.augment.every=[1]", "data.augment.turns=true", "data.augment.brighter=0.05",
)  # fmt: skip
"""Turned, mirrored and brightened, wet crops favoured; rain as fast and as large as it was. The
radar model's own recipe has the same, and faster rain too, as it is shipped."""
_SMALL = (
    *_AUGMENT, "model.hidden=32", "model.layers=2", "model.patch=4", 'model.output="residual"',
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A recipe with another model, perhaps, and settings."""

    recipe: str
    model: str | None = None
    settings: tuple[str, ...] = ()


MODELS = {
    **{
        f"advect, seed {seed}": Trained("radar-nowcast", settings=(f"training.seed={seed}",))
        for seed in (0, 1, 2)
    },
    "predrnn": Trained("predrnn-nowcast", "predrnn", (*_SMALL, "model.kernel=3")),
    "modernn": Trained("predrnn-nowcast", "modernn", _SMALL),
    "cms-lstm": Trained("predrnn-nowcast", "cms-lstm", _SMALL),
}


def train_for(one: Trained, seconds: float, settings: list[str], out: Path) -> float:
    """Train into `out`; the seconds of CPU that it took."""

    def asked(iterations: int) -> Any:
        last = (f"training.iterations={iterations}", "training.threads=1")
        return load_recipe(one.recipe, [*settings, *one.settings, *last], one.model)

    # The first of all reads the archives.
    _, few, more = [_timed(asked(n), out.with_name(f"{out.name}-{n}")) for n in (1, 2, 2 + _TRIED)]
    each = (more - few) / _TRIED
    # Should it take longer: SIGINT, by a timer of CPU time, ends it.
    return _timed(asked(round(seconds / each)), out, seconds * 1.1, keep=True)


def _timed(recipe: Any, out: Path, most: float = 600.0, *, keep: bool = False) -> float:
    signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, most)
    try:
        train(recipe, out, device="cpu", reporter=make_reporter(quiet=not keep))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if not keep:
            shutil.rmtree(out, ignore_errors=True)
    return time.process_time() - begin


def judged(run: Path, archives: list[Path]) -> dict[str, Any]:
    """Its scores on whole fields."""
    subject = open_judged(run, backend=Backend(threads=1), testing=True)
    subject = replace(subject, data={**subject.data, "path": archives})
    if isinstance(open_run(run).model(), Advect):
        subject = at_once(subject, run)
    return scored(subject, None, part="test", stride=2)


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one."""
    archives: list[Path] = [given.fmi, given.knmi]
    paths = ", ".join(f'"{path}"' for path in archives)
    run: Path = given.work / name.replace(", ", "-").replace(" ", "-")
    note = run.with_name(f"{run.name}.seconds")
    if not (run / WEIGHTS).is_file():
        settings = [f"data.path=[{paths}]", *given.settings]
        note.write_text(str(train_for(MODELS[name], given.minutes * 60, settings, run)))
    opened = open_run(run)
    return {
        "name": name,
        "iterations": opened.recipe.training.iterations,
        "parameters": sum(tensor.numel() for tensor in opened.model().parameters()),
        "cpu_seconds": round(float(note.read_text())),
        **judged(run, archives),
    }


def main() -> None:
    """Train what is missing, judge all, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--knmi", type=Path, required=True, help="folder of its files")
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--minutes", type=float, default=12.0, help="of CPU, each")
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in given.only:
        row = measure(name, given)
        before = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else []
        rows = {one["name"]: one for one in (*before, row)}
        kept = [rows[one] for one in MODELS if one in rows]
        with atomic_file(RESULT) as file:
            made = {"minutes": given.minutes, "rows": kept, "machine": describe()}
            file.write(document_text(made).encode())
        sys.stdout.write(f"{name}: {row['iterations']} iterations, {row['cpu_seconds']} s\n")


if __name__ == "__main__":
    main()
