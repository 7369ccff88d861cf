"""int8: the step graph with explicit QuantizeLinear and DequantizeLinear around convolutions.

Only convolutions compute in 8 bits. Norms and their statistics, gates, everything that updates a
carried state (c, m, S, history), softmax and all matrix products stay fp32, as do the graph's
inputs and outputs. Weights are int8 and symmetric, with a scale per output channel; activations
have one scale per tensor. Two forms of the same, since two kinds of engine read them:

    cpu   ONNX Runtime fuses a convolution into QLinearConv only where its result is quantised too
          and its bias is int32; its kernels want uint8 activations with a zero point
    gpu   TensorRT takes int8 with zero point 0 and refuses int32 biases; a convolution may give its
          sum unquantised, so nothing is rounded on the way out
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stpl_core.errors import UsageError
from stpl_export.precision.calibrate import Range
from stpl_export.precision.macs import convolution_macs, shapes_of
from stpl_export.precision.policy import float_values, reading, rebuilt, work_behind

Form = Literal["cpu", "gpu"]

SCHEMES: dict[Form, str] = {
    "cpu": "convolutions read and give uint8 with a zero point, one scale per tensor; "
    "int8 weights from -64 to 64, one scale per output channel",
    "gpu": "convolutions read int8 without a zero point, one scale per tensor, and give fp32; "
    "int8 weights, one scale per output channel",
}
LITTLE_WORK = 0.01
"""Of the convolutions' work."""
_LEVELS = 127
_WEIGHT_LEVELS: dict[Form, int] = {"cpu": 64, "gpu": _LEVELS}
"""The kernels of CPUs without VNNI add two products of uint8 and int8 in 16 bits: with weights up
to 64 the sum is 32,640 at most and fits; with 127 it saturates in silence."""
_LEAST_SCALE = 1e-12


@dataclass(frozen=True)
class Quantised:
    """A tensor in 8 bits: value = scale * (integer - zero)."""

    integers: NDArray[Any]
    scale: NDArray[np.float32]


def quantise_weight(
    weight: NDArray[np.float32], least: float | NDArray[Any] = 0.0, levels: int = _LEVELS
) -> Quantised:
    """Round a convolution's weights to -levels..levels with one scale per output channel.

    Args:
        weight: `(out, in, *kernel)`.
        least: no channel's scale is below this.
        levels: the largest integer, at most 127.
    """
    greatest = np.abs(weight).reshape(len(weight), -1).max(axis=1)  # (out,)
    scale = np.maximum(np.maximum(greatest / levels, least), _LEAST_SCALE).astype(np.float32)
    steps = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return Quantised(np.clip(np.rint(steps), -levels, levels).astype(np.int8), scale)


