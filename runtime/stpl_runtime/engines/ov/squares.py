"""Maps kept as squares of 4 x 4, between convolutions with fewer products (`winograd`).

Such a convolution makes `(4, 4, down, right, C)`: the places in a square, the squares, channels
last. To bring that to `(1, C, H, W)` moves every value by itself, and the next convolution moves it
back. A gated cell has nothing in between but sums, products, sigmoids and splits of channels, to
which the order of the places is all the same. So these are computed on the squares too; a map is
made only for what needs one, and the compiler drops those that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 4
"""Of the squares."""
_BY_VALUE = {
    "Add": "add",
    "Subtract": "subtract",
    "Multiply": "multiply",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
}
"""Type of a node -> what makes one."""
_CHANNELS, _LAST = 1, 4
"""The axis of channels, of a map and of squares."""


class Constants:
    """Of a graph, each made once: they are shared by the steps of an unrolled one."""

    def __init__(self) -> None:
        """None yet."""
        self._made: dict[str, Any] = {}

    def kept(self, name: str, value: Callable[[], NDArray[Any]], precision: str = "f32") -> Any:
        """The constant of this name; `value` makes it, where it is new.

        Args:
            name: says what it is, and of which convolution.
            value: float32 or integers.
            precision: `bf16` rounds it.
        """
        import openvino
        import openvino.opset13 as ops

        if name not in self._made:
            made = np.ascontiguousarray(value())
            self._made[name] = (
                ops.constant(_nearest_bf16(made), openvino.Type.bf16)
                if precision == "bf16"
                else ops.constant(made)
            )
        return self._made[name]

    def sizes(self, *values: int) -> Any:
        """Integers."""
        return self.kept(f"sizes {values}", lambda: np.asarray(values, np.int64))

    def shaped(self, x: Any, *size: int) -> Any:
        """The same values in another shape."""
        import openvino.opset13 as ops

        return ops.reshape(x, self.sizes(*size), special_zero=False)

    def ordered(self, x: Any, *axes: int) -> Any:
        """The same values with the axes in this order."""
        import openvino.opset13 as ops

        return ops.transpose(x, self.sizes(*axes))


class Squares:
    """Which values of a graph are there as squares."""

    def __init__(self, constants: Constants) -> None:
        """None yet."""
        self._constants = constants
        self._known: dict[tuple[str, int], Any] = {}

    def of(self, value: Any) -> Any | None:
        """A value `(1, C, H, W)` as `(4, 4, H / 4, W / 4, C)`, where it is there so."""
        return self._known.get(_key(value))

    def put(self, value: Any, squares: Any) -> None:
        """Let what reads a value read these as a map from now on."""
        made = self.as_map(squares)
        self._known[_key(made)] = squares
        value.replace(made)

    def as_map(self, squares: Any) -> Any:
        """Squares `(4, 4, down, right, C)` as a map `(1, C, 4 down, 4 right)`."""
        _, _, down, right, channels = squares.get_shape()
        made = self._constants.ordered(squares, 4, 2, 0, 3, 1)  # (C, down, 4, right, 4)
        return self._constants.shaped(made, 1, channels, SIDE * down, SIDE * right).output(0)

    def follow(self, node: Any) -> None:
        """Compute a node on squares, if one of its inputs is there so and it is one that can be."""
        values = node.input_values()
        known = next((made for value in values if (made := self.of(value)) is not None), None)
        if known is None:
            return
        made = self._computed(node, values, known)
        if made is not None:
            made.set_friendly_name(f"{node.get_friendly_name()}/squares")
            for old, new in zip(node.outputs(), made.outputs(), strict=True):
                self.put(old, new)

    def _computed(self, node: Any, values: list[Any], known: Any) -> Any | None:
        """The same node on squares; None where it has to be on maps."""
        import openvino.opset13 as ops

        kind = node.get_type_name()
        if kind in _BY_VALUE:
            given = [self._beside(value, known) for value in values]
            return None if None in given else getattr(ops, _BY_VALUE[kind])(*given)
        if kind == "Concat" and node.get_attributes()["axis"] == _CHANNELS:
            given = [self.of(value) for value in values]
            return None if None in given else ops.concat(given, _LAST)
        if kind == "Split" and _is(values[1], _CHANNELS):
            return ops.split(known, np.int64(_LAST), node.get_output_size())
        if kind == "VariadicSplit" and _is(values[1], _CHANNELS):
            return ops.variadic_split(known, np.int64(_LAST), values[2])
        return None

    def _beside(self, value: Any, squares: Any) -> Any | None:
        """A value as what can be added to squares; None where it is neither map nor number."""
        known, node = self.of(value), value.get_node()
        if known is not None:
            return known
        if node.get_type_name() == "Constant" and node.data.size == 1:
            return value
        _, _, down, right, channels = squares.get_shape()
        batch, *size = value.get_partial_shape()
        if len(size) != 3 or any(one.is_dynamic for one in size) or batch not in (-1, 1):
            return None
        if [one.get_length() for one in size] != [channels, SIDE * down, SIDE * right]:
            return None
        # In two steps: the first moves single values, the second one whole rows of channels.
        made = self._constants.ordered(value, 0, 2, 3, 1)  # (1, H, W, C)
        made = self._constants.shaped(made, down, SIDE, right, SIDE, channels)
        made = self._constants.ordered(made, 1, 3, 0, 2, 4).output(0)  # (4, 4, down, right, C)
        self._known[_key(value)] = made
        return made


def _key(value: Any) -> tuple[str, int]:
    return value.get_node().get_name(), value.get_index()


def _is(value: Any, number: int) -> bool:
    node = value.get_node()
    return bool(node.get_type_name() == "Constant" and (node.data == number).all())


def _nearest_bf16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to what bf16 can hold, of two to the even one.

    OpenVINO 2026.4.1 adds half of the last place to those alone whose last digit is 1.
    """
    bits = x.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)
