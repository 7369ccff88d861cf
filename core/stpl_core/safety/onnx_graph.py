"""What an ONNX file says about itself, read and judged before any runtime sees it.

A runtime trusts a graph: it opens the files that it names, and some nonsense in it ends the process
by a signal. So its inputs, outputs, operations and weights are read here and held against what a
bundle's graph is: operations of the standard that only compute, values that exist before they are
read, weights that lie in files of the bundle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stpl_core.safety.protobuf import fields, signed

MOST_NODES = 200_000
_MOST_DIM = 2**31
_MOST_PARTS = 1000
"""Of a Split that makes fewer: an error when it runs."""

_COMPUTING = (
    "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization "
    "BitShift Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvInteger "
    "ConvTranspose Cos Cosh CumSum DFT DepthToSpace DequantizeLinear Div DynamicQuantizeLinear "
    "Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu "
    "Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization "
    "HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN "
    "LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul "
    "MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or "
    "PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal "
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Shape "
    "Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt "
    "Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample "
    "Where Xor"
)
OPERATIONS = frozenset(_COMPUTING.split())
"""Operations of the ONNX standard that compute on tensors: no control flow, text, random numbers,
training, or another domain's (one of those loads a file)."""
_LEAST_INPUTS = {
    "BatchNormalization": 5, "Conv": 2, "ConvInteger": 2, "ConvTranspose": 2, "DequantizeLinear": 2,
    "Div": 2, "Add": 2, "Sub": 2, "Mul": 2, "MatMul": 2, "MatMulInteger": 2, "Gemm": 2, "Pow": 2,
    "Gather": 2, "GatherElements": 2, "GatherND": 2, "GridSample": 2, "GroupNormalization": 3,
    "InstanceNormalization": 3, "LayerNormalization": 2, "PRelu": 2, "QLinearConv": 8,
    "QLinearMatMul": 8, "QuantizeLinear": 2, "RMSNormalization": 2, "Reshape": 2, "Expand": 2,
    "Tile": 2, "ScatterElements": 3, "ScatterND": 3, "Slice": 3, "Range": 3, "Where": 3,
    "OneHot": 3, "TopK": 2, "Unsqueeze": 1, "Constant": 0,
}  # fmt: skip
_MAY_LEAVE_OUT = frozenset({"Clip", "Resize", "Pad", "Slice"})
"""Operations whose inputs in the middle may be left out, as an empty name."""

_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""TensorProto.DataType -> bytes of a value."""
TYPES = {"float32": 1, "float16": 10, "float64": 11}
_EXTERNAL = 1


@dataclass(frozen=True)
class Value:
    """An input or output of a graph."""

    name: str
    kind: int
    """TensorProto.DataType; 0 where it is not stated."""
    shape: tuple[int | str, ...]
    """A number, or the name of a free axis."""


@dataclass(frozen=True)
class Weight:
    """A tensor that a graph carries, in itself or in a file."""

    name: str
    kind: int
    shape: tuple[int, ...]
    location: str = ""
    """The file, as the graph names it; empty where it is in the graph itself."""
    offset: int = 0
    length: int | None = None

    @property
    def bytes(self) -> int:
        """How much room its values take."""
        return math.prod(self.shape) * _BYTES[self.kind]


@dataclass(frozen=True)
class OnnxGraph:
    """The parts of an ONNX file that say what it reads, gives and does."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operations: frozenset[str]
    weights: tuple[Weight, ...]
    read: frozenset[str] = frozenset()
    """Names that a node reads, and the outputs; a runtime drops weights that are not among them."""


