"""int8 beside fp32 and PyTorch on this CPU, full-size models; writes benchmarks/results/int8.json.

    python benchmarks/int8.py [--rounds 15] [MODEL ...]

Frames are 1x64x64 in patches of 4, four layers of 64, ten frames in and ten out, batch 1; and the
small trained run of tests/data, the only one whose accuracy means something: the others have fresh
weights, on which time does not depend. All ways of a model run in turn in one process:

    pytorch-eager    T + K - 1 steps
    unrolled         one call of the rollout graph
    prewarmed        one call of the forecast graph, its prefix run before

Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from stpl_core.bundle import Bundle
from stpl_core.errors import AccuracyError
from stpl_core.files import atomic_file
from stpl_core.machine import describe, usable_cpus
from stpl_deploy.cli.reports.output import document_text
from stpl_export.export import export_run
from stpl_runtime.engine import Session, open_session
from stpl_runtime.proof.reference import load_reference
from stpl_train import run as runs
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.forecaster import rollout
from stpl_train.models import build_model
from stpl_train.recipe import parse_recipe

HERE = Path(__file__).parent
RESULT = HERE / "results" / "int8.json"
TRAINED = HERE.parent / "tests" / "data" / "modernn-mini"
FRAME, LENGTH = (1, 64, 64), 10
MODELS: dict[str, dict[str, Any]] = {
    "convlstm": {"hidden": [64] * 4},
    "modernn": {"hidden": 64, "layers": 4},
    "predrnn": {"hidden": 64, "layers": 4},
}


def untrained_run(path: Path, name: str) -> Path:
    """Write a run directory with fresh weights and moving digits."""
    keys = {"name": name, "patch": 4, **MODELS[name]}
    data = {"source": "synthetic", "frame": FRAME, "context": LENGTH, "horizon": LENGTH}
    recipe = parse_recipe({"model": keys, "data": data, "training": {"iterations": 1}})
    path.mkdir()
    runs.save_recipe(path, recipe)
    model = build_model(name, FRAME, recipe.model.keys)
    safetensors.torch.save_file(model.state_dict(), path / runs.WEIGHTS)
    runs.save_validation(path, stand_in_sequences(FRAME, 2 * LENGTH, 4))
    return path


def _ways(
    name: str, session: Session, frames: np.ndarray[Any, Any]
) -> dict[str, Callable[[], Any]]:
    state = session.zero_state(1)
    for t in range(frames.shape[1] - 1):
        _, state = session.step(np.ascontiguousarray(frames[:, t]), state)
    newest = np.ascontiguousarray(frames[:, -1])
    return {
        f"{name}-unrolled": lambda: session.rollout(frames),
        f"{name}-prewarmed": lambda: session.forecast(newest, state),
    }


def times_in_turn(run: Path, bundles: dict[str, Bundle], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every way, each once a round, in a new order."""
    frames = load_reference(bundles["fp32"]).context[:1]  # (1, T, C, H, W)
    opened = runs.open_run(run)
    model, horizon = opened.model(), opened.recipe.data.horizon
    torch.set_num_threads(usable_cpus())

    def eager() -> Any:
        with torch.inference_mode():
            return rollout(model, torch.from_numpy(frames), horizon)

    calls: dict[str, Callable[[], Any]] = {"pytorch-eager": eager}
    for name, bundle in bundles.items():
        calls |= _ways(name, open_session(bundle, ["step", "forecast", "rollout"]), frames)
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0)
    for n in range(rounds + 2):
        shuffle.shuffle(order)
        for name in order:
            begin = time.perf_counter()
            calls[name]()
            if n >= 2:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def measure(name: str, run: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """One model's row."""
    row: dict[str, Any] = {"model": name, "weights": "trained" if run == TRAINED else "fresh"}
    bundles = {"fp32": export_run(run, folder / "fp32", sequences=2)}
    try:
        int8 = export_run(run, folder / "int8", precision="int8", keep_slower=True)
    except AccuracyError as error:
        return row | {"refused": str(error)}
    bundles["int8"] = int8
    times = times_in_turn(run, bundles, rounds)
    medians = {way: float(np.median(each)) for way, each in times.items()}
    pairs = {
        "int8_vs_fp32_prewarmed": ("fp32-prewarmed", "int8-prewarmed"),
        "int8_vs_fp32_unrolled": ("fp32-unrolled", "int8-unrolled"),
        "fp32_prewarmed_vs_eager": ("pytorch-eager", "fp32-prewarmed"),
        "int8_prewarmed_vs_eager": ("pytorch-eager", "int8-prewarmed"),
    }
    facts, report = int8.manifest.int8, int8.manifest.accuracy
    assert facts is not None
    assert facts.speed is not None
    assert report is not None
    whole = [check for check in report.checks if check.batch == report.sequences]
    return row | {
        "parameters": int8.manifest.model.parameters,
        "convolution_share": int8.manifest.convolution_share,
        "median_ms": {way: round(value, 2) for way, value in medians.items()},
        "times": {key: round(medians[a] / medians[b], 2) for key, (a, b) in pairs.items()},
        "spread": {
            key: [round(float(v), 2) for v in np.percentile(np.divide(times[a], times[b]), (5, 95))]
            for key, (a, b) in pairs.items()
        },
        "as_export_measured": facts.speed.model_dump(),
        "psnr_to_pytorch_db": [
            min(lead.psnr_db or 200.0 for lead in leads)
            for leads in zip(*(check.leads for check in whole), strict=True)
        ],
        "psnr_to_truth_change_db": min(
            check.int8.psnr_change_db for check in whole if check.int8 is not None
        ),
    }


def main() -> None:
    """Measure each model and write all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["trained", *MODELS])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            run = TRAINED if name == "trained" else untrained_run(folder / "run", name)
            rows.append(measure(name, run, folder, arguments.rounds))
        sys.stdout.write(f"{rows[-1]}\n")
        sys.stdout.flush()
    document = {
        "frame": FRAME,
        "context": LENGTH,
        "horizon": LENGTH,
        "rounds": arguments.rounds,
        "threads": usable_cpus(),
        "rows": rows,
        "machine": describe(),
    }
    with atomic_file(arguments.out) as file:
        file.write(document_text(document).encode())


if __name__ == "__main__":
    main()
