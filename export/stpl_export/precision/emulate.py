"""Half precision judged on a CPU: fp32 kernels whose operands and results are rounded.

A half convolution on a GPU multiplies half values, sums in fp32 and rounds the result; rounding the
operands and the result of an fp32 convolution gives the same up to the order of the sum. What this
cannot show: kernels that sum in half, and a GPU's own approximations of exp and tanh.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stpl_export.precision.policy import Half, float_values

_ONNX_TYPE: dict[Half, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def all_float_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes that give a float32 result, in the graph's order."""
    floats = float_values(model)
    return [node.name for node in model.graph.node if floats.issuperset(node.output)]


def emulated(model: ModelProto, half: Collection[str], precision: Half) -> ModelProto:
    """Return an fp32 graph in which the nodes named in `half` read and give rounded values.

    Args:
        model: an fp32 graph, weights inside, whose nodes have unique names.
        half: node names; others compute as before.
        precision: what to round to.
    """
    rounder = _Rounder(model, precision)
    chosen = frozenset(half)
    for node in model.graph.node:
        rounder.append(node, node.name in chosen)
    made = ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(rounder.nodes)
    made.graph.initializer.extend(rounder.weights.values())
    return made


class _Rounder:
    def __init__(self, model: ModelProto, precision: Half) -> None:
        self.kind = _ONNX_TYPE[precision]
        self.floats = float_values(model)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.weights: dict[str, TensorProto] = {}
        self.nodes: list[NodeProto] = []
        self.rounded: set[str] = set()

    def append(self, node: NodeProto, half: bool) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        if half:
            copy.input[:] = [self._read(name) for name in node.input]
            for n, name in enumerate(node.output):
                if name in self.floats:
                    copy.output[n] = f"{name}/exact"
        self.nodes.append(copy)
        for exact, name in zip(copy.output, node.output, strict=True):
            if exact != name:
                self._round(exact, name)

    def _read(self, name: str) -> str:
        if name not in self.floats:
            return name
        rounded = f"{name}/rounded"
        if name in self.initializers:
            if rounded not in self.weights:
                values = numpy_helper.to_array(self.initializers[name])
                self.weights[rounded] = numpy_helper.from_array(
                    round_to(values, self.kind), rounded
                )
        elif rounded not in self.rounded:
            self._round(name, rounded)
            self.rounded.add(rounded)
        return rounded

    def _round(self, source: str, target: str) -> None:
        narrow = f"{target}/narrow"
        self.nodes.append(helper.make_node("Cast", [source], [narrow], narrow, to=self.kind))
        self.nodes.append(
            helper.make_node("Cast", [narrow], [target], f"{target}/wide", to=TensorProto.FLOAT)
        )


def round_to(values: NDArray[Any], kind: int) -> NDArray[np.float32]:
    """Round float32 values to fp16 or bf16 (an ONNX type) and back; too large becomes inf."""
    narrow = helper.tensor_dtype_to_np_dtype(kind)
    with np.errstate(over="ignore"):
        return values.astype(narrow).astype(np.float32)
