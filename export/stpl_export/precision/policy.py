"""fp16 and bf16: a policy per operation, and the step graph typed after it.

TensorRT 11 is strongly typed: an engine computes in the types that the graph states, so half
precision is a property of the graph. The policy (bibliography.md 5):

    half   convolutions, and matrix products that are work of the same kind (attention's weights
           times values); reshapes and splits whose results only such operations read
    fp32   norms and their statistics (a sum of 65,536 squares is beyond fp16, and epsilon 1e-5
           below its normal range), softmax and the products that make its logits, everything
           between a convolution and a carried state (c, m, S, history: they grow or decay by less
           than half precision resolves), the inputs and outputs of the graph

A half convolution reads half inputs and half weights, sums in fp32 and rounds its result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stpl_core.errors import AccuracyError, BundleError, UsageError

Half = Literal["fp16", "bf16"]

WORK = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
"""Operations whose cost is multiplications."""
MOVES = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operations that move values and compute nothing."""

_ONNX_TYPE: dict[Half, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NUMPY_TYPE: dict[Half, Any] = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
_GREATEST: dict[Half, float] = {"fp16": 65504.0, "bf16": 3.3895e38}
_BF16_OPSET = 22
"""The first opset whose Conv takes bfloat16."""


@dataclass(frozen=True)
class Policy:
    """Which nodes of a step graph compute in half precision, by name."""

    precision: Half
    half: frozenset[str]
    kept: dict[str, str]
    """Work that stays in fp32: node -> why."""


def make_policy(step: ModelProto, precision: Half, keep: Collection[str] = ()) -> Policy:
    """Decide for every node of the step graph.

    Args:
        step: an fp32 graph whose nodes have unique names.
        precision: `fp16` or `bf16`.
        keep: further nodes that must stay in fp32, such as those that `verify --bisect` named.

    Raises:
        UsageError: `keep` names a node that the graph does not have.
    """
    nodes = list(step.graph.node)
    unknown = sorted(set(keep) - {node.name for node in nodes})
    if unknown:
        raise UsageError(
            f"no node {unknown[0]} in the step graph",
            expected="names printed by stpl-deploy verify --bisect",
            fix="leave --keep-fp32 out",
        )
    kept = dict.fromkeys(_logit_products(nodes), "makes the logits of a softmax")
    kept |= dict.fromkeys(keep, "asked for by --keep-fp32")
    half = {node.name for node in nodes if node.op_type in WORK and node.name not in kept}
    half |= _moves_between(step, half, keep)
    return Policy(precision, frozenset(half), kept)


def _logit_products(nodes: list[NodeProto]) -> Iterable[str]:
    """Names of the products from which a softmax's input is made."""
    read = [
        name for node in nodes if node.op_type in ("Softmax", "LogSoftmax") for name in node.input
    ]
    return (node.name for node in work_behind(nodes, read) if node.op_type in ("MatMul", "Gemm"))


def work_behind(nodes: Collection[NodeProto], values: Iterable[str]) -> Iterator[NodeProto]:
    """The operations of `WORK` from whose results these values are made, none other between."""
    maker = {output: node for node in nodes for output in node.output}
    seen: set[str] = set()
    todo = list(values)
    while todo:
        name = todo.pop()
        if name in seen or name not in maker:
            continue
        seen.add(name)
        node = maker[name]
        if node.op_type in WORK:
            yield node
        else:
            todo.extend(node.input)


def _moves_between(step: ModelProto, half: Collection[str], keep: Collection[str]) -> set[str]:
    """Names of the moves all of whose readers are half, from the last node to the first."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in step.graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {value.name for value in step.graph.output}
    floats = float_values(step)
    moved: set[str] = set()
    for node in reversed(step.graph.node):
        if node.op_type not in MOVES or node.name in keep:
            continue
        users = [user for name in node.output for user in readers[name]]
        if (
            users
            and outputs.isdisjoint(node.output)
            and floats.issuperset(node.output)
            and all(user.name in half or user.name in moved for user in users)
        ):
            moved.add(node.name)
    return moved


def float_values(model: ModelProto) -> set[str]:
    """Names of all float32 values of a graph: inputs, initializers and results."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    typed = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return typed | {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}


def half_name(name: str, precision: Half) -> str:
    """The name of a value's or weight's copy in half precision."""
    return f"{name}/{precision}"


def typed_step(step: ModelProto, policy: Policy) -> ModelProto:
    """Return the step graph with the policy's nodes in half precision, cast at the borders.

    Inputs, outputs and everything that is not in the policy stay fp32. Each value is cast at most
    once in each direction. Half weights are new initializers; fp32 ones that nothing reads any
    more are left out.

    Args:
        step: the fp32 graph, weights inside.
        policy: from `make_policy` for this graph.

    Raises:
        AccuracyError: a weight is too large for fp16.
    """
    typer = _Typer(step, policy)
    made = rebuilt(step, typer.run(), typer.weights.values())
    if policy.precision == "bf16":
        for entry in made.opset_import:
            if entry.domain == "":
                entry.version = max(entry.version, _BF16_OPSET)
    return made


def rebuilt(
    step: ModelProto, nodes: Iterable[NodeProto], weights: Iterable[TensorProto]
) -> ModelProto:
    """A graph with other nodes and further weights; what nothing reads any more is left out."""
    made = ModelProto()
    made.CopyFrom(step)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(nodes)
    read = {name for node in made.graph.node for name in node.input}
    made.graph.initializer.extend(t for t in step.graph.initializer if t.name in read)
    made.graph.initializer.extend(weights)
    return made


def reading(node: NodeProto, names: Iterable[str]) -> NodeProto:
    """A copy of a node with other inputs."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = names
    return copy


class _Typer:
    """Walks the nodes in order; knows which form of each value exists already."""

    def __init__(self, step: ModelProto, policy: Policy) -> None:
        self.graph, self.policy = step.graph, policy
        self.floats = float_values(step)
        self.initializers = {tensor.name: tensor for tensor in step.graph.initializer}
        self.weights: dict[str, TensorProto] = {}
        self.nodes: list[NodeProto] = []
        self.in_half: set[str] = set()
        """Values that have a half form."""
        self.only_half: set[str] = set()
        """Values that have no fp32 form yet."""

    def run(self) -> list[NodeProto]:
        for node in self.graph.node:
            self._append(node)
        for value in self.graph.output:
            self._full(value.name)
        return self.nodes

    def _append(self, node: NodeProto) -> None:
        half = node.name in self.policy.half
        read = self._half if half else self._full
        copy = reading(node, [read(n) if n in self.floats else n for n in node.input])
        if half:
            copy.output[:] = [half_name(name, self.policy.precision) for name in node.output]
            self.in_half.update(node.output)
            self.only_half.update(node.output)
        self.nodes.append(copy)

    def _half(self, name: str) -> str:
        made = half_name(name, self.policy.precision)
        if name in self.initializers:
            if made not in self.weights:
                self.weights[made] = _half_weight(self.initializers[name], self.policy.precision)
        elif name not in self.in_half:
            self._cast(name, made, _ONNX_TYPE[self.policy.precision])
            self.in_half.add(name)
        return made

    def _full(self, name: str) -> str:
        if name in self.only_half:
            self._cast(half_name(name, self.policy.precision), name, TensorProto.FLOAT)
            self.only_half.remove(name)
        return name

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"cast/{target}", to=kind))


def _half_weight(tensor: TensorProto, precision: Half) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        rounded = values.astype(_NUMPY_TYPE[precision])
    if not np.isfinite(rounded.astype(np.float32)).all():
        raise AccuracyError(
            f"{tensor.name} has weights up to {np.abs(values).max():.3g}",
            expected=f"at most {_GREATEST[precision]:.6g}, the greatest value of {precision}",
            fix="--precision bf16" if precision == "fp16" else "--precision fp32",
        )
    return numpy_helper.from_array(rounded, half_name(tensor.name, precision))


def half_weights(typed: ModelProto, precision: Half) -> dict[str, NDArray[Any]]:
    """The half-precision weights of a typed graph, by initializer name."""
    kind = _ONNX_TYPE[precision]
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in typed.graph.initializer
        if tensor.data_type == kind
    }


def untyped_step(typed: ModelProto, weights: dict[str, NDArray[Any]]) -> tuple[ModelProto, Policy]:
    """Undo `typed_step`: the fp32 step graph of a bundle in half precision, and its policy.

    Args:
        typed: a step graph that `typed_step` made; its weights need not be loaded.
        weights: the fp32 weights of the same bundle, by name.

    Raises:
        BundleError: the graph is not one of `typed_step`, or a weight is missing.
    """
    precision = precision_of(typed)
    if precision is None:
        raise BundleError(
            "the step graph has no operation in half precision",
            expected="a bundle in fp16 or bf16",
            fix="stpl-deploy export RUN --out BUNDLE --precision fp16",
        )
    suffix = f"/{precision}"
    made = ModelProto()
    made.CopyFrom(typed)
    del made.graph.node[:], made.graph.initializer[:]
    half = set()
    for node in typed.graph.node:
        if node.op_type == "Cast" and node.name.startswith("cast/"):
            continue
        if any(name.endswith(suffix) for name in node.output):
            half.add(node.name)
        copy = made.graph.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [name.removesuffix(suffix) for name in node.input]
        copy.output[:] = [name.removesuffix(suffix) for name in node.output]
    names = dict.fromkeys(t.name.removesuffix(suffix) for t in typed.graph.initializer)
    inline = {t.name: t for t in typed.graph.initializer if not t.external_data}
    for name in names:
        if name in weights:
            made.graph.initializer.append(numpy_helper.from_array(weights[name], name))
        elif name in inline:
            made.graph.initializer.append(inline[name])
        else:
            raise BundleError(
                f"the bundle has no fp32 weights of {name}",
                expected="the fp32 weights beside those in half precision",
                fix="export again",
            )
    return made, Policy(precision, frozenset(half), {})


def precision_of(step: ModelProto) -> Half | None:
    """The half precision that a typed step graph uses; None for an fp32 graph."""
    for precision in _ONNX_TYPE:
        if any(t.data_type == _ONNX_TYPE[precision] for t in step.graph.initializer):
            return precision
    return None


def opset_of(model: ModelProto) -> int:
    """The version of the default operator set that a graph asks for."""
    return max(int(entry.version) for entry in model.opset_import if entry.domain == "")
