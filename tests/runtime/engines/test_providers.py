"""The tiny model that providers are tried with."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from stpl_runtime.engine import ENGINES
from stpl_runtime.engines.placement import CUDA, RTX
from stpl_runtime.engines.providers import CPU, tiny_model, try_providers
from tests.runtime.engines.test_ort_gpu import plugin_of


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
    listed = [t.provider for t in trials if t.provider in onnxruntime.get_available_providers()]
    assert listed == onnxruntime.get_available_providers()
    engines = {trial.provider: trial.engine for trial in trials}
    assert engines[CPU] == "onnx"
    assert set(engines.values()) <= {"", *ENGINES}
    assert any(trial.provider == CPU and trial.works for trial in trials)
    for trial in trials:
        assert trial.works == (trial.note == "")
        assert "\n" not in trial.note


def test_a_listed_provider_without_its_libraries_does_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The GPU build without CUDA lists its provider and puts the graph on the CPU."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [cpu] or [gpu]")
    if CUDA.name in onnxruntime.get_available_providers():
        pytest.skip("this build has the provider")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA.name, CPU])
    monkeypatch.setitem(sys.modules, RTX.plugin, plugin_of(tmp_path / "none.so"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxruntime's own about a provider that it does not know
        rtx, cuda, cpu = try_providers()
    assert (cpu.provider, cpu.works) == (CPU, True)
    assert (cuda.provider, cuda.works, cuda.engine) == (CUDA.name, False, "onnx-cuda")
    assert (rtx.provider, rtx.works, rtx.engine) == (RTX.name, False, "onnx-trt-rtx")
    takes_plugins = hasattr(onnxruntime, "register_execution_provider_library")
    assert cuda.note
    assert rtx.note
    assert "--engine onnx" in cuda.fix
    assert ("--engine onnx" if takes_plugins else "pip install 'onnxruntime>=1.24'") in rtx.fix
