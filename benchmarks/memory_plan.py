"""Holds the planned memory against what each verb then really took, in processes of their own.

    python benchmarks/memory_plan.py

For three models, `train`, `export` and `predict --grid` run in a child
process. What it had resident when it planned is taken off the greatest that it had later; the plan
over that is the ratio. Writes benchmarks/results/memory-plan.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.files import atomic_file
from stpl_core.machine import describe

HERE = Path(__file__).parent
RESULT = HERE / "results" / "memory-plan.json"
CHILD = """
import json, re, sys
from stpl_core.host import memory
import stpl_core.host.memory as host

def resident(key):
    found = re.search(rf"^{key}:\\s+(\\d+) kB", open("/proc/self/status").read(), re.MULTILINE)
    return int(found[1]) * 1024

plans = []
require = host.require_memory

def recorded(needed, what, fix, room=None):
    plans.append({"planned": needed, "resident": resident("VmRSS"), "what": what})
    return require(needed, what, fix, room)

host.require_memory = recorded
from stpl_deploy.cli import run
code = run(sys.argv[1:])
print(json.dumps({"code": code, "peak": resident("VmHWM"), "plans": plans}), file=sys.stderr)
"""
MODELS: dict[str, dict[str, object]] = {
    "convlstm": {"model.hidden": [32, 32]},
    "predrnn-v2": {"model.hidden": 32, "model.layers": 2},
    "modernn": {"model.hidden": 32, "model.layers": 2},
}
SIZES = (64,)
SETTINGS = {
    "model.patch": 2,
    "data.context": 6,
    "data.horizon": 6,
    "data.validation_sequences": 4,
    "training.iterations": 2,
    "training.batch": 4,
    "training.threads": 2,
}
GRID = 448


def main() -> int:
    """Run them all and write the table."""
    rows = []
    for model in MODELS:
        for size in SIZES:
            with tempfile.TemporaryDirectory(prefix="stpl-memory-") as folder:
                for row in _verbs(model, size, Path(folder)):
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    document = {
        "machine": describe(),
        "models": MODELS,
        "settings": SETTINGS,
        "grid": GRID,
        "rows": rows,
    }
    with atomic_file(RESULT) as file:
        file.write((json.dumps(document, indent=2) + "\n").encode())
    return 0


def _verbs(model: str, size: int, folder: Path) -> Iterator[dict[str, Any]]:
    settings = SETTINGS | MODELS[model] | {"data.frame": [1, size, size]}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run, bundle = folder / "run", folder / "bundle"
    recipe = ["modernn-mini", "--model", model, "--device", "cpu"]
    yield _measured("train", model, size, *recipe, "--out", str(run), *words)
    yield _measured("export", model, size, str(run), "--out", str(bundle))
    frames = np.random.default_rng(0).random((6, 1, GRID, GRID), np.float32)  # (T, C, H, W)
    np.save(folder / "frames.npy", frames)
    grid = ["--grid", f"{GRID}x{GRID}", "--out", str(folder / "out.npz")]
    yield _measured("predict", model, size, str(bundle), str(folder / "frames.npy"), *grid)


def _measured(verb: str, model: str, size: int, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, verb, *words], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    if not last.startswith("{") or json.loads(last)["code"]:
        raise SystemExit(done.stderr)
    found = json.loads(last)
    if not found["plans"]:  # a graph whose values are not all of a known size
        return {"verb": verb, "model": model, "frame": size, "planned_mb": None}
    (plan,) = found["plans"]
    taken = found["peak"] - plan["resident"]
    return {
        "verb": verb,
        "model": model,
        "frame": size,
        "planned_mb": round(plan["planned"] / 1e6, 1),
        "taken_mb": round(taken / 1e6, 1),
        "ratio": round(plan["planned"] / taken, 3),
    }


if __name__ == "__main__":
    raise SystemExit(main())
