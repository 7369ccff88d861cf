"""`rollout` and `forecast`, composed from copies of the step graph's nodes.

Unrolling by hand takes milliseconds where tracing the whole loop takes a minute, gives the same
bits, and lets all copies read one set of weights.

    forecast: frame, state.*      -> forecast (B, K, C, H, W), next.*  (the state after `frame`)
    rollout:  context (B, T, ...) -> forecast (B, K, C, H, W)          (from the zero state)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from stpl_core.bundle import StateSpec
from stpl_core.frames import FrameShape
from stpl_export.graphs.onnx_step import FRAME, NEXT_FRAME

CONTEXT, FORECAST = "context", "forecast"
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
}


class _Unroller:
    """Appends copies of the step's nodes to a list, each copy with its own value names."""

    def __init__(self, step: ModelProto, state: Sequence[StateSpec]) -> None:
        self.graph, self.state = step.graph, tuple(state)
        self.read = [spec for spec in self.state if spec.input is not None]
        self._beside = self._needed_beside()
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.values: list[ValueInfoProto] = []
        self._shared = {tensor.name for tensor in step.graph.initializer}

    def _needed_beside(self) -> set[str]:
        """Values that only what is given beside the frame is made of."""
        if len(self.read) == len(self.state):
            return set()
        needed = {NEXT_FRAME, *(spec.output for spec in self.read)}
        beside: set[str] = set()
        for node in reversed(self.graph.node):
            if needed.isdisjoint(node.output):
                beside.update(node.output)
            else:
                needed.update(node.input)
        return beside

    def step(
        self, tag: str, frame: str, state: dict[str, str], *, beside: bool = False
    ) -> tuple[str, dict[str, str]]:
        """Append one step; `state` maps state names to value names. Returns its outputs.

        Args:
            tag: before the names of its values.
            frame: value name.
            state: of what is read.
            beside: whether what is given beside the frame is computed too.
        """
        left_out = set() if beside else self._beside
        known = {FRAME: frame} | {spec.input: state[spec.name] for spec in self.read}

        def rename(name: str) -> str:
            if not name or name in self._shared:
                return name
            return known.get(name, f"{tag}/{name}")

        for node in self.graph.node:
            if left_out.issuperset(node.output):
                continue
            if all(name in self._shared for name in node.input if name):
                if node.output[0] not in self._shared:  # depends on weights alone: once for all
                    self.nodes.append(node)
                    self._shared.update(node.output)
                continue
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{tag}/{node.name}"
            del copy.input[:], copy.output[:]
            copy.input.extend(rename(name) for name in node.input)
            copy.output.extend(rename(name) for name in node.output)
            self.nodes.append(copy)
        for value in (*self.graph.value_info, *self.graph.output):
            if value.name in self._shared or value.name in left_out:
                continue
            named = ValueInfoProto()
            named.CopyFrom(value)
            named.name = rename(value.name)
            self.values.append(named)
        return rename(NEXT_FRAME), {spec.name: rename(spec.output) for spec in self.state}

    def constant(self, name: str, values: Sequence[int]) -> str:
        """Add a small integer constant; returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **keys: Any) -> None:
        """Append one ONNX node, named after its first output."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, f"node/{outputs[0]}", **keys))

    def stack(self, frames: Sequence[str]) -> None:
        """Stack K frames `(B, C, H, W)` into the output `(B, K, C, H, W)`."""
        axis = self.constant("axis_of_time", [1])
        wide = [f"{name}/with_time" for name in frames]
        for name, out in zip(frames, wide, strict=True):
            self.node("Unsqueeze", [name, axis], [out])
        self.node("Concat", wide, [FORECAST], axis=1)

    def model(self, name: str, step: ModelProto, inputs: list[str], outputs: list[str],
              values: dict[str, ValueInfoProto]) -> ModelProto:  # fmt: skip
        """Wrap the nodes into a model that shares the step's initializers."""
        graph = GraphProto()
        graph.name = name
        graph.node.extend(self.nodes)
        graph.initializer.extend(step.graph.initializer)
        graph.initializer.extend(self.constants)
        graph.value_info.extend(self.values)
        graph.input.extend(values[key] for key in inputs)
        graph.output.extend(values[key] for key in outputs)
        made = helper.make_model(graph, opset_imports=list(step.opset_import))
        made.ir_version = step.ir_version
        made.producer_name = step.producer_name
        return made


