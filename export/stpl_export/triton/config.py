"""`config.pbtxt` of each graph: how Triton batches it, and where it keeps the state.

    step, forecast   sequence batching with implicit state: a client sends frames with the number of
                     its sequence, and the server carries the state: `--context carry`
    rollout          dynamic batching: a client sends T frames each time: `--context window`

A TensorRT plan has one fixed batch, and a sequence has one row: `max_batch_size: 0`, and every
shape begins with its batch of 1.

Every state begins at zero, and the file says so (`initial_state { zero_data: true }`): without it
Triton gives the first request of a sequence memory as it was left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stpl_core.bundle import EngineSpec, GraphName, Manifest, StateSpec

TYPES = {
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "float16": "TYPE_FP16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
"""numpy's word -> Triton's."""


Backend = Literal["onnxruntime", "python", "tensorrt"]


@dataclass(frozen=True)
class Serving:
    """What a person chooses about serving."""

    name: str
    """The models are NAME_step, NAME_forecast and NAME_rollout."""
    max_batch: int = 8
    """Requests of several clients that are run together, at most."""
    sequences: int = 32
    """Sequences that may go on at the same time; the others wait."""
    idle_s: float = 60.0
    """A sequence without a request for so long is ended, and its state is lost."""
    backend: Backend = "onnxruntime"
    """Triton's: `onnxruntime` runs the graphs itself, `python` our own session; `tensorrt` runs
    the plans that the bundle has, and `onnxruntime` its other graphs."""


def usual_idle_s(cadence_s: float | None) -> float:
    """How long a sequence may rest where nothing is said: three frames of a live stream."""
    return max(60.0, 3.0 * (cadence_s or 0.0))


def config_text(
    graph: GraphName,
    manifest: Manifest,
    bundle: str,
    serving: Serving,
    plan: EngineSpec | None = None,
) -> str:
    """The text of one graph's `config.pbtxt`.

    Args:
        graph: which one.
        manifest: of the bundle.
        bundle: the beginning of the manifest's checksum, for clients that want to know.
        serving: what was chosen.
        plan: a TensorRT plan of this graph for batch 1, which runs in its place.
    """
    frame = list(manifest.frame)
    future = [manifest.horizon, *frame]
    dims: Mapping[GraphName, tuple[list[int], list[int]]] = {
        "step": (frame, frame),
        "forecast": (frame, future),
        "rollout": ([manifest.context, *frame], future),
    }
    batch = [] if plan is None else [plan.batch]
    taken, given = ([*batch, *shape] for shape in dims[graph])
    spec = manifest.graphs[graph]
    read = [state for state in manifest.state if state.input is not None]
    beside = [state for state in manifest.state if state.input is None and graph != "rollout"]
    outputs = [
        _tensor(spec.outputs[0], given),
        *(_tensor(state.output, [*batch, *state.shape], state.dtype) for state in beside),
    ]
    if graph == "rollout":
        batching = ["dynamic_batching { }"] if plan is None else []
    else:
        batching = _sequences(read, serving, batch)
    return "\n".join(
        [
            f'name: "{serving.name}_{graph}"',
            *_runs_on(serving, plan),
            f"max_batch_size: {serving.max_batch if plan is None else 0}",
            f"input [ {_tensor(spec.inputs[0], taken)} ]",
            f"output [ {', '.join(outputs)} ]",
            *batching,
            *_instances(serving),
            *_parameters(manifest, bundle, graph, plan),
            "",
        ]
    )


def _tensor(name: str, dims: Sequence[int], dtype: str = "float32") -> str:
    return f'{{ name: "{name}" data_type: {TYPES[dtype]} dims: {_dims(dims)} }}'


def _runs_on(serving: Serving, plan: EngineSpec | None) -> list[str]:
    if plan is not None:
        return ['platform: "tensorrt_plan"', 'backend: "tensorrt"']
    return [f'backend: "{"python" if serving.backend == "python" else "onnxruntime"}"']


def _instances(serving: Serving) -> list[str]:
    """One process, which has the state of every sequence; ONNX Runtime's are Triton's choice."""
    return ["instance_group [ { kind: KIND_CPU count: 1 } ]"] if serving.backend == "python" else []


def _dims(dims: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, dims))} ]"


def _sequences(state: Sequence[StateSpec], serving: Serving, batch: Sequence[int]) -> list[str]:
    lines = [
        "sequence_batching {",
        "  oldest {",
        f"    max_candidate_sequences: {serving.sequences}",
        "  }",
        f"  max_sequence_idle_microseconds: {round(serving.idle_s * 1e6)}",
    ]
    for spec in state if serving.backend != "python" else ():
        kind = f"data_type: {TYPES[spec.dtype]} dims: {_dims([*batch, *spec.shape])}"
        lines += [
            "  state {",
            f'    input_name: "{spec.input}" output_name: "{spec.output}" {kind}',
            f'    initial_state {{ name: "zero" {kind} zero_data: true }}',
            "  }",
        ]
    return [*lines, "}"]


def _parameters(
    manifest: Manifest, bundle: str, graph: GraphName, plan: EngineSpec | None
) -> list[str]:
    codec = manifest.codec
    facts = {
        "stpl_bundle": bundle,
        "stpl_model": manifest.model.name,
        "stpl_graph": graph,
        "stpl_context": manifest.context,
        "stpl_horizon": manifest.horizon,
        "stpl_quantity": codec.quantity,
        "stpl_units": codec.units,
    }
    if plan is not None:  # Triton opens plans of its own version alone
        facts["stpl_tensorrt"] = plan.details["version"]
    return [
        f'parameters {{ key: "{key}" value {{ string_value: "{_quoted(str(value))}" }} }}'
        for key, value in facts.items()
    ]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
