"""Models wide enough for fewer products, held to PyTorch's float64 over the closed loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stpl_export.export import export_run
from stpl_runtime.engines.ov.session import computes_bf16
from stpl_runtime.proof.verify import first_breach, verify_bundle
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.models import build_model
from stpl_train.recipe import parse_recipe
from stpl_train.run import WEIGHTS, save_recipe, save_validation

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

CONTEXT, HORIZON = 3, 3
BEYOND, WITHIN = (1, 24, 20), (1, 16, 24)
"""Frames whose maps are 12 x 10, where squares reach beyond the edge, and 8 x 12."""
WIDE: dict[str, dict[str, Any]] = {
    "convlstm": {"hidden": [64, 96]},
    "predrnn": {"hidden": 64, "layers": 2},
    "mim": {"hidden": 64, "layers": 2},
}


def wide_run(path: Path, name: str, frame: tuple[int, int, int]) -> Path:
    data = {"source": "synthetic", "frame": frame, "context": CONTEXT, "horizon": HORIZON}
    keys = {"name": name, "patch": 2, **WIDE[name]}
    recipe = parse_recipe({"model": keys, "data": data, "training": {"iterations": 1}})
    path.mkdir()
    torch.manual_seed(2)
    model = build_model(name, frame, {"patch": 2, **WIDE[name]})
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.01 * torch.randn_like(tensor))
    save_recipe(path, recipe)
    safetensors.torch.save_file(model.state_dict(), path / WEIGHTS)
    save_validation(path, stand_in_sequences(frame, CONTEXT + HORIZON, 2))
    return path


@pytest.mark.parametrize(
    ("name", "frame"),
    [("convlstm", BEYOND), ("convlstm", WITHIN), ("predrnn", WITHIN), ("mim", BEYOND)],
)
def test_a_wide_model_passes_its_own_verification(
    name: str, frame: tuple[int, int, int], tmp_path: Path
) -> None:
    bundle = export_run(wide_run(tmp_path / "run", name, frame), tmp_path / "made.bundle")
    report = verify_bundle(bundle, engine="openvino:winograd", threads=1)
    assert first_breach(report) is None
    assert {check.path for check in report.checks} == {"step", "forecast", "rollout"}
    assert {check.engine for check in report.checks} == {"openvino:winograd"}
    worst = max(lead.max_error / lead.tolerance for check in report.checks for lead in check.leads)
    assert worst < 0.6  # of what eight times PyTorch's own rounding allows
    if computes_bf16():
        report = verify_bundle(bundle, engine="openvino:winograd", threads=1, allow="bf16")
        assert first_breach(report) is None
        leads = [lead for check in report.checks for lead in check.leads]
        assert 45 < min(lead.psnr_db for lead in leads) < 100  # rounded, and allowed
