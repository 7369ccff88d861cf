"""The tiny model that providers are tried with."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_runtime.providers import CPU, tiny_model, try_providers


def test_the_bytes_are_a_valid_model() -> None:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra [export]")
    model = onnx.load_from_string(tiny_model())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"]


def test_it_doubles_its_input() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [cpu] or [gpu]")
    session = onnxruntime.InferenceSession(tiny_model(), providers=[CPU])
    frame = np.asarray([[[[1, -2], [3, 0.5]]]], np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": frame})[0], 2 * frame)


def test_every_listed_provider_gets_a_verdict() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [cpu] or [gpu]")
    trials = try_providers()
    assert [trial.provider for trial in trials] == onnxruntime.get_available_providers()
    assert any(trial.provider == CPU and trial.works for trial in trials)
    for trial in trials:
        assert trial.works == (trial.note == "")
        assert "\n" not in trial.note
