"""Build times and sizes of TensorRT-RTX plans of full-size models; writes benchmarks/results/.

    python benchmarks/plan_builds.py [--seconds 540] [--graphs step,rollout] [--precisions fp16]
                                     [--again] [MODEL ...]
    python benchmarks/plan_builds.py --table

Untrained weights: neither time nor size depends on them. No GPU is needed. Frames are 1x64x64 in
patches of 4, four layers of 64, ten frames in and ten out, batch 1, one plan for compute
capabilities 8.0, 8.6, 8.9 and 12.0. The cache is not used.

Rows are added to what an earlier run wrote. A row whose graph and builder have not changed is not
built again, so the benchmark can be run in slices: `--seconds` starts no build that, judging by the
others, would end later than that. The last line lists what is left; exit code 3 while anything is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

from stpl_core.bundle import StateSpec
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text
from stpl_export.builders.norm_ranks import full_rank_norms
from stpl_export.builders.targets import PORTABLE
from stpl_export.builders.trt import Target, load_builder
from stpl_export.graphs.compose import forecast_onnx, rollout_onnx
from stpl_export.graphs.onnx_step import state_specs, step_onnx
from stpl_export.precision.half_step import make_half_step
from stpl_export.precision.macs import fixed_batch
from stpl_train.models import build_model

RESULT = Path(__file__).parent / "results" / "plan-builds.json"
FRAME, LENGTH = (1, 64, 64), 10
MODELS: dict[str, dict[str, Any]] = {
    "convlstm": {"hidden": [64] * 4},
    "modernn": {"hidden": 64, "layers": 4},
    "predrnn": {"hidden": 64, "layers": 4},
    "cms-lstm": {"hidden": 64, "layers": 4},
}
_SAME = ("model", "precision", "graph")
_GROWTH = 1.8
"""Build time grows about as the number of nodes to this power."""


def step_of(
    name: str, precision: str, keys: dict[str, Any]
) -> tuple[onnx.ModelProto, tuple[StateSpec, ...]]:
    """The step graph of an untrained model, weights inside, and its state."""
    torch.manual_seed(0)
    model = build_model(name, FRAME, {"patch": 4, **keys}).eval()
    step, state = step_onnx(model), tuple(state_specs(model))
    if precision != "fp32":
        step = make_half_step(step, "fp16" if precision == "fp16" else "bf16").typed
    return step, state


def graphs_of(name: str, precision: str, names: list[str]) -> Iterator[tuple[str, Any]]:
    """The named graphs of a model, batch 1, as `export` gives them to the builder."""
    step, state = step_of(name, precision, MODELS[name])
    for graph in names:
        model = step
        if graph == "forecast":
            model = forecast_onnx(step, state, FRAME, LENGTH)
        elif graph == "rollout":
            model = rollout_onnx(step, state, FRAME, LENGTH, LENGTH)
        yield graph, fixed_batch(full_rank_norms(model), 1)


def structure(model: onnx.ModelProto) -> str:
    """Hash of a graph without the values of its weights."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            tensor.ClearField("raw_data")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()[:16]


def measured_build(model: onnx.ModelProto) -> dict[str, Any]:
    """Build a plan; its row without names."""
    builder = load_builder("trt-rtx")
    begin, used = time.monotonic(), time.process_time()
    plan = builder.build(model.SerializeToString(), Path("none"), Target(PORTABLE))
    return {
        "nodes": len(model.graph.node),
        "layers": plan.details["layers"],
        "seconds": round(time.monotonic() - begin, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "megabytes": round(len(plan.data) / 1e6, 2),
        "convolution_share": plan.work.shares(),
        "warnings": len(plan.warnings),
    }


def expected_seconds(nodes: int, model: str, rows: list[dict[str, Any]]) -> float:
    """How long a build may take, going by the row of the same model that is nearest in size."""
    known = [row for row in rows if row["model"] == model]
    if not known:
        return float(1e-4 * nodes**_GROWTH)
    near = min(known, key=lambda row: abs(math.log(row["nodes"] / nodes)))
    return float(near["seconds"] * (nodes / near["nodes"]) ** _GROWTH)


def main() -> None:
    """Build what is missing and write each row at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--graphs", default="step,forecast,rollout")
    parser.add_argument("--precisions", default="fp16,fp32")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of this slice")
    parser.add_argument("--again", action="store_true", help="build rows that are there too")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--table", action="store_true", help="show the rows for the docs, no more")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table(read_rows()))
        return
    begin = time.monotonic()
    name_of_builder = load_builder("trt-rtx").name
    left = []
    for name in arguments.models:
        for precision in arguments.precisions.split(","):
            for graph, model in graphs_of(name, precision, arguments.graphs.split(",")):
                key = {"model": name, "precision": precision, "graph": graph}
                made_of = f"{structure(model)} {name_of_builder}"
                rows = read_rows()
                if not arguments.again and any(is_row(r, key, made_of) for r in rows):
                    continue
                remaining = arguments.seconds - (time.monotonic() - begin)
                # The slowest build there is is still tried at the beginning of a slice.
                needed = expected_seconds(len(model.graph.node), name, rows)
                if needed > remaining and remaining < 0.8 * arguments.seconds:
                    left.append(f"{name} {precision} {graph}")
                    continue
                row = key | measured_build(model) | {"made_of": made_of}
                add_row(row, name_of_builder, arguments.note)
                sys.stdout.write(f"{row}\n")
                sys.stdout.flush()
    sys.stdout.write(f"left: {', '.join(left) or 'nothing'}\n")
    raise SystemExit(3 if left else 0)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown; a dash where nothing was built."""
    graphs = ("step", "forecast", "rollout")
    lines = [f"| model | precision | {' | '.join(graphs)} |", "|---" * 5 + "|"]
    found = {tuple(row[key] for key in _SAME): row for row in rows}
    for name, precision in dict.fromkeys((row["model"], row["precision"]) for row in rows):
        built = (found.get((name, precision, graph)) for graph in graphs)
        cells = [
            f"{r['layers']:,} layers, {r['seconds']} s, {r['megabytes']:.1f} MB" if r else "–"
            for r in built
        ]
        lines.append(f"| {name} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def is_row(row: dict[str, Any], key: dict[str, str], made_of: str) -> bool:
    """Whether a row is this build of this graph."""
    return all(row[part] == key[part] for part in _SAME) and row.get("made_of") == made_of


def read_rows() -> list[dict[str, Any]]:
    """What earlier runs wrote."""
    return list(json.loads(RESULT.read_text())["rows"]) if RESULT.is_file() else []


def add_row(row: dict[str, Any], builder: str, note: str) -> None:
    """Put a row into the result file."""
    document: dict[str, Any] = {"rows": []}
    if RESULT.is_file():
        document = json.loads(RESULT.read_text())
    rows: list[dict[str, Any]] = document["rows"]
    rows = [*(r for r in rows if any(r[key] != row[key] for key in _SAME)), row]
    document |= {
        "builder": builder,
        "capabilities": list(PORTABLE),
        "machine": describe(),
        "note": note or document.get("note", ""),
        "ran": "no: the plans were built, never run",
        "rows": sorted(rows, key=lambda r: [r[key] for key in _SAME]),
    }
    with atomic_file(RESULT) as file:
        file.write(document_text(document).encode())


if __name__ == "__main__":
    main()