def read_graph(content: bytes) -> OnnxGraph:
    """Read an ONNX file.

    Raises:
        ValueError: it is damaged, or it is not what a bundle's graph may be; says why.
    """
    model = _fields(content)
    if _parts(model, 20) or _parts(model, 25):
        raise ValueError("it has training steps or functions of its own")
    for opset in _parts(model, 8):
        domain = _text(_fields(opset), 1)
        if domain not in ("", "ai.onnx"):
            raise ValueError(f"it uses operations of {domain!r}, which are not the standard's")
    (graph,) = _one(model, 7)
    found = _fields(graph)
    if _parts(found, 15):
        raise ValueError("it has sparse weights")
    weights = tuple(_weight(tensor) for tensor in _parts(found, 5))
    inputs = tuple(_value(value) for value in _parts(found, 11))
    outputs = tuple(_value(value) for value in _parts(found, 12))
    known = {value.name for value in inputs} | {weight.name for weight in weights}
    if len(known) < len(inputs) + len(weights) or "" in known:
        raise ValueError("two of its inputs and weights have one name, or none")
    read = {value.name for value in outputs}
    operations = _check_nodes(_parts(found, 1), known, read)
    missing = [value.name for value in outputs if value.name not in known]
    if missing or len({value.name for value in outputs}) < len(outputs):
        raise ValueError(f"its outputs are not all made, or there twice: {missing[:3]}")
    return OnnxGraph(inputs, outputs, operations, weights, frozenset(read))


def _check_nodes(nodes: list[bytes], known: set[str], read: set[str]) -> frozenset[str]:
    """Judge every node; add what it makes to `known`, and what it reads to `read`."""
    if len(nodes) > MOST_NODES:
        raise ValueError(f"it has {len(nodes):,} nodes")
    seen = set()
    for content in nodes:
        node = _fields(content)
        kind, domain = _text(node, 4), _text(node, 7)
        if kind not in OPERATIONS or domain not in ("", "ai.onnx"):
            raise ValueError(f"it has the operation {(domain + ' ' + kind).strip()[:60]!r}")
        seen.add(kind)
        inputs = [_decoded(name) for name in _parts(node, 1)]
        outputs = [_decoded(name) for name in _parts(node, 2)]
        _check_inputs(kind, inputs, known)
        read.update(inputs)
        for name in outputs:
            if name in known or not name:
                raise ValueError(f"a {kind} makes {name[:60]!r}, which already exists")
            known.add(name)
        if not outputs:
            raise ValueError(f"a {kind} makes nothing")
        attributes = _parts(node, 5)
        for attribute in attributes:
            _check_attribute(kind, attribute)
        if kind == "Split":
            _check_split(attributes, len(outputs))
    return frozenset(seen)


def _check_inputs(kind: str, inputs: list[str], known: set[str]) -> None:
    if len(inputs) < _LEAST_INPUTS.get(kind, 1):
        raise ValueError(f"a {kind} has {len(inputs)} inputs")
    for place, name in enumerate(inputs):
        if name and name not in known:
            raise ValueError(f"a {kind} reads {name[:60]!r}, which nothing made before it")
        last = place == len(inputs) - 1
        if not name and (place == 0 or last or kind not in _MAY_LEAVE_OUT):
            raise ValueError(f"a {kind} has no name for its input {place + 1}")


def _check_attribute(kind: str, content: bytes) -> None:
    """No subgraphs, and no tensors that lie elsewhere."""
    attribute = _fields(content)
    if any(_parts(attribute, number) for number in (6, 11, 22, 23)):
        raise ValueError(f"a {kind} holds a graph or a sparse tensor of its own")
    for number in (5, 10):
        for tensor in _parts(attribute, number):
            if _weight(tensor).location:
                raise ValueError(f"a {kind} holds a tensor that lies in a file")


def _check_split(attributes: list[bytes], outputs: int) -> None:
    """Into fewer parts than it makes, ONNX Runtime writes beyond its memory; many take for ever."""
    for content in attributes:
        attribute = _fields(content)
        name = _text(attribute, 1)
        parts = (_numbers(attribute, 3) or [0])[-1:] if name == "num_outputs" else []
        if name == "split":
            parts = [len(_numbers(attribute, 8))]
        if parts and not outputs <= parts[0] <= max(outputs, _MOST_PARTS):
            raise ValueError(f"a Split into {parts[0]} makes {outputs} parts")


