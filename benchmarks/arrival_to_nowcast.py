"""From a frame's arrival to its nowcast, for full-size models; writes benchmarks/results/.

    python benchmarks/arrival_to_nowcast.py [--rounds 30] [RECIPE ...]

Untrained weights: time does not depend on them. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch

from stpl_core.files import atomic_file
from stpl_deploy.cli.reports.output import document_text
from stpl_export.bench import bench_bundle, save_chart
from stpl_export.export import export_run
from stpl_train import run as runs
from stpl_train.models import build_model
from stpl_train.recipe import load_recipe

RESULTS = Path(__file__).parent / "results"
RECIPES = ("modernn-mmnist", "convlstm-mmnist", "modernn-mini")


def untrained_run(path: Path, name: str) -> Path:
    """Write a run directory with fresh weights and random frames."""
    recipe = load_recipe(name)
    frame = recipe.data.frame
    assert frame is not None
    path.mkdir()
    runs.save_recipe(path, recipe)
    model = build_model(recipe.model.name, frame, recipe.model.keys)
    safetensors.torch.save_file(model.state_dict(), path / runs.WEIGHTS)
    length = recipe.data.context + recipe.data.horizon
    frames = np.random.default_rng(0).random((2, length, *frame), dtype=np.float32)
    runs.save_validation(path, frames)
    return path


def main() -> None:
    """Bench each recipe and write its JSON and chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    for name in arguments.recipes:
        with tempfile.TemporaryDirectory() as folder:
            run = untrained_run(Path(folder) / "run", name)
            bundle = export_run(run, Path(folder) / name, sequences=2)
            report = bench_bundle(bundle, rounds=arguments.rounds)
        with atomic_file(RESULTS / f"arrival-{name}.json") as file:
            file.write(document_text(report.document()).encode())
        save_chart(report, RESULTS / f"arrival-{name}.svg")
        for row in report.rows:
            sys.stdout.write(f"{name:16} {row.name:18} {row.median_ms:8.1f} ms\n")
        for ratio in report.ratios:
            sys.stdout.write(f"{name:16} {ratio.name:24} {ratio.times:.2f}\n")


if __name__ == "__main__":
    main()