def _values(
    step: ModelProto, frame: FrameShape, context: int, horizon: int
) -> dict[str, ValueInfoProto]:
    values = {value.name: value for value in (*step.graph.input, *step.graph.output)}
    for name, length in ((CONTEXT, context), (FORECAST, horizon)):
        shape: list[str | int | None] = ["batch", length, *frame]
        values[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    return values


def forecast_onnx(
    step: ModelProto, state: Sequence[StateSpec], frame: FrameShape, horizon: int
) -> ModelProto:
    """Compose (frame, state) -> (K frames, the state after that frame).

    Args:
        step: the step graph, from `step_onnx`.
        state: its state pairs.
        frame: (C, H, W).
        horizon: K >= 1.
    """
    unroller = _Unroller(step, state)
    inputs = {spec.name: spec.input for spec in state if spec.input is not None}
    guess, after = unroller.step("t0", FRAME, inputs, beside=True)
    guesses, running = [guess], after
    for k in range(1, horizon):
        guess, running = unroller.step(f"t{k}", guess, running)
        guesses.append(guess)
    unroller.stack(guesses)
    for spec in state:
        unroller.node("Identity", [after[spec.name]], [spec.output])
    return unroller.model(
        FORECAST,
        step,
        [FRAME, *inputs.values()],
        [FORECAST, *(spec.output for spec in state)],
        _values(step, frame, 1, horizon),
    )


def rollout_onnx(
    step: ModelProto, state: Sequence[StateSpec], frame: FrameShape, context: int, horizon: int
) -> ModelProto:
    """Compose T frames -> K frames from the zero state.

    Args:
        step: the step graph, from `step_onnx`.
        state: its state pairs.
        frame: (C, H, W).
        context: T >= 1.
        horizon: K >= 1.
    """
    unroller = _Unroller(step, state)
    running = _zero_state(unroller)
    frames = _split_time(unroller, context)
    guesses = []
    guess = ""
    for t in range(context + horizon - 1):
        guess, running = unroller.step(f"t{t}", frames[t] if t < context else guess, running)
        if t >= context - 1:
            guesses.append(guess)
    unroller.stack(guesses)
    return unroller.model(
        "rollout", step, [CONTEXT], [FORECAST], _values(step, frame, context, horizon)
    )


def _split_time(unroller: _Unroller, context: int) -> list[str]:
    """`(B, T, C, H, W)` -> T values of `(B, C, H, W)`."""
    names = [f"context/{t}" for t in range(context)]
    for t, name in enumerate(names):
        index = numpy_helper.from_array(np.asarray(t, np.int64), f"index/{t}")
        unroller.constants.append(index)
        unroller.node("Gather", [CONTEXT, index.name], [name], axis=1)
    return names


def _zero_state(unroller: _Unroller) -> dict[str, str]:
    """All-zero states of the batch of `context`; states of one shape share one value."""
    unroller.node("Shape", [CONTEXT], ["batch_size"], start=0, end=1)
    names: dict[str, str] = {}
    made: dict[tuple[tuple[int, ...], str], str] = {}
    for spec in unroller.read:
        key = (spec.shape, spec.dtype)
        if key not in made:
            made[key] = zero = f"zero/{len(made)}"
            size = unroller.constant(f"{zero}/size", spec.shape)
            unroller.node("Concat", ["batch_size", size], [f"{zero}/shape"], axis=0)
            value = helper.make_tensor("value", _TYPES[spec.dtype], [1], [0.0])
            unroller.node("ConstantOfShape", [f"{zero}/shape"], [zero], value=value)
        names[spec.name] = made[key]
    return names
