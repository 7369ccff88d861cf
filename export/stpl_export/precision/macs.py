"""How much of a graph's work runs in which type, counted in multiply-accumulates (MACs)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto

_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
}


@dataclass(frozen=True)
class Work:
    """MACs of one pass over a graph at batch 1, by type."""

    convolutions: dict[str, int]
    products: dict[str, int]
    """Matrix products: attention."""

    def share(self, kind: str) -> float:
        """The share of the convolutions' MACs that runs in `kind`, 0 to 1."""
        total = sum(self.convolutions.values())
        return self.convolutions.get(kind, 0) / total if total else 0.0

    def shares(self) -> dict[str, float]:
        """The share of every type that occurs."""
        return {kind: round(self.share(kind), 6) for kind in self.convolutions}


def graph_work(model: ModelProto, batch: int = 1) -> Work:
    """Count a graph's MACs by the type of what its convolutions and products read.

    Args:
        model: a graph whose only free axis is the batch.
        batch: what to put there.
    """
    shapes, types = shapes_of(model, batch)
    whole = {  # dequantised value -> what it was made from
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    convolutions: Counter[str] = Counter()
    products: Counter[str] = Counter()
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        if len(node.input) > 1 and {source, node.input[1]} <= whole.keys():
            source = whole[source]  # both operands are integers
        name = _NAMES.get(types.get(source, 0), "other")
        if node.op_type in ("Conv", "ConvTranspose"):
            convolutions[name] += convolution_macs(node, shapes)
        elif node.op_type in ("MatMul", "Gemm"):
            products[name] += _product(node, shapes)
    return Work(dict(convolutions), dict(products))


def shapes_of(model: ModelProto, batch: int) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Shape and ONNX type of every value and weight of a graph, at one batch."""
    inferred = onnx.shape_inference.infer_shapes(fixed_batch(model, batch), data_prop=True).graph
    shapes: dict[str, list[int]] = {}
    types: dict[str, int] = {}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        tensor = value.type.tensor_type
        shapes[value.name] = [axis.dim_value for axis in tensor.shape.dim]
        types[value.name] = tensor.elem_type
    for weight in inferred.initializer:
        shapes[weight.name], types[weight.name] = list(weight.dims), weight.data_type
    return shapes, types


def fixed_batch(model: ModelProto, batch: int) -> ModelProto:
    """Return a copy of the graph whose named axes (the batch) have the size `batch`."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_value = batch
    del fixed.graph.value_info[:]
    return fixed


def convolution_macs(node: NodeProto, shapes: dict[str, list[int]]) -> int:
    """MACs of one convolution, by the shapes of what it reads and gives."""
    _, inputs, *kernel = shapes[node.input[1]]
    if node.op_type == "Conv":  # each result reads inputs * kernel values
        return math.prod(shapes[node.output[0]]) * inputs * math.prod(kernel)
    return math.prod(shapes[node.input[0]]) * inputs * math.prod(kernel)


def _product(node: NodeProto, shapes: dict[str, list[int]]) -> int:
    left = shapes[node.input[0]]
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(shapes[node.output[0]]) * (left[-2] if transposed else left[-1])
