"""What one run of a graph takes: its values, each from where it is made to its last reader."""

from __future__ import annotations

import math

from stpl_core.safety.protobuf import Field, fields, numbers

# Field numbers of onnx.proto.
_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 7, 1, 5, 11, 12, 13
_READS, _MAKES, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _INTEGER = 1, 3
_TENSOR_NAME = 8
_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}
"""TensorProto.DataType -> bytes of a value."""
_VIEWS = frozenset({"Reshape", "Identity", "Unsqueeze", "Squeeze", "Flatten"})
"""What gives its input back under another name or shape."""
_KNOWN = 0.8
"""Share of the values whose shape must be stated for an answer."""


def live_bytes(model: bytes) -> int | None:
    """The most that a graph's values take together while it runs one sequence.

    Args:
        model: a serialised ONNX model whose first axis is the batch.

    Returns:
        Bytes, its inputs and outputs among them, without weights; None where it does not state
        its shapes.
    """
    (graph,) = [list(fields(entry.content)) for entry in fields(model) if entry.number == _GRAPH]
    sizes = _sizes(graph)
    nodes = [list(fields(entry.content)) for entry in graph if entry.number == _NODE]
    weights = {
        _texts(list(fields(entry.content)), _TENSOR_NAME)[0]
        for entry in graph
        if entry.number == _INITIALIZER
    }
    _add_kept_shapes(nodes, sizes)
    made = [name for node in nodes for name in _texts(node, _MAKES)]
    if sum(name in sizes for name in made) < _KNOWN * len(made):
        return None
    return _peak(nodes, sizes, weights, _names(graph, _INPUT), _names(graph, _OUTPUT))


def _peak(
    nodes: list[list[Field]],
    sizes: dict[str, int],
    weights: set[str],
    inputs: list[str],
    outputs: list[str],
) -> int:
    source: dict[str, str] = {}  # a view -> the value whose bytes it shows
    last: dict[str, int] = {}
    for at, node in enumerate(nodes):
        reads, makes = _texts(node, _READS), _texts(node, _MAKES)
        for name in reads:
            last[source.get(name, name)] = at
        if _texts(node, _OP_TYPE)[0] in _VIEWS and reads[0] not in weights:
            source[makes[0]] = source.get(reads[0], reads[0])
    kept = {*inputs, *(source.get(name, name) for name in outputs)}
    alive = {name: sizes.get(name, 0) for name in inputs}
    now = peak = sum(alive.values())
    for at, node in enumerate(nodes):
        for name in _texts(node, _MAKES):
            if name not in source and name not in alive:
                alive[name] = sizes.get(name, 0)
                now += alive[name]
        peak = max(peak, now)
        for name in {source.get(name, name) for name in (*_texts(node, _READS),)}:
            if last[name] == at and name in alive and name not in kept:
                now -= alive.pop(name)
    return peak


def _add_kept_shapes(nodes: list[list[Field]], sizes: dict[str, int]) -> None:
    """Give a size to what has its input's shape but states none: norms in float64, on both sides.

    They are put into a graph whose shapes were inferred before.
    """
    width: dict[str, int] = {}  # bytes of a number; 4 where nothing else is known
    for node in nodes:
        kind, source = _texts(node, _OP_TYPE)[0], _texts(node, _READS)[0]
        if kind not in ("Cast", "LayerNormalization") or source not in sizes:
            continue
        made, before = _texts(node, _MAKES)[0], width.get(source, 4)
        width[made] = _BYTES.get(_cast_to(node), before) if kind == "Cast" else before
        sizes.setdefault(made, sizes[source] // before * width[made])


def _cast_to(node: list[Field]) -> int:
    """TensorProto.DataType of a Cast."""
    for entry in node:
        if entry.number == _ATTRIBUTE:
            attribute = list(fields(entry.content))
            if _texts(attribute, _ATTRIBUTE_NAME)[0] == "to":
                return next(iter(numbers(attribute, _INTEGER)), 0)
    return 0


def _sizes(graph: list[Field]) -> dict[str, int]:
    """Value -> bytes for one sequence, where its shape is stated but for the batch."""
    found = {}
    for entry in graph:
        if entry.number in (_VALUE_INFO, _INPUT, _OUTPUT):
            value = list(fields(entry.content))
            size = _size(value)
            if size is not None:
                found[_texts(value, 1)[0]] = size
    return found


def _size(value: list[Field]) -> int | None:
    for about in (field for field in value if field.number == 2):
        for tensor in (field for field in fields(about.content) if field.number == 1):
            facts = list(fields(tensor.content))
            kind = next(iter(numbers(facts, 1)), 0)
            shapes = [list(fields(field.content)) for field in facts if field.number == 2]
            if kind in _BYTES and shapes:
                sides = [numbers(fields(side.content), 1) for side in shapes[0]]
                return math.prod(side[0] for side in sides if side) * _BYTES[kind]
    return None


def _names(graph: list[Field], kind: int) -> list[str]:
    return [_texts(list(fields(f.content)), 1)[0] for f in graph if f.number == kind]


def _texts(message: list[Field], field: int) -> list[str]:
    return [entry.content.decode() for entry in message if entry.number == field] or [""]
