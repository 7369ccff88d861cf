"""Turing (7.5): TensorRT-RTX has no fp32 matrix product there; a sum of products stands in.

`A @ B` becomes `ReduceSum(A[..., :, :, None] * B[..., None, :, :])` over the inner axis: the same
numbers up to the order of the sum, in one fused kernel on the plain cores. Half products, which
are most of an fp16 graph's, have their own kernels and stay.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from stpl_export.precision.policy import float_values


def without_fp32_products(model: ModelProto) -> ModelProto:
    """Return the graph with every fp32 MatMul of two batched matrices written as a sum.

    Args:
        model: a graph whose products all have operands of rank 2 or more.
    """
    floats = float_values(model)
    made = ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    found = False
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.output[0] in floats:
            made.graph.node.extend(_as_sum(node))
            found = True
        else:
            made.graph.node.append(node)
    if found:
        for name, axis in (("last", -1), ("third", -3), ("inner", -2)):
            values = np.asarray([axis], np.int64)
            made.graph.initializer.append(numpy_helper.from_array(values, f"axis/{name}"))
    return made


def _as_sum(node: NodeProto) -> list[NodeProto]:
    out = node.output[0]
    left, right, both = f"{out}/left", f"{out}/right", f"{out}/terms"
    return [
        helper.make_node("Unsqueeze", [node.input[0], "axis/last"], [left], left),  # (.., M, K, 1)
        helper.make_node("Unsqueeze", [node.input[1], "axis/third"], [right], right),  # (.., 1,K,N)
        helper.make_node("Mul", [left, right], [both], both),  # (.., M, K, N)
        helper.make_node("ReduceSum", [both, "axis/inner"], [out], node.name, keepdims=0),
    ]
