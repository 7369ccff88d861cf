"""The GPU benchmark's parts that run on a CPU; no test asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stpl_runtime.engine import ENGINES

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "convlstm-tiny.bundle"


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu_latency.py", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_what_cannot_run_is_left_out_with_its_reason(tmp_path: Path) -> None:
    done = _run(TINY, "--device", "cpu", "--rounds", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "cpu-convlstm-tiny.bundle.json").read_text())
    rows, left_out = document["rows"], document["not_measured"]
    assert rows.keys() == {"eager-fp32", "eager-fp16", "onnx"}
    assert not rows.keys() & left_out.keys()
    for_nvidia = {name for name in ENGINES if not name.startswith("openvino")}
    assert for_nvidia <= rows.keys() | left_out.keys()
    for name in ("compiled-fp16", "graph-fp32", "stepper-fp32"):
        assert left_out[name] == "needs CUDA"
    assert "has no CUDAExecutionProvider" in left_out["onnx-cuda"]
    for row in rows.values():
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["clock"].startswith("host")
    assert rows["eager-fp32"]["max_error"] < 1e-5 < rows["eager-fp16"]["max_error"] < 1e-1
    assert rows["onnx"]["psnr_db_at_last_lead"] > 100
    assert document["machine"]["cpu"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_without_a_gpu_no_figure_is_written(tmp_path: Path) -> None:
    done = _run(TINY, "--out", tmp_path)
    assert done.returncode == 1
    assert "nothing measured" in done.stderr
    assert not list(tmp_path.iterdir())
