"""Norms as graphs are opened with on an ONNX Runtime whose own kernel loses digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import open_bundle
from stpl_core.safety.protobuf import fields, number, numbers, part
from stpl_runtime.engine import closed_loop, open_session
from stpl_runtime.engines import ort
from stpl_runtime.engines.exact_norms import norms_lose_digits, with_exact_norms
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import verify_bundle

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [cpu] or [gpu]")

TRAINED = Path(__file__).parents[2] / "data" / "modernn-mini.bundle"


def norm_model(shape: tuple[int, ...], axis: int, *, wide: bool = False, bias: bool = True) -> Any:
    """One LayerNormalization of `(B, *shape)` with random scale and bias, as onnx makes it."""
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra [export]")
    helper, kind = onnx.helper, onnx.TensorProto
    random, dims = np.random.default_rng(1), shape[axis:]
    weights = {"scale": random.normal(1, 0.1, dims), "bias": random.normal(0, 0.1, dims)}
    names = ["scale", "bias"][: 1 + bias]
    kept = [
        onnx.numpy_helper.from_array(weights[name].astype("f8" if wide else "f4"), name)
        for name in names
    ]
    x, y = ("x64", "y64") if wide else ("x", "y")
    nodes = [helper.make_node("LayerNormalization", [x, *names], [y], axis=axis, epsilon=1e-3)]
    if wide:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["x64"], to=kind.DOUBLE))
        nodes.append(helper.make_node("Cast", ["y64"], ["y"], to=kind.FLOAT))
    ends = [[helper.make_tensor_value_info(n, kind.FLOAT, ["B", *shape])] for n in "xy"]
    graph = helper.make_graph(nodes, "norm", *ends, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    return model


def exact(x: np.ndarray[Any, Any], model: Any, axis: int) -> Any:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra [export]")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    axes = tuple(range(axis, 0))
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axes, keepdims=True)
    normed = centred / np.sqrt(wide.var(axes, keepdims=True) + 1e-3)
    return normed * weights["scale"] + weights.get("bias", 0.0)


@pytest.mark.parametrize(
    ("shape", "axis", "bias"),
    [
        ((16, 32, 32), -3, True),
        ((4096,), -1, True),
        ((6, 512), -1, False),
        ((3, 5, 7, 4), -2, True),
    ],
)
def test_the_replaced_norm_is_the_norm_and_keeps_its_digits(
    shape: tuple[int, ...], axis: int, bias: bool
) -> None:
    model = norm_model(shape, axis, bias=bias)
    changed = with_exact_norms(model.SerializeToString())
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra [export]")
    onnx.checker.check_model(onnx.load_from_string(changed), full_check=True)
    kinds = [node.op_type for node in onnx.load_from_string(changed).graph.node]
    assert "LayerNormalization" not in kinds
    x = np.random.default_rng(0).normal(5, 1, (3, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(changed, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x})[0]
    assert found.shape == x.shape
    assert np.abs(found - exact(x, model, axis)).max() < 5e-6


def test_norms_in_float64_and_norms_of_no_known_size_stay() -> None:
    wide = norm_model((8, 8), -2, wide=True).SerializeToString()
    assert with_exact_norms(wide) == wide
    odd = norm_model((8, 8), -2)
    odd.graph.initializer[0].dims[:] = [1, 64]  # a scale that broadcasts
    odd.graph.node[0].attribute[0].i = -1
    assert with_exact_norms(odd.SerializeToString()) == odd.SerializeToString()


def test_a_bundle_verifies_with_replaced_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(TRAINED)
    reference = load_reference(bundle)
    monkeypatch.setattr(ort, "norms_lose_digits", lambda: False)
    before = closed_loop(open_session(bundle, ("step",)), reference.context, 3)
    monkeypatch.setattr(ort, "norms_lose_digits", lambda: True)
    report = verify_bundle(bundle)
    assert report.passed
    after = closed_loop(open_session(bundle, ("step",)), reference.context, 3)
    assert 0 < np.abs(after - before).max() < 1e-5  # another kernel ran
    worst = max(lead.max_error / lead.tolerance for check in report.checks for lead in check.leads)
    assert worst < 0.6


def test_every_norm_of_a_bundle_is_replaced_or_exact() -> None:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra [export]")
    for graph in ("step", "forecast", "rollout"):
        model = onnx.load(TRAINED / f"{graph}.onnx", load_external_data=False)
        count = sum(node.op_type == "LayerNormalization" for node in model.graph.node)
        made = onnx.load_from_string(with_exact_norms(model.SerializeToString()))
        kinds = [node.op_type for node in made.graph.node]
        assert kinds.count("InstanceNormalization") == count > 0
        assert "LayerNormalization" not in kinds


def test_the_kernel_here_is_judged_by_what_it_computes() -> None:
    version = tuple(int(word) for word in onnxruntime.__version__.split(".")[:2])
    assert norms_lose_digits() == (version < (1, 30))


def test_wire_format_round_trip() -> None:
    message = number(1, 7) + part(2, b"x" * 300) + number(3, -5) + number(1, 2**40)
    found = list(fields(message))
    assert b"".join(field.raw for field in found) == message
    assert numbers(found, 1) == [7, 2**40]
    assert numbers(found, 3) == [-5]
    assert found[1].content == b"x" * 300
    packed = part(1, bytes([1, 200, 1, 3]))
    assert numbers(fields(packed), 1) == [1, 200, 3]
    for broken in (message[:-1], b"\x0b", b"\x80"):
        with pytest.raises(ValueError, match=r"cut off|wire type"):
            list(fields(broken))
