"""Every registered model through the whole chain, on the grids of the papers' data sets."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks.try_recipes import NARROW
from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import RecipeError
from stpl_core.frames import Frame
from stpl_export.export import export_run
from stpl_runtime.engine import closed_loop, open_session
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import first_breach, verify_bundle
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.forecaster import FrameShape, rollout
from stpl_train.models import MODELS, ForecasterModule, build_model
from stpl_train.recipe import parse_recipe
from stpl_train.run import WEIGHTS, save_recipe, save_validation

CONTEXT, HORIZON = 3, 2

GRIDS: dict[str, tuple[FrameShape, int]] = {
    "64x64x1": ((1, 64, 64), 4),
    "32x32x2": ((2, 32, 32), 2),
    "128x128x1": ((1, 128, 128), 4),
}
"""Moving MNIST and typhoon, TaxiBJ, KTH: (frame, patch)."""

SMALL: dict[str, dict[str, Any]] = {
    **NARROW,
    "convlstm": {"hidden": [4, 8], "kernel": 3},
    "e3d-lstm": {"hidden": [4, 4], "kernel": 3, "history": 2},
    "predrnn-pp": {"hidden": [8, 4], "kernel": 3},
}
"""Narrow; of unequal layers where a model takes them."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "predrnn with CE and SE": ("predrnn", {"context_block": True, "se_scales": [1, 2]}),
    "predrnn with layer norm": ("predrnn", {"norm": "ln_chw"}),
    "sa-convlstm with CE and SE": ("sa-convlstm", {"context_block": True, "se_scales": [1]}),
    "cms-lstm, CE only": ("cms-lstm", {"scales": []}),
    "cms-lstm, SE only": ("cms-lstm", {"context": False}),
    "cms-lstm, one scale": ("cms-lstm", {"scales": [1]}),
    "cms-lstm, two scales": ("cms-lstm", {"scales": [1, 2]}),
}
"""Ablations and transplants: model and the keys beside those of SMALL."""

ALWAYS = ("predrnn with CE and SE",)
"""The others only by hand: each takes ten seconds."""


def test_every_registered_model_is_here() -> None:
    assert set(SMALL) == set(MODELS)


def make_model(model: str, grid: str, extra: dict[str, Any] | None = None) -> ForecasterModule:
    frame, patch = GRIDS[grid]
    torch.manual_seed(7)
    network = build_model(model, frame, {**SMALL[model], "patch": patch, **(extra or {})}).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))  # fresh norms and zeros hide faults
    return network


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("model", MODELS)
def test_builds_steps_and_rolls_out(model: str, grid: str) -> None:
    network = make_model(model, grid)
    frames = torch.from_numpy(stand_in_sequences(GRIDS[grid][0], CONTEXT, 2))  # (B, T, C, H, W)
    with torch.no_grad():
        future = rollout(network, frames, HORIZON)  # (B, K, C, H, W)
        alone = rollout(network, frames[1:], HORIZON)
    assert future.shape == (2, HORIZON, *GRIDS[grid][0])
    assert future.isfinite().all()
    assert (future[0] - future[1]).abs().max() > 1e-3  # it sees what it is shown
    torch.testing.assert_close(alone, future[1:], rtol=0, atol=1e-4)  # batches do not mix


def make_run(path: Path, model: str, grid: str, extra: dict[str, Any] | None = None) -> Path:
    frame, patch = GRIDS[grid]
    data = {"source": "synthetic", "frame": frame, "context": CONTEXT, "horizon": HORIZON}
    keys = {"name": model, **SMALL[model], "patch": patch, **(extra or {})}
    recipe = parse_recipe({"model": keys, "data": data, "training": {"iterations": 1}})
    path.mkdir()
    save_recipe(path, recipe)
    safetensors.torch.save_file(make_model(model, grid, extra).state_dict(), path / WEIGHTS)
    save_validation(path, stand_in_sequences(frame, CONTEXT + HORIZON, 2))
    return path


