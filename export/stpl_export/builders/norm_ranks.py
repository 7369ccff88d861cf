"""Norms' scales and biases with the rank of what they scale, for TensorRT's parser.

`LayerNormalization` may have a scale `(C, H, W)` for an input `(B, C, H, W)`. TensorRT wants equal
ranks, so its parser reshapes scale and bias of every norm, in every unrolled step anew; these
constant reshapes were half to two thirds of the builder's time (docs/tensorrt.md). A weight that
is stored as `(1, C, H, W)` has the same bytes and needs none.
"""

from __future__ import annotations

from collections import defaultdict

from onnx import ModelProto


def full_rank_norms(model: ModelProto) -> ModelProto:
    """Return the graph with leading ones in the shapes of norms' weights.

    Args:
        model: a graph that states the shapes of its values (those without are left as they are).
    """
    out = ModelProto()
    out.CopyFrom(model)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*out.graph.value_info, *out.graph.input)
    }
    ranks_read: dict[str, set[int]] = defaultdict(set)
    for node in out.graph.node:
        for n, name in enumerate(node.input):
            norm = node.op_type == "LayerNormalization" and n > 0
            ranks_read[name].add(ranks.get(node.input[0], 0) if norm else 0)
    for tensor in out.graph.initializer:
        readers = ranks_read[tensor.name]
        if len(readers) == 1:  # 0 where anything else reads it, or the rank is not known
            ones = max(readers.pop() - len(tensor.dims), 0)
            dims = [1] * ones + list(tensor.dims)
            del tensor.dims[:]
            tensor.dims.extend(dims)
    return out
