"""The step graph: `Forecaster.step` as ONNX, by torch's dynamo exporter, cleaned.

Inputs `frame`, `state.<name>`...; outputs `next_frame`, `next.<name>`...; the batch is dynamic.
What a model gives beside the frame is a part of its state that has no input.
Initializers carry the names of the model's state dict. What the exporter writes about itself
(source lines, absolute paths) is taken out.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from stpl_core.bundle import OutputSpec, StateSpec
from stpl_core.errors import RecipeError
from stpl_export.graphs.shapes import state_shapes
from stpl_train.forecaster import GivesMore, State
from stpl_train.models import ForecasterModule

OPSET = 20
FRAME, NEXT_FRAME = "frame", "next_frame"
_PREFIX = "model."


class _Step(nn.Module):
    """`step` with the state as positional tensors, in the order of its names.

    What is given beside the frame, at the end, is not passed in.
    """

    def __init__(self, model: ForecasterModule, names: tuple[str, ...], read: int) -> None:
        super().__init__()
        self.model, self.names, self.read = model, names, names[:read]

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        out, new = self.model.step(frame, dict(zip(self.read, state, strict=True)))
        return (out, *(new[name] for name in self.names))


def state_specs(model: ForecasterModule) -> tuple[StateSpec, ...]:
    """The model's state tensors as the manifest describes them."""
    beside = {spec.name for spec in output_specs(model)}
    return tuple(
        StateSpec(
            name=name,
            input=None if name in beside else f"state.{name}",
            output=f"next.{name}",
            shape=tuple(tensor.shape[1:]),
            dtype=str(tensor.dtype).removeprefix("torch."),
        )
        for name, tensor in model.initial_state(1).items()
    )


def output_specs(model: ForecasterModule) -> tuple[OutputSpec, ...]:
    """What the model gives beside the next frame."""
    return model.outputs if isinstance(model, GivesMore) else ()


def step_onnx(model: ForecasterModule) -> onnx.ModelProto:
    """Export the step graph, weights inside.

    Args:
        model: a float32 model on the CPU, in evaluation mode.

    Raises:
        RecipeError: torch cannot export this model's step, or its state changes shape or name.
    """
    specs = state_specs(model)
    state = model.initial_state(2)
    frame = torch.rand(2, *model.frame_shape)  # (B, C, H, W)
    _check_state(model, frame, state)
    read = {spec.input: state[spec.name] for spec in specs if spec.input is not None}
    batch = torch.export.Dim("batch")
    with _quiet():
        try:
            program = torch.onnx.export(
                _Step(model, tuple(state), len(read)).eval(),
                (frame, *read.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=[FRAME, *read],
                output_names=[NEXT_FRAME, *(spec.output for spec in specs)],
                dynamic_shapes=({0: batch}, tuple({0: batch} for _ in read)),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise RecipeError(
                f"torch cannot export {type(model).__name__}.step: {_innermost(error)}",
                expected="a pure step on tensors, without branches on their values",
                fix="see docs/design.md, 'One function to build on'",
            ) from error
    assert program is not None
    return _clean(program.model_proto)


def _check_state(model: ForecasterModule, frame: Tensor, state: State) -> None:
    beside = [spec.name for spec in output_specs(model)]
    if list(state)[len(state) - len(beside) :] != beside:
        raise RecipeError(
            f"{type(model).__name__} has the state {', '.join(state)} and gives "
            f"{', '.join(beside)} beside the frame",
            expected="what `outputs` name at the end of the state, in their order",
            fix="move it there in initial_state and step",
        )
    read = {name: tensor for name, tensor in state.items() if name not in beside}
    try:
        with torch.no_grad():
            out, new = model.step(frame, read)
    except KeyError as error:
        if error.args[0] not in beside:
            raise
        raise RecipeError(
            f"{type(model).__name__}.step reads {error.args[0]}, which its `outputs` name",
            expected="an output that no step reads",
            fix="keep what steps read in a state of another name",
        ) from error
    before = {name: (tuple(t.shape), t.dtype) for name, t in state.items()}
    after = {name: (tuple(t.shape), t.dtype) for name, t in new.items()}
    if list(before.items()) != list(after.items()) or out.shape != frame.shape:
        changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        raise RecipeError(
            f"{type(model).__name__}.step changes {', '.join(changed) or 'frame shape or order'}",
            expected="the same names, order, shapes and dtypes before and after a step",
            fix="return the state in the order of initial_state",
        )


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def _clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strip what names this machine, and the wrapper's prefix from the weights' names."""
    graph = model.graph
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_name, model.producer_version = "stpl-deploy", ""
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = "step"
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    same = _equal_constants(graph)
    for tensor in graph.initializer:
        tensor.name = tensor.name.removeprefix(_PREFIX)
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        names = [same.get(name, name).removeprefix(_PREFIX) for name in node.input]
        del node.input[:]
        node.input.extend(names)
    state_shapes(model)
    return model


def _equal_constants(graph: onnx.GraphProto) -> dict[str, str]:
    """Drop constants of the exporter's own that repeat an earlier one; name -> the one kept."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for tensor in list(graph.initializer):
        if tensor.name.startswith(_PREFIX):
            continue
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if first.setdefault(key, tensor.name) != tensor.name:
            same[tensor.name] = first[key]
            graph.initializer.remove(tensor)
    return same


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about torchvision and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