def activation_scale(seen: Range, form: Form) -> tuple[np.float32, NDArray[Any]]:
    """Scale and zero point of one tensor; zero is always represented exactly."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if form == "gpu":
        return np.float32(max(max(-low, high) / _LEVELS, _LEAST_SCALE)), np.asarray(0, np.int8)
    scale = max((high - low) / 255.0, _LEAST_SCALE)
    return np.float32(scale), np.asarray(np.clip(round(-low / scale), 0, 255), np.uint8)


def quantisable(step: ModelProto) -> dict[str, NodeProto]:
    """Name -> convolution of an fp32 step graph that can be quantised: its weights are known."""
    known = {tensor.name for tensor in step.graph.initializer}
    floats = float_values(step)
    return {
        node.name: node
        for node in step.graph.node
        if node.op_type == "Conv"
        and floats.issuperset((node.input[0], node.output[0]))
        and known.issuperset(name for name in node.input[1:] if name)
    }


def frame_makers(step: ModelProto) -> set[str]:
    """Names of the convolutions whose result becomes the next frame, none other between."""
    behind = work_behind(step.graph.node, [step.graph.output[0].name])
    return {node.name for node in behind if node.op_type == "Conv"}


def kept_convolutions(step: ModelProto, keep: Collection[str]) -> dict[str, str]:
    """Convolutions that stay in fp32: name -> why.

    What gives the frame stays where it is little work: its rounding goes straight into the picture,
    and a trained MoDeRNN gained 4 dB at the first lead time without it.

    Raises:
        UsageError: `keep` names a node that is no convolution.
    """
    kept = dict.fromkeys(keep, "asked for by --keep-fp32")
    shapes, _ = shapes_of(step, batch=1)
    macs = {
        node.name: convolution_macs(node, shapes)
        for node in step.graph.node
        if node.op_type in ("Conv", "ConvTranspose")
    }
    if unknown := sorted(set(keep) - set(macs)):
        raise UsageError(
            f"no convolution {unknown[0]} in the step graph",
            expected=f"a name such as {next(iter(macs), 'none: it has no convolution')}",
            fix="leave --keep-fp32 out",
        )
    makers = frame_makers(step)
    if sum(macs[name] for name in makers) <= LITTLE_WORK * sum(macs.values()):
        kept |= dict.fromkeys(sorted(makers - kept.keys()), "gives the frame, and is little work")
    return kept


def chosen_convolutions(step: ModelProto, kept: Collection[str]) -> dict[str, NodeProto]:
    """Those of `quantisable` that are not kept in fp32."""
    return {name: node for name, node in quantisable(step).items() if name not in kept}


def values_to_calibrate(convolutions: Mapping[str, NodeProto], form: Form) -> list[str]:
    """Values whose ranges `quantised_step` needs."""
    read = [node.input[0] for node in convolutions.values()]
    given = [node.output[0] for node in convolutions.values()] if form == "cpu" else []
    return list(dict.fromkeys((*read, *given)))


def quantised_step(
    step: ModelProto, convolutions: Collection[str], ranges: Mapping[str, Range], form: Form
) -> ModelProto:
    """Return the step graph with these convolutions in 8 bits.

    Args:
        step: the fp32 graph, weights inside.
        convolutions: names, of `quantisable`.
        ranges: of the values in `values_to_calibrate`.
        form: who reads the graph.
    """
    quantiser = _Quantiser(step, frozenset(convolutions), ranges, form)
    return rebuilt(step, quantiser.run(), quantiser.constants.values())


class _Quantiser:
    """Walks the nodes in order; each value is quantised once, however many convolutions read it."""

    def __init__(
        self,
        step: ModelProto,
        chosen: frozenset[str],
        ranges: Mapping[str, Range],
        form: Form,
    ) -> None:
        self.graph, self.chosen, self.ranges, self.form = step.graph, chosen, ranges, form
        self.weights = {tensor.name: tensor for tensor in step.graph.initializer}
        self.constants: dict[str, TensorProto] = {}
        self.nodes: list[NodeProto] = []
        self.scales: dict[str, np.float32] = {}
        self.read_as: dict[str, str] = {}
        """Value -> the dequantised form of it."""

    def run(self) -> list[NodeProto]:
        for node in self.graph.node:
            if node.name in self.chosen:
                self._convolution(node)
            else:
                self.nodes.append(node)
        return self.nodes

    def _convolution(self, node: NodeProto) -> None:
        source, weight, *rest = node.input
        bias = rest[0] if rest and rest[0] else None
        inputs = [self._activation(source)]
        least: NDArray[Any] | float = 0.0
        if bias is not None and self.form == "cpu":  # the int32 bias must not run over
            least = np.abs(self._array(bias)) / (self.scales[source] * 2.0**30)
        dequantised, scale = self._weight(weight, least)
        inputs.append(dequantised)
        if bias is not None and self.form == "cpu":
            inputs.append(self._bias(node.name, bias, scale * self.scales[source]))
        elif bias is not None:
            inputs.append(bias)
        copy = reading(node, inputs)
        self.nodes.append(copy)
        if self.form == "cpu":
            result = node.output[0]
            copy.output[0] = f"{result}/exact"
            self._quantise(f"{result}/exact", result, self.ranges[result], result)
            self.read_as[result] = result

    def _activation(self, name: str) -> str:
        if name not in self.read_as:
            self.read_as[name] = f"{name}/dequantised"
            self._quantise(name, f"{name}/dequantised", self.ranges[name], name)
        return self.read_as[name]

    def _quantise(self, source: str, target: str, seen: Range, about: str) -> None:
        scale, zero = activation_scale(seen, self.form)
        self.scales[about] = scale
        keys = [self._constant(f"{about}/scale", scale), self._constant(f"{about}/zero", zero)]
        narrow = f"{about}/quantised"
        self.nodes.append(
            helper.make_node("QuantizeLinear", [source, *keys], [narrow], f"quantise/{about}")
        )
        self.nodes.append(
            helper.make_node("DequantizeLinear", [narrow, *keys], [target], f"dequantise/{about}")
        )

    def _weight(self, name: str, least: float | NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        out = f"{name}/dequantised"
        if out not in self.read_as:
            made = quantise_weight(self._array(name), least, _WEIGHT_LEVELS[self.form])
            zeros = np.zeros(len(made.scale), np.int8)
            self._dequantise(name, made.integers, made.scale, zeros)
            self.read_as[out] = out
        return out, numpy_helper.to_array(self.constants[f"{name}/scale"])

    def _bias(self, node: str, name: str, scale: NDArray[np.float32]) -> str:
        about = f"{node}/bias"
        integers = np.rint(self._array(name) / scale).astype(np.int32)  # `least` bounds it
        self._dequantise(about, integers, scale, np.zeros(len(scale), np.int32))
        return f"{about}/dequantised"

    def _dequantise(
        self, name: str, integers: NDArray[Any], scale: NDArray[np.float32], zero: NDArray[Any]
    ) -> None:
        keys = {"integers": integers, "scale": scale, "zero": zero}
        inputs = [self._constant(f"{name}/{key}", values) for key, values in keys.items()]
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", inputs, [f"{name}/dequantised"], f"dequantise/{name}", axis=0
            )
        )

    def _constant(self, name: str, values: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.asarray(numpy_helper.to_array(self.weights[name]), np.float32)


def int8_constants(typed: ModelProto) -> dict[str, NDArray[Any]]:
    """The weights and biases of a quantised graph with their scales, by initializer name."""
    names = {
        name
        for node in typed.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].endswith("/integers")
        for name in node.input
    }
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in typed.graph.initializer
        if tensor.name in names
    }
