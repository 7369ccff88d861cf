"""Build times and sizes of TensorRT-RTX plans of full-size models; writes benchmarks/results/.

    python benchmarks/plan_builds.py [--graphs step,rollout] [--precisions fp16] [MODEL ...]

Untrained weights: neither time nor size depends on them. No GPU is needed. Frames are 1x64x64 in
patches of 4, four layers of 64, ten frames in and ten out, batch 1, one plan for compute
capabilities 8.0, 8.6, 8.9 and 12.0. The cache is not used. Rows are added to what an earlier run
wrote; a model's same row is replaced.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import onnx

from stpl_deploy.cli.output import document_text
from stpl_deploy.files import atomic_file
from stpl_deploy.machine import describe
from stpl_export.builders.ranked import full_rank_norms
from stpl_export.builders.targets import PORTABLE
from stpl_export.builders.trt import Target, load_builder
from stpl_export.compose import forecast_onnx, rollout_onnx
from stpl_export.half_step import make_half_step
from stpl_export.onnx_step import state_specs, step_onnx
from stpl_export.work import fixed_batch
from stpl_train.models import build_model

RESULT = Path(__file__).parent / "results" / "plan-builds.json"
FRAME, LENGTH = (1, 64, 64), 10
MODELS: dict[str, dict[str, Any]] = {
    "convlstm": {"hidden": [64] * 4},
    "modernn": {"hidden": 64, "layers": 4},
    "predrnn": {"hidden": 64, "layers": 4},
    "cms-lstm": {"hidden": 64, "layers": 4},
}


def graphs_of(name: str, precision: str, wanted: list[str]) -> dict[str, onnx.ModelProto]:
    """The wanted graphs of an untrained model, batch 1, weights inside."""
    model = build_model(name, FRAME, {"patch": 4, **MODELS[name]}).eval()
    step, state = step_onnx(model), state_specs(model)
    if precision != "fp32":
        step = make_half_step(step, "fp16" if precision == "fp16" else "bf16").typed
    made = {
        "step": lambda: step,
        "forecast": lambda: forecast_onnx(step, state, FRAME, LENGTH),
        "rollout": lambda: rollout_onnx(step, state, FRAME, LENGTH, LENGTH),
    }
    return {graph: fixed_batch(full_rank_norms(made[graph]()), 1) for graph in wanted}


def main() -> None:
    """Build every plan in turn and write its row at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--graphs", default="step,forecast")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    arguments = parser.parse_args()
    builder = load_builder("trt-rtx")
    for name in arguments.models:
        for precision in arguments.precisions.split(","):
            graphs = graphs_of(name, precision, arguments.graphs.split(","))
            for graph, model in graphs.items():
                begin = time.monotonic()
                plan = builder.build(model.SerializeToString(), Path("none"), Target(PORTABLE))
                row = {
                    "model": name,
                    "precision": precision,
                    "graph": graph,
                    "nodes": len(model.graph.node),
                    "layers": plan.details["layers"],
                    "seconds": round(time.monotonic() - begin, 1),
                    "megabytes": round(len(plan.data) / 1e6, 2),
                    "convolution_share": plan.work.shares(),
                    "warnings": len(plan.warnings),
                }
                add_row(row, builder.name, arguments.note)
                sys.stdout.write(f"{row}\n")
                sys.stdout.flush()


def add_row(row: dict[str, Any], builder: str, note: str) -> None:
    """Put a row into the result file."""
    document = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": []}
    same = ("model", "precision", "graph")
    others = [r for r in document["rows"] if any(r[key] != row[key] for key in same)]
    document |= {
        "builder": builder,
        "capabilities": list(PORTABLE),
        "machine": describe(),
        "note": note or document.get("note", ""),
        "ran": "no: the plans were built, never run",
        "rows": [*others, row],
    }
    with atomic_file(RESULT) as file:
        file.write(document_text(document).encode())


if __name__ == "__main__":
    main()
