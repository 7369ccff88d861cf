"""A bundle's graphs and weights as they were checked: read once, hashed, judged, used from there.

Opened again by their paths after the check, they could be others: overwritten in place they change
a running engine's results, cut short they end its process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, GraphName
from stpl_core.errors import BundleError
from stpl_core.safety.half_written import scratch_directory
from stpl_core.safety.onnx_graph import TYPES, OnnxGraph, Value, Weight, check_weights, read_graph
from stpl_core.safety.printable import printable

if TYPE_CHECKING:
    import onnxruntime

_NUMPY: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64, 16: np.uint16,
}  # fmt: skip
"""TensorProto.DataType -> how its bytes are seen; bfloat16 as 16 bits."""
_BFLOAT16 = 16


class CheckedGraphs:
    """Reads each file of one bundle once."""

    def __init__(self, bundle: Bundle) -> None:
        """Read nothing yet."""
        self._bundle = bundle
        self._files: dict[str, bytes] = {}
        self._kept: list[onnxruntime.OrtValue] = []

    def graph(self, name: GraphName) -> tuple[bytes, OnnxGraph]:
        """A graph's bytes and what they say.

        Raises:
            BundleError: the bundle has no such graph, or it is not what a bundle's graph may be.
            ChecksumError: its bytes are not those that the manifest states.
        """
        path = self._bundle.graph(name)
        file = self._bundle.manifest.graphs[name].file
        content = self._bundle.content(file)
        try:
            found = read_graph(content)
            check_weights(found, self._size_of)
            _check_values(self._bundle, name, found)
        except ValueError as error:
            raise BundleError(
                f"{path}: {printable(error)}",
                expected="a graph as export writes it",
                fix="do not use this bundle: no export of stpl-deploy wrote it",
            ) from error
        return content, found

    def lend_weights(self, graph: OnnxGraph, options: onnxruntime.SessionOptions) -> None:
        """Give a session the graph's weights from memory, which stays theirs; nothing is copied."""
        outside = [one for one in graph.weights if one.location and one.name in graph.read]
        if not outside:
            return
        values = [self._value(weight) for weight in outside]
        options.add_external_initializers([weight.name for weight in outside], values)
        self._kept += values

    @contextmanager
    def private_copy(self, name: GraphName) -> Iterator[Path]:
        """The graph and its weights as files that only this user can reach, while it is loaded.

        Raises:
            BundleError, ChecksumError: see `graph`.
        """
        content, found = self.graph(name)
        outside = {weight.location for weight in found.weights if weight.location}
        with scratch_directory("graph") as folder:
            for file in sorted(outside):
                own = folder / file
                own.parent.mkdir(parents=True, exist_ok=True)
                own.write_bytes(self._content(file))
            path = folder / self._bundle.manifest.graphs[name].file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            yield path

    def whole(self, content: bytes, graph: OnnxGraph) -> bytes:
        """A graph with its weights inside, from the bytes that were checked."""
        from stpl_runtime.engines.inline_weights import with_weights

        return with_weights(content, graph, self._bytes_of)

    def close(self) -> None:
        """Let go of all that sessions were lent: after they are gone."""
        self._kept.clear()
        self._files.clear()

    def _value(self, weight: Weight) -> onnxruntime.OrtValue:
        import onnxruntime

        content = self._content(weight.location)
        count = weight.bytes // np.dtype(_NUMPY[weight.kind]).itemsize
        array: NDArray[Any] = np.frombuffer(content, _NUMPY[weight.kind], count, weight.offset)
        array = np.require(array.reshape(weight.shape), requirements=["C", "A"])
        if weight.kind == _BFLOAT16:
            return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def _content(self, file: str) -> bytes:
        if file not in self._files:
            self._files[file] = self._bundle.content(file)
        return self._files[file]

    def _bytes_of(self, weight: Weight) -> bytes:
        return self._content(weight.location)[weight.offset : weight.offset + weight.bytes]

    def _size_of(self, name: str) -> int | None:
        spec = self._bundle.manifest.files.get(name)
        return None if spec is None else spec.bytes


def not_open(graph: GraphName) -> BundleError:
    """A call that needs a graph which the session was not opened with."""
    return BundleError(
        f"the {graph} graph is not open",
        expected=f"open_session(bundle, [..., '{graph}'])",
        fix=f"ask for {graph} when the session is opened",
    )


def check_graphs(bundle: Bundle, graphs: Sequence[GraphName]) -> None:
    """Judge graphs without opening them; see `CheckedGraphs.graph`."""
    checked = CheckedGraphs(bundle)
    for name in graphs:
        checked.graph(name)


def _check_values(bundle: Bundle, name: GraphName, graph: OnnxGraph) -> None:
    """Hold a graph's own inputs and outputs against the manifest's.

    Raises:
        ValueError: they differ.
    """
    manifest = bundle.manifest
    spec, frame = manifest.graphs[name], manifest.frame
    read = (manifest.context, *frame) if name == "rollout" else frame
    given = frame if name == "step" else (manifest.horizon, *frame)
    states = () if name == "rollout" else manifest.state
    reads = [(s.input, s) for s in states if s.input is not None]
    for what, values, names, first, pairs in (
        ("inputs", graph.inputs, spec.inputs, read, reads),
        ("outputs", graph.outputs, spec.outputs, given, [(s.output, s) for s in states]),
    ):
        if tuple(value.name for value in values) != tuple(names):
            raise ValueError(f"its {what} are not those that the manifest names for it")
        known = {value.name: value for value in values}
        _check_value(known[names[0]], first, TYPES["float32"])
        for key, state in pairs:
            _check_value(known[key], state.shape, TYPES[state.dtype])


def _check_value(value: Value, shape: Sequence[int], kind: int) -> None:
    if value.kind != kind:
        raise ValueError(f"{value.name} is of the type {value.kind}, expected {kind}")
    if len(value.shape) != len(shape) + 1 or tuple(value.shape[1:]) != tuple(shape):
        raise ValueError(f"{value.name} has the shape {value.shape}, expected (B, *{tuple(shape)})")
