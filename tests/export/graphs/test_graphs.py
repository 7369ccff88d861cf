"""The three graphs against one another and against PyTorch, for both models."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from stpl_core.bundle import WEIGHTS, open_bundle
from stpl_core.errors import AccuracyError, RecipeError, RunError, UsageError
from stpl_export.export import export_run
from stpl_export.graphs.onnx_step import step_onnx
from stpl_runtime.engine import closed_loop, open_session
from stpl_train.forecaster import rollout
from stpl_train.run import open_run


@pytest.mark.parametrize("model", ["modernn", "convlstm"])
@pytest.mark.parametrize(("context", "horizon"), [(1, 1), (2, 5), (5, 2)])
def test_graphs_agree_with_each_other_and_with_pytorch(
    model: str, context: int, horizon: int, run_maker: Any, tmp_path: Path
) -> None:
    run = run_maker(model, context=context, horizon=horizon)
    bundle = export_run(run, tmp_path / "bundle")
    session = open_session(bundle, ["step", "forecast", "rollout"])
    network = open_run(run).model()
    for batch in (1, 2, 5):
        frames = np.random.default_rng(batch).random((batch, context, 1, 8, 8), dtype=np.float32)
        with torch.no_grad():
            theirs = rollout(network, torch.from_numpy(frames), horizon).numpy()
            exact = rollout(network.double(), torch.from_numpy(frames).double(), horizon).numpy()
            network.float()
        stepped = closed_loop(session, frames, horizon)
        unrolled = session.rollout(frames)
        state = session.zero_state(batch)
        for t in range(context - 1):
            _, state = session.step(np.ascontiguousarray(frames[:, t]), state)
        streamed, after = session.forecast(np.ascontiguousarray(frames[:, -1]), state)
        np.testing.assert_allclose(unrolled, stepped, rtol=0, atol=1e-6)
        np.testing.assert_allclose(streamed, stepped, rtol=0, atol=1e-6)
        tolerance = np.maximum(8 * np.abs(theirs - exact).max(axis=(0, 2, 3, 4)), 1e-6)
        error = np.abs(stepped - exact).max(axis=(0, 2, 3, 4))
        assert (error <= tolerance).all(), (error, tolerance)
        _, by_step = session.step(np.ascontiguousarray(frames[:, -1]), state)
        for name, values in session.state_arrays(after).items():
            np.testing.assert_allclose(
                values, session.state_arrays(by_step)[name], rtol=0, atol=1e-6
            )


def test_export_keeps_layer_norms_whole_and_shares_one_weight_file(
    run_maker: Any, tmp_path: Path
) -> None:
    bundle = export_run(run_maker("modernn"), tmp_path / "bundle")
    counts = {}
    for name in ("step", "forecast", "rollout"):
        model = onnx.load(bundle.graph(name), load_external_data=False)
        onnx.checker.check_model(str(bundle.graph(name)), full_check=True)
        counts[name] = collections.Counter(node.op_type for node in model.graph.node)
        places = {
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert places == {WEIGHTS}
        inline = [t for t in model.graph.initializer if not t.external_data]
        assert all(len(t.raw_data) <= 256 for t in inline)
        assert model.opset_import[0].version >= 20
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    # Per layer: 6 in the context block, used 5 half-steps x 3 kernels; 2 gates; 1 cell.
    assert counts["step"]["LayerNormalization"] == 2 * (5 * 3 + 2 + 1)
    assert counts["step"].keys().isdisjoint({"ReduceMean", "Pow", "Sqrt", "If", "Loop", "Shape"})
    assert counts["forecast"]["LayerNormalization"] == 3 * counts["step"]["LayerNormalization"]
    assert counts["rollout"]["Conv"] == 5 * counts["step"]["Conv"]


def test_graphs_hold_no_path_and_no_source(run_maker: Any, tmp_path: Path) -> None:
    bundle = export_run(run_maker("convlstm"), tmp_path / "bundle")
    here = Path(__file__).resolve().parents[3]
    for name in ("step.onnx", "forecast.onnx", "rollout.onnx", "manifest.json"):
        text = bundle.file(name).read_bytes()
        for needle in (
            str(here),
            str(Path.home()),
            str(tmp_path),
            ".py",
            "stack_trace",
            "site-pack",
        ):
            assert needle.encode() not in text, (name, needle)


def test_export_is_refused_where_something_lies_and_leaves_nothing_on_a_breach(
    run_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_maker("convlstm")
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="already exists"):
        export_run(run, out)
    assert (out / "mine.txt").read_text() == "keep"
    monkeypatch.setattr("stpl_export.reference.FP32_FACTOR", 1e-9)
    monkeypatch.setattr("stpl_export.reference.FP32_FLOOR", 1e-12)
    with pytest.raises(AccuracyError, match="lead time 1, tolerance"):
        export_run(run, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "convlstm"]


def test_a_run_that_does_not_fit_is_refused(run_maker: Any, tmp_path: Path) -> None:
    run = run_maker("convlstm")
    with pytest.raises(RunError, match="is missing; expected a directory"):
        export_run(tmp_path / "none", tmp_path / "b")
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace("kernel = 3", "kernel = 5"))
    with pytest.raises(RunError, match=r"tensor cells.0.conv_h.conv.weight has shape"):
        export_run(run, tmp_path / "b")
    (run / "recipe.toml").write_text(text)
    weights = run / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(RunError, match="is broken"):
        export_run(run, tmp_path / "b")
    assert not (tmp_path / "b").exists()


class _Leaky(torch.nn.Module):
    """Breaks the contract: the state changes shape."""

    frame_shape = (1, 8, 8)

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return {"h": torch.zeros(batch, 1, 8, 8)}

    def step(
        self, frame: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return frame, {"h": torch.cat([state["h"], frame], dim=1)}


def test_a_state_that_changes_shape_is_named() -> None:
    with pytest.raises(RecipeError, match="step changes h; expected the same names"):
        step_onnx(_Leaky())  # type: ignore[arg-type]  # breaks the contract on purpose


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=() if n < 2 else pytest.mark.soak) for n in range(20)]
)
def test_honest_exports_pass(seed: int, run_maker: Any, tmp_path: Path) -> None:
    run = run_maker("modernn" if seed % 4 == 1 else "convlstm", seed=seed, context=4, horizon=6)
    bundle = export_run(run, tmp_path / "bundle")
    report = open_bundle(bundle.path).manifest.accuracy
    assert report is not None
    assert report.passed
    assert len(report.checks) == 6
