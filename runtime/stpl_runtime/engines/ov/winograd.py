"""Wide convolutions with fewer multiplications, on OpenVINO (Winograd 1980; Lavin and Gray 2016).

A convolution of kernel r makes each square of 4 x 4 values from n x n others, n = 4 + r - 1. Moved
to n^2 points it is n^2 products for all channels at once, not 16 r^2:

    y = A' [ (G g G') * (B' d B) ] A        A (n, 4), G (n, r), B (n, n): Cook and Toom

For 5x5 that is 64 products for 400. The matrices are made exactly, by fractions, and the weights
are transformed in float64, once. Rounding is two to five times that of the convolution in float32,
so that a bundle's verification decides. The price is n^2 / r^2 times the weights, and they have to
come from memory in each step.

In bf16 the products are, and the convolutions that are left, and nothing else: half of the weights'
bytes come from memory. What is rounded at the points grows on its way back: to 19 times what bf16
costs the convolution itself for 5x5 (26 dB), to 5 times for 3x3.

All is written as plain operations on the graph: transposition, products with B by rows and columns,
one product of matrices per point, a product with A, transposition. Convolutions that are added are
added at the points. (A map that several of them read is moved there once: OpenVINO joins what is
computed twice.)
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_runtime.engines.ov.squares import SIDE, Constants, Squares

if TYPE_CHECKING:
    import openvino

Doubles = NDArray[np.float64]

_POINTS = {
    3: tuple(Fraction(n, 8) for n in (0, 5, -5, 12, -12)),
    5: tuple(Fraction(n, 8) for n in (0, 8, -8, 4, -4, 16, -16)),
}
"""Where polynomials are compared, and at infinity, by kernel. What is rounded there comes back
sum_i A[i, t]^2 |G[i]|^2 |B[:, i]|^2 / r times as large, squared and along each axis, in a map
without order; for 3 these points come within .1 dB of the least, for 5 they are it, and all of
their powers are exact in float32. (With 0, 1, -1, 2, -2 for 3 it is 7 dB more.)
"""
_LEAST_CHANNELS = 64
_LEAST_WEIGHTS = 64 * 192
"""Channels in times channels out, below which moving there and back takes what was won."""
WIDE = (
    f"a convolution of {' or '.join(f'{side}x{side}' for side in _POINTS)} from and to "
    f"{_LEAST_CHANNELS} channels or more, whose product is {_LEAST_WEIGHTS:,} or more"
)
"""What gains, for people."""


def fewer_products(model: openvino.Model, precision: str = "f32") -> int:
    """Replace the convolutions of a model that gain by it. Its batch is 1 from then on.

    Args:
        model: its convolutions are in float32.
        precision: of products and of the other convolutions, `f32` or `bf16`.

    Returns:
        How many were replaced.
    """
    enough = any if precision == "bf16" else all
    made = {node.get_name(): terms for node, terms in _replaceable(model, enough)}
    points = _Points(precision)
    for node in model.get_ordered_ops() if made else ():
        if node.get_name() in made:
            points.replace(node, made[node.get_name()])
        else:
            points.squares.follow(node)
    if made and precision == "bf16":
        for node in model.get_ops():
            points.lower(node)
    if made:
        model.validate_nodes_and_infer_types()
    return sum(map(len, made.values()))


def gains(model: openvino.Model) -> bool:
    """Whether `fewer_products` would replace anything."""
    shapes = map(_Shape.of, model.get_ops())
    return any(shape is not None and shape.gains for shape in shapes)


@dataclass(frozen=True)
class _Shape:
    """Of a convolution that can be made with fewer products."""

    kernel: int
    channels: int
    made: int
    """Channels that it makes."""
    height: int
    width: int

    @property
    def gains(self) -> bool:
        """Whether it is wide enough to gain by it alone."""
        enough = self.channels * self.made >= _LEAST_WEIGHTS
        return enough and min(self.channels, self.made) >= _LEAST_CHANNELS

    @property
    def squares(self) -> tuple[int, int]:
        """So many, down and to the right."""
        return -(-self.height // SIDE), -(-self.width // SIDE)

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
            and side in _POINTS
            and list(about["strides"]) == list(about["dilations"]) == [1, 1]
            and list(about["pads_begin"]) == list(about["pads_end"]) == same
        )
        shape = cls(side, channels, made, height, width)
        return shape if fits else None


@dataclass(frozen=True)
class _Term:
    """A convolution that can be made so, or the channels of one that a split gives."""

    node: Any
    shape: _Shape
    start: int
    """The first of these channels; `shape.made` are so many."""

    @property
    def name(self) -> str:
        """Of the convolution, equal for all its parts."""
        name: str = self.node.get_name()
        return name

    @property
    def result(self) -> tuple[int, ...]:
        """Equal for those that can be added at the points."""
        return self.shape.kernel, self.shape.made, self.shape.height, self.shape.width


def _replaceable(
    model: openvino.Model, enough: Callable[[Iterable[bool]], bool]
) -> list[tuple[Any, list[_Term]]]:
    """Nodes that are a sum of convolutions, or one, and these; no convolution twice.

    Args:
        model: any.
        enough: which of a sum have to gain, `all` or `any`. A narrow one beside a wide one gains
            too, since nothing more is moved back; in float32, verification has no room for what it
            rounds.
    """
    nodes = model.get_ordered_ops()
    alone = [(node, [term]) for node in nodes if (term := _whole(node)) is not None]
    sums: list[tuple[Any, list[_Term]]] = []
    inside: set[tuple[str, int]] = set()
    for node in reversed(nodes):
        terms = _added(node)
        wide = bool(terms) and enough(term.shape.gains for term in terms)
        if wide and (terms[0].name, terms[0].start) not in inside:
            sums.insert(0, (node, terms))
            inside |= {(term.name, term.start) for term in terms}
    while True:  # a convolution of which a part is in no sum is made as a whole
        made: Counter[str] = Counter()  # channels, by convolution
        for term in (term for _, terms in sums for term in terms):
            made[term.name] += term.shape.made
        partly = {term.name for _, [term] in alone if 0 < made[term.name] < term.shape.made}
        kept = [one for one in sums if not partly.intersection(term.name for term in one[1])]
        if len(kept) == len(sums):
            left = [one for one in alone if one[1][0].name not in made]
            return [*sums, *(one for one in left if one[1][0].shape.gains)]
        sums = kept


def _whole(node: Any) -> _Term | None:
    shape = _Shape.of(node)
    return None if shape is None else _Term(node, shape, 0)


def _added(node: Any) -> list[_Term]:
    """The convolutions whose sum a node is; none if it is anything else."""
    terms: list[_Term] = []
    for value in node.input_values() if node.get_type_name() == "Add" else ():
        read_once = len(value.get_target_inputs()) == 1
        parts = _term(value) or _added(value.get_node()) if read_once else []
        if not parts or parts[0].result != (terms or parts)[0].result:
            return []
        terms += parts
    return terms


def _term(value: Any) -> list[_Term]:
    """A convolution, or the part of one, that a value is; none if it is anything else."""
    node = value.get_node()
    if node.get_type_name() in ("Split", "VariadicSplit"):
        whole, axis = node.input_value(0), node.input_value(1).get_node()
        term = _whole(whole.get_node())
        read_once = len(whole.get_target_inputs()) == 1
        if term is None or not read_once or axis.get_type_name() != "Constant" or axis.data != 1:
            return []
        sizes = [part.get_partial_shape()[1].get_length() for part in node.outputs()]
        at = value.get_index()
        shape = replace(term.shape, made=sizes[at])
        return [_Term(term.node, shape, sum(sizes[:at]))]
    term = _whole(node)
    return [] if term is None else [term]


class _Points:
    """What is put in place of convolutions."""

    def __init__(self, precision: str) -> None:
        """Nothing was made yet; products will be in `precision`."""
        self._precision = precision
        self._constants = Constants()
        self.squares = Squares(self._constants)

    def replace(self, node: Any, terms: list[_Term]) -> None:
        """Compute a node as the sum of these convolutions."""
        import openvino.opset13 as ops

        shape = terms[0].shape
        squares = self._back(functools.reduce(ops.add, map(self._product, terms)), shape)
        if (shape.height % SIDE, shape.width % SIDE) == (0, 0):
            self.squares.put(node.output(0), squares)
        else:
            node.output(0).replace(self._cut(squares, shape))

    def lower(self, node: Any) -> None:
        """Compute in bf16 a convolution that is left; no other node."""
        import openvino.opset13 as ops
        from openvino.utils import replace_node

        weights = node.input_value(1).get_node() if node.get_type_name() == "Convolution" else None
        if weights is None or weights.get_type_name() != "Constant":
            return
        rounded = self._constants.kept(weights.get_friendly_name(), lambda: weights.data, "bf16")
        about = node.get_attributes()
        how = (about[name] for name in ("strides", "pads_begin", "pads_end", "dilations"))
        made = self._in(node.input_value(0), "bf16")
        made = self._in(ops.convolution(made, rounded, *map(list, how)), "f32")
        made.set_friendly_name(node.get_friendly_name())
        replace_node(node, made)

    def _product(self, term: _Term) -> Any:
        """A convolution at the points, `(n n, squares, O)`."""
        import openvino.opset13 as ops

        weights, shape = term.node.input_value(1).get_node(), term.shape
        there = self._constants.kept(
            f"weights {weights.get_friendly_name()} {term.start} {shape.made}",
            lambda: _weights_at_points(weights.data[term.start :][: shape.made], shape.kernel),
            self._precision,
        )  # (n n, C, O)
        x = self._moved(term.node.input_value(0), shape)
        return self._in(ops.matmul(x, there, False, False), "f32")

    def _moved(self, x: Any, shape: _Shape) -> Any:
        """A map `(1, C, H, W)` at the points, `(n n, squares, C)`."""
        import openvino.opset13 as ops

        def to_points(size: int) -> Any:
            make = functools.partial(_to_points, shape.kernel, size)
            return self._constants.kept(f"to points {shape.kernel} {size}", make)

        n, c = SIDE + shape.kernel - 1, shape.channels
        height, width, (down, right) = shape.height, shape.width, shape.squares
        squares, constants = self.squares.of(x), self._constants
        if squares is None:
            x = constants.ordered(x, 0, 2, 3, 1)  # (1, H, W, C)
        else:
            x = constants.ordered(squares, 2, 0, 3, 1, 4)  # (down, 4, right, 4, C)
        x = constants.shaped(x, height, width * c)
        x = ops.matmul(to_points(height), x, False, False)
        x = ops.matmul(to_points(width), constants.shaped(x, n * down, width, c), False, False)
        x = constants.shaped(self._in(x, self._precision), n, down, n, right, c)
        return constants.shaped(constants.ordered(x, 0, 2, 1, 3, 4), n * n, down * right, c)

    def _back(self, x: Any, shape: _Shape) -> Any:
        """From the points to squares, `(4, 4, down, right, O)`."""
        import openvino.opset13 as ops

        a, _, _ = matrices(shape.kernel)
        points, (down, right) = len(a) ** 2, shape.squares
        back = self._constants.kept(
            f"back {shape.kernel}", lambda: np.einsum("ia,jb->abij", a, a).reshape(-1, points)
        )
        x = self._constants.shaped(x, points, down * right * shape.made)
        x = ops.matmul(back, x, False, False)
        return self._constants.shaped(x, SIDE, SIDE, down, right, shape.made).output(0)

    def _cut(self, squares: Any, shape: _Shape) -> Any:
        """The map `(1, O, H, W)` of squares that reach beyond it."""
        import openvino.opset13 as ops

        constants, x = self._constants, self.squares.as_map(squares)
        start, end = constants.sizes(0, 0), constants.sizes(shape.height, shape.width)
        return ops.slice(x, start, end, constants.sizes(1, 1), constants.sizes(2, 3)).output(0)

    def _in(self, x: Any, precision: str) -> Any:
        """Rounded to a precision, or widened; as it is where all is in float32."""
        import openvino.opset13 as ops

        return x if self._precision == "f32" else ops.convert(x, precision)

    def _sizes(self, *values: int) -> Any:
        return self._constants.kept(f"sizes {values}", lambda: np.asarray(values, np.int64))

    def _as(self, x: Any, *size: int) -> Any:
        import openvino.opset13 as ops

        return ops.reshape(x, self._sizes(*size), special_zero=False)


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
    squares, edge = -(-size // SIDE), (kernel - 1) // 2
    made = np.zeros((len(b), squares, size + 2 * edge + SIDE))
    for t in range(squares):
        made[:, t, t * SIDE : t * SIDE + len(b)] = b.T
    return made[:, :, edge : edge + size].reshape(-1, size).astype(np.float32)


@functools.cache
def matrices(kernel: int) -> tuple[NDArray[np.float32], Doubles, Doubles]:
    """A `(n, 4)`, G `(n, kernel)` and B `(n, n)` of Cook and Toom, for one dimension.

    `y = A' ((G g) * (B' d))` are the 4 values `y[t] = sum g[k] d[t + k]`.
    """
    points = _POINTS[kernel]

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
    return _floats(powers(SIDE)).astype(np.float32), _floats(g), _floats(b).T


def _product(points: Iterable[Fraction]) -> list[Fraction]:
    """Coefficients, from the constant on, of the polynomial with these zeros."""
    made = [Fraction(1)]
    for point in points:
        raised = [Fraction(0), *made]
        made = [r - point * c for r, c in zip(raised, [*made, Fraction(0)], strict=True)]
    return made


def _floats(rows: list[list[Fraction]]) -> Doubles:
    return np.array([[float(value) for value in row] for row in rows])
