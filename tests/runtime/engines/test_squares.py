"""Values kept as squares between convolutions with fewer products, beside numpy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_runtime.engines.ov import winograd
from stpl_runtime.engines.ov.core import openvino_core
from stpl_runtime.engines.ov.winograd import fewer_products
from tests.runtime.engines.test_winograd import summed

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

Map = np.ndarray[Any, Any]


def weights(made: int, channels: int, seed: int = 0) -> Map:
    drawn = np.random.default_rng(seed).standard_normal((made, channels, 3, 3))
    return (0.3 * drawn).astype(np.float32)


class InNumpy:
    """By their definitions, in float64."""

    conv = staticmethod(summed)
    add, subtract, multiply = map(staticmethod, (np.add, np.subtract, np.multiply))
    tanh = staticmethod(np.tanh)

    @staticmethod
    def sigmoid(x: Map) -> Map:
        made: Map = 1 / (1 + np.exp(-x))
        return made

    @staticmethod
    def relu(x: Map) -> Map:
        return np.maximum(x, 0)

    @staticmethod
    def split(x: Map, parts: int, axis: int) -> list[Map]:
        return np.split(x, parts, axis)

    @staticmethod
    def parted(x: Map, first: int) -> list[Map]:
        return np.split(x, [first], 1)

    @staticmethod
    def concat(one: Map, other: Map, axis: int) -> Map:
        return np.concatenate([one, other], axis)


class InOpenVino:
    """As nodes of a graph."""

    def __init__(self) -> None:
        import openvino.opset13 as ops

        self.ops = ops
        self.add, self.subtract, self.multiply = ops.add, ops.subtract, ops.multiply
        self.tanh, self.sigmoid, self.relu = ops.tanh, ops.sigmoid, ops.relu

    def conv(self, x: Any, kernel: Map) -> Any:
        edge = [1, 1]
        return self.ops.convolution(x, self.ops.constant(kernel), edge, edge, edge, edge)

    def split(self, x: Any, parts: int, axis: int) -> Any:
        return self.ops.split(x, np.int64(axis), parts).outputs()

    def parted(self, x: Any, first: int) -> Any:
        return self.ops.variadic_split(x, 1, [first, -1]).outputs()

    def concat(self, one: Any, other: Any, axis: int) -> Any:
        return self.ops.concat([one, other], axis)


def beside_numpy(build: Callable[..., list[Any]], *maps: Map) -> Any:
    """Build twice, compare, and return the graph with what was replaced in it."""
    import openvino
    import openvino.opset13 as ops

    inputs = [ops.parameter(list(one.shape), np.float32) for one in maps]
    results = [ops.result(one) for one in build(InOpenVino(), *inputs)]
    model = openvino.Model(results, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_LEAST_CHANNELS", 1)
        patch.setattr(winograd, "_LEAST_WEIGHTS", 1)
        assert fewer_products(model) > 0
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found = openvino_core().compile_model(model, "CPU", hint)(list(maps))
    for n, true in enumerate(build(InNumpy(), *maps)):
        assert found[n].shape == true.shape
        np.testing.assert_allclose(found[n], true, rtol=0, atol=3e-5 * max(1, np.abs(true).max()))
    return model


def maps_made(model: Any) -> int:
    """How many values are brought from squares to maps."""
    orders = [
        list(node.input_value(1).get_node().data)
        for node in model.get_ops()
        if node.get_type_name() == "Transpose"
    ]
    return orders.count([4, 2, 0, 3, 1])


def cell(by: Any, x: Any, h: Any, c: Any, seed: int) -> tuple[Any, Any]:
    """A ConvLSTM's."""
    gates = by.add(by.conv(x, weights(16, 4, seed)), by.conv(h, weights(16, 4, seed + 1)))
    i, f, g, o = by.split(gates, 4, 1)
    forget = by.sigmoid(by.add(f, np.float32(1)))
    c = by.add(by.multiply(forget, c), by.multiply(by.sigmoid(i), by.tanh(g)))
    return by.multiply(by.sigmoid(o), by.tanh(c)), c


