"""The search for what half precision breaks: planted faults are found, and the fix is enough."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stpl_core.bundle import open_bundle
from stpl_core.errors import AccuracyError, BundleError
from stpl_export.export import export_run
from stpl_export.precision.bisect import MOST_KEPT, Judge, bisect, bisect_bundle
from stpl_export.precision.emulate import all_float_nodes, emulated
from stpl_export.precision.policy import Half


def _long_graph(length: int, planted: Collection[int]) -> ModelProto:
    """A chain of `length` nodes; at the planted places a value is beyond fp16 for a moment."""
    constants = {"up": 2e5, "down": 1 / 2e5, "one": 1.0, "small": 1e-3}
    nodes, value = [], "x"
    n = 0

    def add(kind: str, *inputs: str) -> None:
        nonlocal value, n
        out = "y" if n == length - 1 else f"v{n}"
        nodes.append(helper.make_node(kind, [value, *inputs], [out], f"node{n}"))
        value, n = out, n + 1

    while n < length:
        if n in planted:
            add("Mul", "up")
            add("Mul", "down")
        else:
            [
                lambda: add("Add", "small"),
                lambda: add("Sub", "small"),
                lambda: add("Mul", "one"),
            ][n % 3]()
    graph = helper.make_graph(
        nodes,
        "long",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.float32(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


FEEDS = {"x": np.asarray([0.5, 0.7, 0.9, 1.1], np.float32)}


def graph_judge(model: ModelProto, precision: Half, max_error: float) -> Judge:
    """Judge one pass over a graph: its output within `max_error` of fp32, and finite."""

    def run(graph: ModelProto) -> np.ndarray:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
        (result,) = session.run(None, FEEDS)
        return np.asarray(result)

    exact = run(model)

    def breaks(rounded: Collection[str]) -> bool:
        gap = np.abs(run(emulated(model, rounded, precision)) - exact).max()
        return not gap <= max_error  # NaN is not

    return breaks


@pytest.mark.parametrize("place", [0, pytest.param(700, marks=pytest.mark.soak), 1497])
def test_a_planted_overflow_among_1500_nodes_is_found_in_14_tries(place: int) -> None:
    model = _long_graph(1500, {place})
    onnx.checker.check_model(model)
    names = all_float_nodes(model)
    assert len(names) == 1500
    judge = graph_judge(model, "fp16", max_error=1e-2)
    found = bisect(names, judge)
    assert found.first == f"node{place}"
    assert found.evaluations_to_first <= 14
    # The product overflows as the result of one node and as the operand of the next.
    assert found.passes
    assert set(found.keep) == {f"node{place}", f"node{place + 1}"}


def test_all_culprits_are_set_aside_and_none_too_many() -> None:
    culprits = {"n3", "n40", "n41", "n77"}
    names = [f"n{k}" for k in range(100)]
    found = bisect(names, lambda rounded: bool(culprits.intersection(rounded)))
    assert found.first == "n3"
    assert set(found.keep) == culprits
    assert found.passes
    # A fault that needs two nodes together: keeping one of them is enough.
    found = bisect(names, lambda rounded: {"n10", "n60"} <= set(rounded))
    assert found.keep == ("n60",)
    assert found.passes


def test_a_graph_that_passes_costs_one_try() -> None:
    found = bisect(["a", "b"], lambda rounded: False)
    assert (found.first, found.keep, found.passes, found.evaluations) == (None, (), True, 1)


def test_the_search_gives_up_where_everything_is_too_coarse() -> None:
    names = [f"n{k}" for k in range(100)]
    found = bisect(names, lambda rounded: len(rounded) > 5)
    assert not found.passes
    assert len(found.keep) == MOST_KEPT


def test_bf16_has_the_range_and_lacks_the_resolution() -> None:
    model = _long_graph(300, {100})
    names = all_float_nodes(model)
    assert bisect(names, graph_judge(model, "fp16", max_error=0.1)).first == "node100"
    assert bisect(names, graph_judge(model, "bf16", max_error=0.1)).first is None


def _overflowing_run(run_maker: Any) -> Any:
    """A run whose decoder reads a hidden state through weights that fp16 sums cannot hold."""
    import safetensors.torch

    from stpl_train import run as runs

    run = run_maker("modernn")
    path = run / runs.WEIGHTS
    tensors = safetensors.torch.load_file(path)
    name = next(n for n in tensors if n.startswith("cells.0.conv_x.conv"))
    tensors[name] *= 3e5  # the norm behind it takes the scale out again, in fp32
    safetensors.torch.save_file(tensors, path)
    return run


def test_an_export_that_overflows_names_the_convolution_and_the_fix(
    run_maker: Any, tmp_path: Any
) -> None:
    run = _overflowing_run(run_maker)
    with pytest.raises(AccuracyError, match=r"--keep-fp32 (\S+)") as caught:
        export_run(run, tmp_path / "broken", precision="fp16")
    assert not (tmp_path / "broken").exists()
    assert caught.value.fix.count("--keep-fp32") == 1
    kept = caught.value.fix.split("--keep-fp32 ")[1].split()[0]
    bundle = export_run(run, tmp_path / "bundle", precision="fp16", keep_fp32=[kept])
    assert set(open_bundle(bundle.path).manifest.kept_fp32) == {kept}
    found = bisect_bundle(bundle)
    assert found.first is None
    assert found.passes


def test_an_fp32_bundle_has_nothing_to_bisect(run_maker: Any, tmp_path: Any) -> None:
    bundle = export_run(run_maker("convlstm"), tmp_path / "bundle")
    with pytest.raises(BundleError, match="is in fp32; expected a bundle in fp16 or bf16"):
        bisect_bundle(bundle)
