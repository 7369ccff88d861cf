"""How the build time of a forecast plan grows with K, and what it depends on.

    python benchmarks/plan_growth.py [--depths 1,2,4,8] [--model modernn] [--seconds 300]

Two layers of 16, frames 1x64x64 in patches of 4, fp16, one plan for compute capabilities 8.0, 8.6,
8.9 and 12.0. Three forms of the same forecast:

    unrolled    norms' weights as PyTorch exports them: the parser reshapes each, in every step
    full rank   the same with a leading one in those weights' shapes, as `export` builds it
    loop        one ONNX Loop over K, whose body is the step: built once whatever K is

CPU seconds are the measure: they depend less on what else runs. Writes benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from plan_builds import (  # type: ignore[import-not-found]  # lies beside
    FRAME,
    measured_build,
    step_of,
)

from stpl_core.bundle import StateSpec
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text
from stpl_export.builders.norm_ranks import full_rank_norms
from stpl_export.builders.trt import load_builder
from stpl_export.graphs.compose import FORECAST, forecast_onnx
from stpl_export.graphs.onnx_step import FRAME as FRAME_NAME
from stpl_export.graphs.onnx_step import NEXT_FRAME
from stpl_export.precision.macs import fixed_batch

RESULT = Path(__file__).parent / "results" / "plan-growth.json"
_LAYERS, _HIDDEN = 2, 16


def loop_onnx(step: onnx.ModelProto, state: tuple[StateSpec, ...], horizon: int) -> onnx.ModelProto:
    """The forecast as one Loop at batch 1; it gives the frames, and no state."""
    body = onnx.GraphProto(name="step")
    values = {value.name: value for value in (*step.graph.input, *step.graph.output)}
    carried = {FRAME_NAME: NEXT_FRAME} | {
        spec.input: spec.output for spec in state if spec.input is not None
    }
    body.input.append(helper.make_tensor_value_info("count", TensorProto.INT64, []))
    body.input.append(helper.make_tensor_value_info("going", TensorProto.BOOL, []))
    body.input.extend(values[name] for name in carried)
    body.node.extend(step.graph.node)
    always = helper.make_tensor("always", TensorProto.BOOL, [], [True])
    body.node.append(helper.make_node("Constant", [], ["go_on"], value=always))
    body.node.append(helper.make_node("Identity", [NEXT_FRAME], ["scanned"]))
    body.output.append(helper.make_tensor_value_info("go_on", TensorProto.BOOL, []))
    body.output.extend(values[name] for name in carried.values())
    body.output.append(helper.make_tensor_value_info("scanned", TensorProto.FLOAT, [1, *FRAME]))
    graph = onnx.GraphProto(name=FORECAST)
    graph.input.extend(values[name] for name in carried)
    graph.initializer.extend(step.graph.initializer)
    graph.initializer.append(numpy_helper.from_array(np.asarray(horizon, np.int64), "horizon"))
    outputs = [*(f"last/{name}" for name in carried), "frames"]
    # No condition goes in: with one beside the count the parser warns.
    graph.node.append(helper.make_node("Loop", ["horizon", "", *carried], outputs, body=body))
    graph.node.append(helper.make_node("Transpose", ["frames"], [FORECAST], perm=[1, 0, 2, 3, 4]))
    out = helper.make_tensor_value_info(FORECAST, TensorProto.FLOAT, [1, horizon, *FRAME])
    graph.output.append(out)
    made = helper.make_model(graph, opset_imports=list(step.opset_import))
    made.ir_version = step.ir_version
    return made


def main() -> None:
    """Build every form at every depth while there is time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="modernn", choices=("modernn", "predrnn", "cms-lstm"))
    parser.add_argument("--depths", default="1,2,4,8")
    parser.add_argument("--seconds", type=float, default=300.0, help="start none after so many")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    arguments = parser.parse_args()
    keys = {"hidden": _HIDDEN, "layers": _LAYERS}
    step, state = step_of(arguments.model, "fp16", keys)
    ranked = full_rank_norms(step)
    begin = time.monotonic()
    for depth in map(int, arguments.depths.split(",")):
        forms = {
            "unrolled": forecast_onnx(step, state, FRAME, depth),
            "full rank": full_rank_norms(forecast_onnx(step, state, FRAME, depth)),
            "loop": loop_onnx(fixed_batch(ranked, 1), state, depth),
        }
        for form, model in forms.items():
            if time.monotonic() - begin > arguments.seconds:
                sys.stdout.write(f"no time left for {form} at K = {depth}\n")
                continue
            names = {"model": arguments.model, "form": form, "depth": depth}
            add_row(names | measured_build(fixed_batch(model, 1)), arguments.note)


def add_row(row: dict[str, object], note: str) -> None:
    """Put a row into the result file and show it."""
    document = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": []}
    same = ("model", "form", "depth")
    others = [r for r in document["rows"] if any(r[key] != row[key] for key in same)]
    document |= {
        "builder": load_builder("trt-rtx").name,
        "machine": describe(),
        "note": note or document.get("note", ""),
        "ran": "no: the plans were built, never run",
        "rows": sorted([*others, row], key=lambda r: [r[key] for key in same]),
    }
    with atomic_file(RESULT) as file:
        file.write(document_text(document).encode())
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
