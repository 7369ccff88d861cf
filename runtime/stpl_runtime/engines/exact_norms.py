"""Norms that are exact on every ONNX Runtime, whatever its kernel does.

The CPU kernel of LayerNormalization has lost digits in two ways: up to 1.26 it takes the variance
as mean(x²) - mean(x)² of float32 sums, up to 1.29 it sums one value after the other. For 4096
values with a mean of five standard deviations that is 1.4e-4 and 9e-6 off, where PyTorch is 5e-7
off; from 1.30 on it is 7e-7. The kernel of InstanceNormalization, in all versions, takes the mean
off first and sums in vector lanes: 7e-7, in less time than the old kernels. So where the kernel is
found to be an old one, graphs are opened with

    LayerNormalization(x, scale, bias) = InstanceNormalization(x as (B, 1, n)) * scale + bias

in place of each float32 norm. The bundle's files stay as they are. Norms that the export sums in
float64 are exact on every version and are left alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stpl_core.safety.protobuf import Field, fields, number, numbers, part

_PROBE_VALUES, _PROBE_MEAN = 16384, 8.0
_PROBE_LIMIT = 5e-6
"""On the probe the kernel of 1.30 is 1e-6 off, that of 1.28 3e-5, that of 1.26 3e-4."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5
_INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT = 1, 3
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT, _INT64, _DOUBLE = 1, 7, 11


@functools.cache
def norms_lose_digits() -> bool:
    """Whether this ONNX Runtime's CPU kernel loses a norm's digits: asked of the kernel itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_probe(), options, providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).standard_normal((1, _PROBE_VALUES))
    values = (noise + _PROBE_MEAN).astype(np.float32)
    found = session.run(None, {"x": values})[0]
    wide = values.astype(np.float64)
    exact = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5)
    return bool(np.abs(found - exact).max() > _PROBE_LIMIT)


def with_exact_norms(model: bytes) -> bytes:
    """A serialised ONNX model with its float32 norms replaced, as the module says."""
    return b"".join(
        part(_MODEL_GRAPH, _graph(entry.content)) if entry.number == _MODEL_GRAPH else entry.raw
        for entry in fields(model)
    )


def _graph(graph: bytes) -> bytes:
    entries = list(fields(graph))
    sizes = _sizes(entries)
    nodes = [_Node.read(entry) for entry in entries if entry.number == _GRAPH_NODE]
    wide = {node.outputs[0] for node in nodes if node.op_type == "Cast" and node.to == _DOUBLE}
    made: list[bytes] = []
    constants: dict[str, bytes] = {}
    for node in nodes:
        dims = sizes.get(node.inputs[1]) if node.op_type == "LayerNormalization" else None
        if dims is None or node.inputs[0] in wide or node.axis != -len(dims):
            made.append(node.raw)
            continue
        made.extend(_replaced(node, math.prod(dims), constants))
    rest = [entry.raw for entry in entries if entry.number != _GRAPH_NODE]
    return b"".join([*made, *rest, *constants.values()])


def _sizes(entries: list[Field]) -> dict[str, list[int]]:
    """Initializer -> its dimensions."""
    found = {}
    for entry in entries:
        if entry.number == _GRAPH_INITIALIZER:
            tensor = list(fields(entry.content))
            found[_text(tensor, _TENSOR_NAME)] = numbers(tensor, _DIMS)
    return found


@dataclass(frozen=True)
class _Node:
    raw: bytes
    op_type: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Field]

    @classmethod
    def read(cls, entry: Field) -> _Node:
        node = list(fields(entry.content))
        attributes = (field for field in node if field.number == _ATTRIBUTE)
        return cls(
            entry.raw,
            _text(node, _OP_TYPE),
            _text(node, _NAME),
            [field.content.decode() for field in node if field.number == _INPUT],
            [field.content.decode() for field in node if field.number == _OUTPUT],
            {_text(fields(field.content), _ATTRIBUTE_NAME): field for field in attributes},
        )

    @property
    def axis(self) -> int:
        return self._int("axis", -1)

    @property
    def to(self) -> int:
        return self._int("to", 0)

    def _int(self, name: str, default: int) -> int:
        if name not in self.attributes:
            return default
        return numbers(fields(self.attributes[name].content), _ATTRIBUTE_INT)[0]


def _replaced(node: _Node, values: int, constants: dict[str, bytes]) -> Iterator[bytes]:
    """The nodes in place of a norm over so many values; `constants` gets what they read."""
    rows = _constant(constants, f"exact/rows{values}", np.array([-1, 1, values], np.int64))
    one = _constant(constants, "exact/one", np.ones(1, np.float32))
    zero = _constant(constants, "exact/zero", np.zeros(1, np.float32))
    x, scale, *bias = node.inputs
    out = node.outputs[0]
    epsilon = [node.attributes["epsilon"].raw] if "epsilon" in node.attributes else []
    shape = f"{out}/exact/shape"
    yield _node("Shape", [x], shape)
    yield _node("Reshape", [x, rows], f"{out}/exact/rows")
    yield _node(
        "InstanceNormalization", [f"{out}/exact/rows", one, zero], f"{out}/exact/normed", epsilon
    )
    yield _node("Reshape", [f"{out}/exact/normed", shape], f"{out}/exact/plain")
    yield _node("Mul", [f"{out}/exact/plain", scale], f"{out}/exact/scaled" if bias else out)
    if bias:
        yield _node("Add", [f"{out}/exact/scaled", bias[0]], out)


def _node(
    op_type: str, inputs: list[str], output: str, attributes: list[bytes] | None = None
) -> bytes:
    content = b"".join(part(_INPUT, name.encode()) for name in inputs)
    content += part(_OUTPUT, output.encode()) + part(_NAME, f"{op_type}/{output}".encode())
    content += part(_OP_TYPE, op_type.encode()) + b"".join(attributes or [])
    return part(_GRAPH_NODE, content)


def _constant(constants: dict[str, bytes], name: str, values: np.ndarray) -> str:
    kind = _INT64 if values.dtype == np.int64 else _FLOAT
    content = number(_DIMS, len(values)) + number(_DATA_TYPE, kind)
    content += part(_TENSOR_NAME, name.encode()) + part(_RAW_DATA, values.tobytes())
    constants.setdefault(name, part(_GRAPH_INITIALIZER, content))
    return name


def _text(message: list[Field] | Iterator[Field], field: int) -> str:
    return next((entry.content.decode() for entry in message if entry.number == field), "")


def _probe() -> bytes:
    """An ONNX model `y = LayerNormalization(x)` over the last axis; opset 17, IR 8."""
    shape = b"".join(part(1, number(1, side)) for side in (1, _PROBE_VALUES))
    value = part(2, part(1, number(1, _FLOAT) + part(2, shape)))
    constants: dict[str, bytes] = {}
    scale = _constant(constants, "scale", np.ones(_PROBE_VALUES, np.float32))
    graph = (
        _node("LayerNormalization", ["x", scale], "y")
        + part(2, b"probe")
        + constants[scale]
        + part(11, part(1, b"x") + value)
        + part(12, part(1, b"y") + value)
    )
    return number(1, 8) + part(_MODEL_GRAPH, graph) + part(8, number(2, 17))
