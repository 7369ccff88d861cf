"""Statistics of large norms in float64, for ONNX Runtime.

Its CPU kernel sums a LayerNormalization in one float32 pass: over 448 x 32 x 32 values of one sign
the result is 1.5e-4 off, where PyTorch is 1e-6 off. The node stays whole; casts around it make it
compute in float64 (3 times the kernel's time, and a few percent of a step's). TensorRT has no
float64: `plain_norms` takes the casts out again.
"""

from __future__ import annotations

import math

from onnx import ModelProto, NodeProto, TensorProto, helper

LARGEST_PLAIN = 16384
"""Elements of a norm up to which float32 sums are left alone (their error stays below 1e-5)."""

_WIDE = "/float64"


def exact_norms(step: ModelProto) -> ModelProto:
    """Return the step graph with every large LayerNormalization computed in float64."""
    elements = _norm_elements(step)
    out = ModelProto()
    out.CopyFrom(step)
    del out.graph.node[:]
    widened: set[str] = set()

    def cast(name: str) -> str:
        if f"{name}{_WIDE}" not in widened:
            widened.add(f"{name}{_WIDE}")
            out.graph.node.append(_cast(name, f"{name}{_WIDE}", TensorProto.DOUBLE))
        return f"{name}{_WIDE}"

    for node in step.graph.node:
        if elements.get(node.name, 0) <= LARGEST_PLAIN:
            out.graph.node.append(node)
            continue
        inputs = [cast(name) for name in node.input]
        wide = out.graph.node.add()
        wide.CopyFrom(node)
        del wide.input[:]
        wide.input.extend(inputs)
        wide.output[0] = f"{node.output[0]}{_WIDE}"
        out.graph.node.append(_cast(wide.output[0], node.output[0], TensorProto.FLOAT))
    return out


def plain_norms(graph: ModelProto) -> ModelProto:
    """Return a graph without the casts of `exact_norms`."""
    out = ModelProto()
    out.CopyFrom(graph)
    del out.graph.node[:]
    for node in graph.graph.node:
        names = [*node.input, *node.output]
        if node.op_type == "Cast" and any(name.endswith(_WIDE) for name in names):
            continue
        plain = out.graph.node.add()
        plain.CopyFrom(node)
        for side in (plain.input, plain.output):
            for n, name in enumerate(side):
                side[n] = name.removesuffix(_WIDE)
    return out


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], f"cast/{target}", to=to)


def _norm_elements(step: ModelProto) -> dict[str, int]:
    """Name of a LayerNormalization -> elements that it sums over, from its input's stated shape."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*step.graph.value_info, *step.graph.input)
    }
    return {
        node.name: math.prod(shapes[node.input[0]][_axis(node) :])
        for node in step.graph.node
        if node.op_type == "LayerNormalization"
    }


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