def two_layers_two_steps(by: Any, x: Any, h: Any, c: Any) -> list[Any]:
    state = [(h, c), (c, h)]
    for _ in range(2):
        for n in range(2):
            x, after = cell(by, x, *state[n], 10 * n)
            state[n] = (x, after)
    return [x, state[0][1]]


def drawn(count: int, height: int, width: int, channels: int = 4) -> list[Map]:
    rng = np.random.default_rng(height + width)
    size = (1, channels, height, width)
    return [rng.standard_normal(size).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("height", "width", "maps"),
    [
        (8, 12, 2),  # the two results; nothing between the cells
        (7, 12, 4),  # squares reach beyond the edge: the sums of all four cells are cut to size
    ],
)
def test_cells_have_no_maps_between_them(height: int, width: int, maps: int) -> None:
    model = beside_numpy(two_layers_two_steps, *drawn(3, height, width))
    assert maps_made(model) == maps


def what_needs_maps(by: Any, x: Any, y: Any) -> list[Any]:
    a = by.conv(x, weights(4, 4))
    rows = by.split(a, 2, 2)
    bias = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    return [
        by.concat(rows[1], rows[0], 2),
        by.add(a, bias),
        by.concat(a, y, 1),
        by.concat(a, by.relu(a), 3),
    ]


def test_what_is_no_sum_or_split_of_channels_reads_a_map() -> None:
    assert maps_made(beside_numpy(what_needs_maps, *drawn(2, 8, 8))) == 2  # a, and its relu


def test_a_value_that_both_read_is_moved_once() -> None:
    def build(by: Any, x: Any, y: Any) -> list[Any]:
        a, b = by.conv(x, weights(4, 4)), by.conv(x, weights(4, 4, 1))
        return [by.add(a, y), by.multiply(b, y), by.subtract(y, a)]

    model = beside_numpy(build, *drawn(2, 8, 4))
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert maps_made(model) == 3
    to_squares = [
        node
        for node in model.get_ops()
        if node.get_type_name() == "Transpose"
        and list(node.input_value(1).get_node().data) == [1, 3, 0, 2, 4]
    ]
    assert len(to_squares) == 1
    assert "Convolution" not in kinds


CHOICES = st.lists(
    st.tuples(
        st.sampled_from(["conv", "add", "subtract", "multiply", "tanh", "sigmoid", "relu", "scale",
                         "halves", "parted", "joined"]),
        st.integers(0, 99), st.integers(0, 99),
    ), min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(steps=CHOICES, height=st.sampled_from([4, 5, 8]), width=st.sampled_from([4, 6, 8]))
def test_any_graph_gives_what_its_definition_says(
    steps: list[tuple[str, int, int]], height: int, width: int
) -> None:
    def build(by: Any, x: Any, y: Any) -> list[Any]:
        made = [by.conv(x, weights(4, 4)), y, by.conv(y, weights(4, 4, 1))]  # four channels each
        for kind, n, m in steps:
            one, other = made[n % len(made)], made[m % len(made)]
            if kind == "conv":
                new = by.conv(one, weights(4, 4, 2 + m % 3))
            elif kind in ("add", "subtract", "multiply"):
                new = getattr(by, kind)(one, other)
            elif kind == "scale":
                new = by.multiply(one, np.float32(m / 50))
            elif kind == "halves":
                first, second = by.split(by.conv(one, weights(8, 4, m % 3)), 2, 1)
                new = by.multiply(first, second)
            elif kind == "parted":
                first, second = by.parted(one, 1)
                new = by.concat(second, first, 1)
            elif kind == "joined":
                new = by.conv(by.concat(one, other, 1), weights(4, 8, m % 3))
            else:
                new = getattr(by, kind)(one)
            made.append(by.tanh(new))  # values stay small
        return [made[0], made[-1], made[-2]]

    beside_numpy(build, *drawn(2, height, width))
