"""An ONNX graph with its weights inside, for engines that take no weights from memory beside it."""

from __future__ import annotations

from collections.abc import Callable

from stpl_core.safety.onnx_graph import OnnxGraph, Weight
from stpl_core.safety.protobuf import Field, fields, part

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 8, 9, 13, 14


def with_weights(model: bytes, graph: OnnxGraph, content: Callable[[Weight], bytes]) -> bytes:
    """A serialised model that names no file.

    Args:
        model: as the bundle has it.
        graph: what it says; weights that no node reads are left out.
        content: gives the bytes of a weight that lies in a file.
    """
    outside = {weight.name: weight for weight in graph.weights if weight.location}

    def initializer(entry: Field) -> bytes:
        tensor = list(fields(entry.content))
        name = next((f.content.decode() for f in tensor if f.number == _TENSOR_NAME), "")
        if name not in outside:
            return entry.raw
        if name not in graph.read:
            return b""
        kept = (f.raw for f in tensor if f.number not in (_EXTERNAL_DATA, _DATA_LOCATION))
        return part(_GRAPH_INITIALIZER, b"".join([*kept, part(_RAW_DATA, content(outside[name]))]))

    def body(entry: Field) -> bytes:
        return b"".join(
            initializer(one) if one.number == _GRAPH_INITIALIZER else one.raw
            for one in fields(entry.content)
        )

    return b"".join(
        part(_MODEL_GRAPH, body(entry)) if entry.number == _MODEL_GRAPH else entry.raw
        for entry in fields(model)
    )