def streamed(nowcaster: Nowcaster, frames: Array) -> Array:
    """The nowcast `(K, C, H, W)` after the last of `(S, C, H, W)` frames that come one by one."""
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    made = None
    for t, data in enumerate(frames):
        nowcaster.put(Frame(start + timedelta(minutes=5 * t), data))
        made = nowcaster.issue() or made
        while nowcaster.idle_step():
            pass
    assert made is not None
    assert made.issue_time == start + timedelta(minutes=5 * (len(frames) - 1))
    return made.frames


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.soak) for name in VARIANTS],
)
def test_ablations_and_transplants_export_and_verify(name: str, tmp_path: Path) -> None:
    model, extra = VARIANTS[name]
    run = make_run(tmp_path / "run", model, "32x32x2", extra)
    report = verify_bundle(export_run(run, tmp_path / "bundle"))
    assert report.passed
    assert {check.path for check in report.checks} == {"step", "rollout", "forecast"}


@pytest.mark.parametrize("model", MODELS)
def test_exports_verifies_and_streams(model: str, bundle_of: Callable[[str], Bundle]) -> None:
    _verifies_and_streams(bundle_of(model))


ALWAYS_ON = {("modernn", "32x32x2"), ("predrnn", "128x128x1")}
"""The others only by hand."""


@pytest.mark.parametrize(
    ("model", "grid"),
    [
        pytest.param(model, grid, marks=() if (model, grid) in ALWAYS_ON else pytest.mark.soak)
        for model in MODELS
        for grid in GRIDS
    ],
)
def test_exports_on_the_grids_of_the_papers(model: str, grid: str, tmp_path: Path) -> None:
    _verifies_and_streams(export_run(make_run(tmp_path / "run", model, grid), tmp_path / "bundle"))


def _verifies_and_streams(bundle: Bundle) -> None:
    horizon = bundle.manifest.horizon
    assert set(bundle.manifest.graphs) == {"step", "rollout", "forecast"}
    report = verify_bundle(bundle)
    assert report.passed
    assert {check.path for check in report.checks} == {"step", "rollout", "forecast"}
    if importlib.util.find_spec("openvino"):
        assert first_breach(verify_bundle(bundle, engine="openvino", threads=1)) is None
    reference = load_reference(bundle)
    session = open_session(bundle, ("step", "forecast"))
    future = closed_loop(session, reference.context, horizon)  # (N, K, C, H, W)
    worst = np.abs(future - reference.float64).max(axis=(0, 2, 3, 4))  # (K,)
    assert (worst <= reference.tolerance).all()
    frames = stand_in_sequences(
        bundle.manifest.frame, bundle.manifest.context + 1, 2
    )  # one more than a window
    predicted = predict_sequences(bundle, session, frames, horizon)  # (N, K, C, H, W)
    nowcaster = Nowcaster(bundle, session, cadence_s=300)
    np.testing.assert_array_equal(streamed(nowcaster, frames[0]), predicted[0])
    session.close()


@pytest.mark.parametrize(
    ("model", "frame", "keys", "message"),
    [
        ("cms-lstm", (1, 100, 100), {}, r"map of 25x25.*96x96, 112x112.*model.patch=5"),
        ("cms-lstm", (1, 32, 48), {}, r"map of 8x12.*square map.*divisible by 4"),
        ("predrnn", (1, 100, 100), {"se_scales": [1, 2]}, r"25x25.*divisible by 2"),
        *((model, (1, 59, 59), {}, r"59x59.*one of \[1\]") for model in MODELS),
    ],
)
def test_a_size_that_cannot_be_taken_is_refused_with_those_that_can(
    model: str, frame: FrameShape, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_model(model, frame, {**SMALL[model], "patch": 4, **keys})
    assert "\n" not in str(caught.value)


def test_a_suggested_patch_is_taken() -> None:
    network = build_model("cms-lstm", (1, 100, 100), {**SMALL["cms-lstm"], "patch": 5})
    with torch.no_grad():
        guess, _ = network.step(torch.rand(1, 1, 100, 100), network.initial_state(1))
    assert guess.shape == (1, 1, 100, 100)
