"""Wide convolutions with fewer multiplications, on OpenVINO (Winograd 1980; Lavin and Gray 2016).

A convolution of kernel r makes each square of 4 x 4 values from n x n others, n = 4 + r - 1. Moved
to n^2 points it is n^2 products for all channels at once, not 16 r^2:

    y = A' [ (G g G') * (B' d B) ] A        A (n, 4), G (n, r), B (n, n): Cook and Toom

For 5x5 that is 64 products for 400. The matrices are made exactly, by fractions, and the weights
are transformed in float64, once. Rounding is two to five times that of the convolution in float32,
so that a bundle's verification decides; in bf16 it would be far too much. The price is n^2 / r^2
times the weights, and they have to come from memory in each step.

All is written as plain operations on the graph: transposition, products with B by rows and columns,
one product of matrices per point, a product with A, depth to space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import openvino

Doubles = NDArray[np.float64]

_TILE = 4
"""Side of the squares that are made at once."""
_KERNELS = (3, 5)
_POINTS = tuple(Fraction(n, 2) for n in (0, 2, -2, 1, -1, 4, -4))
"""Where polynomials are compared, and at infinity: few and simple ones lose few digits."""
_LEAST_CHANNELS = 64
_LEAST_WEIGHTS = 64 * 192
"""Channels in times channels out, below which moving there and back takes what was won."""
WIDE = (
    f"a convolution of {' or '.join(f'{side}x{side}' for side in _KERNELS)} from and to "
    f"{_LEAST_CHANNELS} channels or more, whose product is {_LEAST_WEIGHTS:,} or more"
)
"""What gains, for people."""


def fewer_products(model: openvino.Model) -> int:
    """Replace the convolutions of a model that gain by it. Its batch is 1 from then on.

    Returns:
        How many were replaced.
    """
    replaced = 0
    made: dict[str, Any] = {}  # constants are shared by the steps of an unrolled graph
    for node in model.get_ordered_ops():
        shape = _Shape.of(node)
        if shape is not None:
            _replace(node, shape, made)
            replaced += 1
    if replaced:
        model.validate_nodes_and_infer_types()
    return replaced


def gains(model: openvino.Model) -> bool:
    """Whether `fewer_products` would replace anything."""
    return any(_Shape.of(node) is not None for node in model.get_ops())


@dataclass(frozen=True)
class _Shape:
    """Of a convolution that gains."""

    kernel: int
    channels: int
    made: int
    """Channels that it makes."""
    height: int
    width: int

    @classmethod
    def of(cls, node: Any) -> _Shape | None:
        """None for every other node."""
        if node.get_type_name() != "Convolution":
            return None
        weights = node.input_value(1).get_node()
        batch, *frame = node.input_value(0).get_partial_shape()
        if weights.get_type_name() != "Constant" or any(size.is_dynamic for size in frame):
            return None
        channels, height, width = (size.get_length() for size in frame)
        made, _, *kernel = weights.shape
        side, about = kernel[0], node.get_attributes()
        same = [(side - 1) // 2] * 2
        fits = (
            (batch.is_dynamic or batch.get_length() == 1)
            and kernel == [side] * 2
            and side in _KERNELS
            and list(about["strides"]) == list(about["dilations"]) == [1, 1]
            and list(about["pads_begin"]) == list(about["pads_end"]) == same
            and min(channels, made) >= _LEAST_CHANNELS
            and channels * made >= _LEAST_WEIGHTS
        )
        return cls(side, channels, made, height, width) if fits else None


def _replace(node: Any, shape: _Shape, made: dict[str, Any]) -> None:
    import openvino.opset13 as ops
    from openvino.utils import replace_node

    a, _, _ = matrices(shape.kernel)
    points = len(a) ** 2  # n^2
    down, right = -(-shape.height // _TILE), -(-shape.width // _TILE)  # squares

    def kept(name: str, value: Callable[[], NDArray[Any]]) -> Any:
        if name not in made:
            made[name] = ops.constant(np.ascontiguousarray(value()))
        return made[name]

    def sizes(*values: int) -> Any:
        return kept(f"sizes {values}", lambda: np.asarray(values, np.int64))

    def as_(x: Any, *size: int) -> Any:
        return ops.reshape(x, sizes(*size), special_zero=False)

    def to_points(size: int) -> Any:
        return kept(f"to points {shape.kernel} {size}", lambda: _to_points(shape.kernel, size))

    n, c = len(a), shape.channels
    weights = node.input_value(1).get_node()
    x = as_(node.input_value(0), c, shape.height * shape.width)
    x = as_(ops.transpose(x, sizes(1, 0)), shape.height, shape.width * c)  # (H, W C)
    x = as_(ops.matmul(to_points(shape.height), x, False, False), n * down, shape.width, c)
    x = ops.matmul(to_points(shape.width), x, False, False)  # (n down, n right, C)
    x = ops.transpose(as_(x, n, down, n, right, c), sizes(0, 2, 1, 3, 4))
    there = kept(
        f"weights {weights.get_friendly_name()}",
        lambda: _weights_at_points(weights.data, shape.kernel),
    )  # (n n, C, O)
    x = ops.matmul(as_(x, points, down * right, c), there, False, False)
    back = kept(f"back {shape.kernel}", lambda: np.einsum("ia,jb->abij", a, a).reshape(-1, points))
    x = ops.matmul(back, as_(x, points, down * right * shape.made), False, False)
    x = as_(x, _TILE**2, down * right, shape.made)
    x = as_(ops.transpose(x, sizes(2, 0, 1)), 1, shape.made * _TILE**2, down, right)
    x = ops.depth_to_space(x, "depth_first", _TILE)  # (1, O, 4 down, 4 right)
    if (shape.height % _TILE, shape.width % _TILE) != (0, 0):
        start, end = sizes(0, 0), sizes(shape.height, shape.width)
        x = ops.slice(x, start, end, sizes(1, 1), sizes(2, 3))
    x.set_friendly_name(node.get_friendly_name())
    replace_node(node, x)


def _weights_at_points(weights: NDArray[np.float32], kernel: int) -> NDArray[np.float32]:
    """`(O, C, r, r)` -> `(n n, C, O)`."""
    _, g, _ = matrices(kernel)
    there = g @ weights.astype(np.float64) @ g.T  # (O, C, n, n)
    return np.ascontiguousarray(there.transpose(2, 3, 1, 0), np.float32).reshape(
        -1, weights.shape[1], weights.shape[0]
    )


def _to_points(kernel: int, size: int) -> NDArray[np.float32]:
    """What moves a row of `size` values to its points, `(n squares, size)`; around it is nothing.

    Point i of square t is row `i squares + t`.
    """
    _, _, b = matrices(kernel)
    squares, edge = -(-size // _TILE), (kernel - 1) // 2
    made = np.zeros((len(b), squares, size + 2 * edge + _TILE))
    for t in range(squares):
        made[:, t, t * _TILE : t * _TILE + len(b)] = b.T
    return made[:, :, edge : edge + size].reshape(-1, size).astype(np.float32)


@cache
def matrices(kernel: int) -> tuple[NDArray[np.float32], Doubles, Doubles]:
    """A `(n, 4)`, G `(n, kernel)` and B `(n, n)` of Cook and Toom, for one dimension.

    `y = A' ((G g) * (B' d))` are the 4 values `y[t] = sum g[k] d[t + k]`.
    """
    n = _TILE + kernel - 1
    points = _POINTS[: n - 1]

    def powers(count: int) -> list[list[Fraction]]:
        """Of each point, and of infinity, where only the last one is left."""
        rows = [[point**k for k in range(count)] for point in points]
        return [*rows, [Fraction(k == count - 1) for k in range(count)]]

    products = [_product(one for one in points if one != point) for point in points]
    scales = [sum(c * point**k for k, c in enumerate(product))
              for point, product in zip(points, products, strict=True)]  # fmt: skip
    g = [[value / scale for value in row]
         for row, scale in zip(powers(kernel), [*scales, Fraction(1)], strict=True)]  # fmt: skip
    b = [[*product, Fraction(0)] for product in products] + [_product(points)]
    return _floats(powers(_TILE)).astype(np.float32), _floats(g), _floats(b).T


def _product(points: Iterable[Fraction]) -> list[Fraction]:
    """Coefficients, from the constant on, of the polynomial with these zeros."""
    made = [Fraction(1)]
    for point in points:
        raised = [Fraction(0), *made]
        made = [r - point * c for r, c in zip(raised, [*made, Fraction(0)], strict=True)]
    return made


def _floats(rows: list[list[Fraction]]) -> Doubles:
    return np.array([[float(value) for value in row] for row in rows])
