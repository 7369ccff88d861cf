"""Convolutions with fewer products, beside their definition in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.bundle import Bundle, GraphName, open_bundle
from stpl_core.errors import EnvironmentFault
from stpl_runtime.engine import open_session, precision_of
from stpl_runtime.engines.auto import candidates as ways
from stpl_runtime.engines.ov import session as ov
from stpl_runtime.engines.ov import winograd
from stpl_runtime.engines.ov.core import openvino_core
from stpl_runtime.engines.ov.session import OpenVinoSession, OpenVinoWinogradSession
from stpl_runtime.engines.ov.winograd import fewer_products, matrices
from stpl_runtime.engines.replays import ReplayingSession
from stpl_runtime.proof.verify import first_breach, verify_bundle
from tests.runtime.conftest import open_named

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if few channels were enough, so that small models take this way."""
    monkeypatch.setattr(winograd, "_LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_LEAST_WEIGHTS", 1)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPL_CACHE_MB", "0")


def convolution(shape: tuple[int, ...], weights: np.ndarray[Any, Any], **changed: list[int]) -> Any:
    """A model of one convolution that keeps the size, but for what is changed."""
    import openvino
    import openvino.opset13 as ops

    edge = [weights.shape[2] // 2] * 2
    how = {"strides": [1, 1], "pads_begin": edge, "pads_end": edge, "dilations": [1, 1]} | changed
    x = ops.parameter(list(shape), np.float32)
    return openvino.Model([ops.result(ops.convolution(x, ops.constant(weights), **how))], [x])


def run(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    made: np.ndarray[Any, Any] = openvino_core().compile_model(model, "CPU", hint)(x)[0]
    return made


def summed(x: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The convolution of `(1, C, H, W)` by its definition, in float64."""
    side = weights.shape[2]
    around = np.pad(x[0].astype(np.float64), ((0, 0), *[(side // 2, side // 2)] * 2))
    windows = np.lib.stride_tricks.sliding_window_view(around, (side, side), (1, 2))
    return np.einsum("cyxkl,ockl->oyx", windows, weights.astype(np.float64))[None]


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_matrices_are_those_of_cook_and_toom(kernel: int) -> None:
    a, g, b = matrices(kernel)
    rng = np.random.default_rng(kernel)
    for _ in range(20):
        d, w = rng.standard_normal(4 + kernel - 1), rng.standard_normal(kernel)
        found = a.astype(np.float64).T @ ((g @ w) * (b.T @ d))
        np.testing.assert_allclose(found, np.correlate(d, w, "valid"), rtol=0, atol=1e-13)


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.sampled_from([3, 5]),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    wide=st.sampled_from([(64, 192), (130, 97), (200, 64)]),
    seed=st.integers(0, 9),
)
def test_a_wide_convolution_gives_what_its_definition_says(
    kernel: int, height: int, width: int, wide: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, wide[0], height, width)).astype(np.float32)
    weights = rng.standard_normal((wide[1], wide[0], kernel, kernel)).astype(np.float32)
    model = convolution(x.shape, weights)
    assert fewer_products(model) == 1
    assert "Convolution" not in {node.get_type_name() for node in model.get_ops()}
    true = summed(x, weights)
    np.testing.assert_allclose(run(model, x), true, rtol=0, atol=3e-5 * np.abs(true).max())


def rounded(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """To bf16: the nearest, and the even one of two."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


@pytest.mark.skipif(not ov.computes_bf16(), reason="the processor has no bf16 arithmetic")
@pytest.mark.parametrize("side", [3, 5])
def test_in_bf16_the_products_are_rounded_and_nothing_else(side: int) -> None:
    """One square: A' [ round(sum over channels of round(G g G') round(B' d B)) ] A."""
    rng = np.random.default_rng(side)
    x = rng.standard_normal((1, 64, 4, 4)).astype(np.float32)
    weights = rng.standard_normal((192, 64, side, side)).astype(np.float32)
    a, g, b = matrices(side)
    d = np.pad(x[0].astype(np.float64), ((0, 0), *[(side // 2, side // 2)] * 2))
    points = np.einsum("ocij,cij->oij", rounded(g @ weights @ g.T), rounded(b.T @ d @ b))
    named = a.astype(np.float64).T @ rounded(points) @ a  # (O, 4, 4)
    model = convolution(x.shape, weights)
    assert fewer_products(model, "bf16") == 1
    found, true = run(model, x)[0], summed(x, weights)[0]

    def apart(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
        return float(np.sqrt(np.mean((one - other) ** 2) / np.mean(true**2)))

    assert apart(found, true) > 0.01  # rounded at all
    # What rounds the other way in float32 than in float64 is one value in some hundred.
    assert apart(found, named) < 0.15 * apart(found, true)


@pytest.mark.skipif(not ov.computes_bf16(), reason="the processor has no bf16 arithmetic")
def test_in_bf16_convolutions_that_are_left_are_rounded_too() -> None:
    import openvino
    import openvino.opset13 as ops

    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 64, 8, 8)).astype(np.float32)
    narrow, wide = kernel(32), kernel(192, seed=1)
    given = ops.parameter(list(x.shape), np.float32)
    by = AsGraph()
    model = openvino.Model([by.conv(given, narrow), by.conv(given, wide)], [given])
    assert fewer_products(model, "bf16") == 1
    named = rounded(summed(rounded(x), rounded(narrow)))
    # Float32 sums in another order may lie on the other side of a tie.
    assert (run(model, x) == named).mean() > 0.98


def kernel(made: int, channels: int = 64, seed: int = 0) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(seed).standard_normal((made, channels, 5, 5))
    return drawn.astype(np.float32)


class ByDefinition:
    """In float64."""

    conv = staticmethod(summed)
    add = staticmethod(np.add)

    @staticmethod
    def relu(x: Any) -> Any:
        return np.maximum(x, 0)

    @staticmethod
    def split(x: Any, *sizes: int) -> Any:
        return np.split(x, np.cumsum(sizes)[:-1], 1)


class AsGraph:
    """Nodes of OpenVINO."""

    def __init__(self) -> None:
        import openvino.opset13 as ops

        self.ops, self.add, self.relu = ops, ops.add, ops.relu

    def conv(self, x: Any, weights: np.ndarray[Any, Any]) -> Any:
        edge = [2, 2]
        return self.ops.convolution(x, self.ops.constant(weights), [1, 1], edge, edge, [1, 1])

    def split(self, x: Any, *sizes: int) -> Any:
        return self.ops.variadic_split(x, 1, list(sizes)).outputs()


def added(by: Any, x: Any, y: Any, z: Any) -> list[Any]:
    pair = by.add(by.conv(x, kernel(192)), by.conv(y, kernel(192, seed=1)))
    return [by.add(pair, by.conv(z, kernel(192, seed=2)))]


def added_to_itself(by: Any, x: Any, y: Any, z: Any) -> list[Any]:
    made = by.conv(x, kernel(192))
    return [by.add(made, made), by.relu(made), by.add(by.conv(y, kernel(192)), by.relu(made))]


def added_in_parts(by: Any, x: Any, y: Any, z: Any) -> list[Any]:
    first, second = by.split(by.conv(x, kernel(512)), 192, 320)
    gates = by.add(by.add(second, by.conv(y, kernel(320))), by.conv(z, kernel(320, seed=1)))
    return [by.add(first, by.conv(y, kernel(192, seed=3))), *by.split(gates, 100, 220)]


def a_part_alone(by: Any, x: Any, y: Any, z: Any) -> list[Any]:
    first, second = by.split(by.conv(x, kernel(384)), 192, 192)
    return [by.add(first, by.conv(y, kernel(192))), by.relu(second)]


def a_narrow_part(by: Any, x: Any, y: Any, z: Any) -> list[Any]:
    first, second = by.split(by.conv(x, kernel(256)), 192, 64)
    return [by.add(first, by.conv(y, kernel(192))), by.add(second, by.conv(z, kernel(64)))]


@pytest.mark.parametrize(
    ("build", "replaced", "moved_back"),
    [
        (added, 3, 1),
        (added_to_itself, 2, 2),
        (added_in_parts, 5, 2),
        (a_part_alone, 2, 2),
        (a_narrow_part, 2, 2),  # the narrow convolution stays
    ],
)
def test_convolutions_that_are_added_are_added_at_the_points(
    build: Callable[..., list[Any]], replaced: int, moved_back: int
) -> None:
    import openvino
    import openvino.opset13 as ops

    rng = np.random.default_rng(7)
    frames = [rng.standard_normal((1, 64, 9, 6)).astype(np.float32) for _ in range(3)]
    inputs = [ops.parameter(frame.shape, np.float32) for frame in frames]
    results = [ops.result(made) for made in build(AsGraph(), *inputs)]
    model = openvino.Model(results, inputs)
    assert fewer_products(model) == replaced
    slices = [node for node in model.get_ops() if node.get_type_name() == "Slice"]
    assert len(slices) == moved_back  # 9x6 is no multiple of 4: what is beyond is cut off
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found = openvino_core().compile_model(model, "CPU", hint)(frames)
    for n, true in enumerate(build(ByDefinition(), *frames)):
        np.testing.assert_allclose(found[n], true, rtol=0, atol=3e-5 * np.abs(true).max())


@pytest.mark.parametrize(
    ("shape", "made", "side", "changed"),
    [
        ((1, 64, 8, 8), 128, 5, {}),  # too few weights
        ((1, 16, 8, 8), 900, 5, {}),  # too few channels
        ((1, 64, 8, 8), 192, 7, {}),
        ((1, 64, 8, 8), 192, 1, {}),
        ((1, 64, 8, 8), 192, 5, {"strides": [2, 2]}),
        ((1, 64, 8, 8), 192, 5, {"dilations": [2, 2]}),
        ((1, 64, 8, 8), 192, 5, {"pads_begin": [0, 0], "pads_end": [0, 0]}),
        ((1, 64, -1, 8), 192, 5, {}),
        ((2, 64, 8, 8), 192, 5, {}),
    ],
)
def test_others_are_left_as_they_are(
    shape: tuple[int, ...], made: int, side: int, changed: dict[str, list[int]]
) -> None:
    weights = np.ones((made, shape[1], side, side), np.float32)
    assert fewer_products(convolution(shape, weights, **changed)) == 0


def test_it_computes_otherwise_than_the_convolution(narrow: None) -> None:
    bundle = open_named("convlstm-tiny")
    frame = np.random.default_rng(0).random((1, *bundle.manifest.frame), np.float32)
    made = []
    for engine in ("openvino", "openvino:winograd"):
        session = open_session(bundle, ("step",), engine=engine, threads=1)
        made.append(session.step(frame, session.zero_state(1))[0])
        session.close()
    np.testing.assert_allclose(made[0], made[1], rtol=0, atol=1e-5)
    assert (made[0] != made[1]).any()


def test_where_nothing_gains_it_says_what_does() -> None:
    with pytest.raises(EnvironmentFault, match="no convolution of this bundle gains") as refused:
        open_session(open_named("convlstm-tiny"), ("step",), engine="openvino:winograd")
    assert "--engine openvino" in refused.value.fix


def test_it_is_asked_of_a_bundle_in_fp32_alone() -> None:
    with pytest.raises(EnvironmentFault, match="computes in fp32, not in bf16") as refused:
        OpenVinoWinogradSession(lowered("bf16"), ("step",), threads=1)
    assert "--allow bf16" in refused.value.expected
    assert "openvino:winograd" in ways.installed_engines("fp32")
    for lower in ("int8", "fp16", "bf16"):
        assert "openvino:winograd" not in ways.installed_engines(lower)


def lowered(precision: str) -> Bundle:
    """A bundle that says that it is in another precision."""
    bundle = open_named("convlstm-tiny")
    changed = bundle.manifest.model_copy(update={"precision": precision})
    return dataclasses.replace(bundle, manifest=changed)


def test_where_bf16_is_allowed_it_is_judged_as_that(narrow: None) -> None:
    bundle = open_named("convlstm-tiny")
    if not ov.computes_bf16():
        with pytest.raises(EnvironmentFault, match="no bf16 arithmetic"):
            open_session(bundle, ("step",), engine="openvino:winograd", allow="bf16")
        return
    report = verify_bundle(bundle, engine="openvino:winograd", threads=1, allow="bf16")
    breach = first_breach(report)  # so few channels do not even the rounding out
    assert breach is not None
    assert "at least 45 dB promised" in breach
    frame = np.random.default_rng(0).random((1, *bundle.manifest.frame), np.float32)
    made = []
    for allow in (None, "bf16"):
        session = open_session(
            bundle, ("step",), engine="openvino:winograd", threads=1, allow=allow
        )
        assert precision_of(session, bundle.manifest) == (allow or "fp32")
        made.append(session.step(frame, session.zero_state(1))[0])
        session.close()
    apart = np.abs(made[0] - made[1]).max()
    assert 1e-4 < apart < 0.2


def test_where_memory_is_short_the_step_alone_is_compiled(
    narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle: Path = open_named("convlstm-tiny").path
    monkeypatch.setattr(ov, "memory_room_bytes", lambda: 1000)
    session = open_session(open_bundle(bundle), GRAPHS, engine="openvino:winograd", threads=1)
    assert isinstance(session, ReplayingSession)
    session.close()
    assert OpenVinoWinogradSession.room_factor > OpenVinoSession.room_factor
