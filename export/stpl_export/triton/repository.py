"""Writes a bundle as a model repository, which Triton serves as it is.

REPOSITORY/NAME_step/config.pbtxt
REPOSITORY/NAME_step/1/model.onnx
REPOSITORY/NAME_step/1/weights.safetensors
REPOSITORY/NAME_forecast/...
REPOSITORY/NAME_rollout/...

For the Python backend, `1/model.py` and `1/bundle/` stand in place of the graph; for a TensorRT
plan, `1/model.plan` and `1/plan.json`, which says what the plan reads and gives.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from stpl_core.bundle import MANIFEST, Bundle, EngineSpec, GraphName
from stpl_core.errors import UsageError
from stpl_core.files import atomic_directory, sha256_of
from stpl_export.triton.config import TYPES, Serving, config_text
from stpl_export.triton.lint import CONFIG, MODEL, PLAN, PLAN_FACTS, PYTHON_MODEL, VERSION
from stpl_runtime.engines.preflight import read_plan
from stpl_runtime.served.model import BUNDLE

GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


def write_repository(
    bundle: Bundle, out: Path, serving: Serving, graphs: Sequence[GraphName] = GRAPHS
) -> list[str]:
    """Write a repository, whole or not at all.

    Each model has a copy of the weights: a server may load one model and not another, and refuses
    links to files of others.

    Args:
        bundle: an opened bundle.
        out: the folder to make.
        serving: names and limits.
        graphs: which ones; those that the bundle lacks are left out.

    Returns:
        The names of the models.

    Raises:
        UsageError: `out` exists, a name that is none, or a state of a type that Triton lacks; or
            plans are asked for, and the bundle has none that fits.
        ChecksumError: the bundle's bytes have changed.
    """
    _check(bundle, serving)
    plans = _plans(bundle) if serving.backend == "tensorrt" else {}
    manifest = bundle.manifest
    checksum = sha256_of(bundle.file(MANIFEST))[:16]
    weights = [name for name in manifest.files if name.startswith("weights")]
    names = []
    with atomic_directory(out) as repository:
        for graph in graphs:
            if graph not in manifest.graphs:
                continue
            name = f"{serving.name}_{graph}"
            folder = repository / name / VERSION
            folder.mkdir(parents=True)
            if serving.backend == "python":
                _copy_bundle(bundle, folder)
            elif graph in plans:
                (folder / PLAN).write_bytes(read_plan(bundle, plans[graph]))
                facts = {"sha256": manifest.files[plans[graph].file].sha256, **plans[graph].details}
                (folder / PLAN_FACTS).write_text(json.dumps(facts, indent=2))
            else:
                shutil.copyfile(bundle.file(manifest.graphs[graph].file), folder / MODEL)
                for file in weights:
                    shutil.copyfile(bundle.file(file), folder / file)
            text = config_text(graph, manifest, checksum, serving, plans.get(graph))
            (repository / name / CONFIG).write_text(text)
            names.append(name)
    return names


def _plans(bundle: Bundle) -> dict[GraphName, EngineSpec]:
    """The TensorRT plans of a bundle that Triton can run: one sequence has one row."""
    ours = [spec for spec in bundle.manifest.engines if spec.engine == "trt"]
    found = {spec.graph: spec for spec in ours if spec.batch == 1}
    if not found:
        others = sorted({spec.engine for spec in bundle.manifest.engines} - {"trt"})
        what = "plans of TensorRT for batch 1" if ours else "plans of TensorRT"
        raise UsageError(
            f"{bundle.path} has no {what}"
            + (f", only {', '.join(others)}, which Triton does not run" if others else ""),
            expected="a bundle with plans, made on the server's GPU",
            fix="stpl-deploy export RUN --out BUNDLE --engine trt, or --backend onnxruntime",
        )
    return found


def _copy_bundle(bundle: Bundle, folder: Path) -> None:
    """What the Python backend runs: a bundle of its own, and who opens it."""
    for name in (MANIFEST, *bundle.manifest.files):
        path = folder / BUNDLE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.file(name), path)
    (folder / PYTHON_MODEL).write_text(
        '"""Run by Triton\'s Python backend, whose Python needs stpl-deploy[cpu]."""\n\n'
        "from stpl_runtime.served.model import TritonPythonModel\n\n"
        '__all__ = ["TritonPythonModel"]\n'
    )


def _check(bundle: Bundle, serving: Serving) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", serving.name):
        raise UsageError(
            f"--name {serving.name}",
            expected="letters, digits, and . _ - in between: it is a folder's name",
            fix="--name rain",
        )
    for spec in bundle.manifest.state:
        if spec.dtype not in TYPES:
            raise UsageError(
                f"the state {spec.name} is {spec.dtype}",
                expected=f"one of {', '.join(TYPES)}, which Triton keeps",
                fix="give it another type in the model's initial_state, and export again",
            )