def _weight(content: bytes) -> Weight:
    tensor = _fields(content)
    shape = tuple(_numbers(tensor, 1))
    kind = next(iter(_numbers(tensor, 2)), 0)
    name = _text(tensor, 8)
    if kind not in _BYTES or not all(0 <= side < _MOST_DIM for side in shape):
        raise ValueError(f"the weight {name[:60]!r} has the type {kind} and the shape {shape}")
    if next(iter(_numbers(tensor, 14)), 0) != _EXTERNAL and not _parts(tensor, 13):
        weight = Weight(name, kind, shape)
        raw = _parts(tensor, 9)
        if raw and len(raw[0]) != weight.bytes:
            raise ValueError(f"the weight {name[:60]!r} has {len(raw[0])} bytes")
        if not raw and math.prod(shape) > len(content):
            raise ValueError(f"the weight {name[:60]!r} states {shape} and does not hold it")
        return weight
    keys: dict[str, str] = {}
    for entry in _parts(tensor, 13):
        pair = _fields(entry)
        keys[_text(pair, 1)] = _text(pair, 2)
    try:
        offset, length = int(keys.get("offset", "0")), int(keys["length"])
        weight = Weight(name, kind, shape, keys["location"], offset, length)
    except (KeyError, ValueError) as error:
        raise ValueError(f"the weight {name[:60]!r} lies nowhere: {keys}") from error
    if offset < 0 or length != weight.bytes or not weight.location:
        raise ValueError(f"the weight {name[:60]!r} takes {weight.bytes} bytes, not {length}")
    return weight


def _value(content: bytes) -> Value:
    found = _fields(content)
    name = _text(found, 1)
    kind, shape = 0, list[int | str]()
    for about in _parts(found, 2):
        for tensor in _parts(_fields(about), 1):
            facts = _fields(tensor)
            kind = next(iter(_numbers(facts, 1)), 0)
            for sides in _parts(facts, 2):
                shape += [_side(side) for side in _parts(_fields(sides), 1)]
    return Value(name, kind, tuple(shape))


def _side(content: bytes) -> int | str:
    side = _fields(content)
    return next(iter(_numbers(side, 1)), None) or _text(side, 2) or "?"


_Fields = Mapping[int, list[bytes | int]]


def _fields(message: bytes) -> _Fields:
    """Field number -> what is there, in order: bytes, or the number of a varint."""
    found: dict[int, list[bytes | int]] = {}
    for field in fields(message):
        value = field.value if field.is_number else field.content
        found.setdefault(field.number, []).append(value)
    return found


def _parts(message: _Fields, number: int) -> list[bytes]:
    found = message.get(number, [])
    if not all(isinstance(part, bytes) for part in found):
        raise ValueError(f"field {number} is a number")
    return [part for part in found if isinstance(part, bytes)]


def _one(message: _Fields, number: int) -> list[bytes]:
    found = _parts(message, number)
    if len(found) != 1:
        raise ValueError(f"it holds {len(found)} graphs")
    return found


def _text(message: _Fields, number: int) -> str:
    found = _parts(message, number)
    return _decoded(found[-1]) if found else ""


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError("a name in it is no text") from error


def _numbers(message: _Fields, number: int) -> list[int]:
    """A repeated integer field, packed or not."""
    return signed(message.get(number, []))


def check_weights(graph: OnnxGraph, size_of: Callable[[str], int | None]) -> None:
    """Refuse weights that lie outside the bundle's own files, or beyond their ends.

    Args:
        graph: what was read.
        size_of: bytes of a file that the manifest names; None for any other name.

    Raises:
        ValueError: they do.
    """
    for weight in graph.weights:
        if not weight.location:
            continue
        size = size_of(weight.location)
        if size is None:
            raise ValueError(
                f"its weight {weight.name[:60]!r} lies in {weight.location[:80]!r}, which the "
                "manifest does not name"
            )
        if weight.offset + weight.bytes > size:
            raise ValueError(f"its weight {weight.name[:60]!r} lies beyond {weight.location}")
