"""`export --grid`: the same weights on frames of another size, padded to what the model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from stpl_core.bundle import Bundle
from stpl_core.errors import RecipeError, RunError
from stpl_export.export import export_run
from stpl_export.regrid import cover, regrid
from stpl_runtime.engine import open_session
from stpl_runtime.engines.tiled import on_domain
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_train import run as runs
from stpl_train.forecaster import rollout
from stpl_train.models import build_model
from stpl_train.recipe import parse_recipe

SMALL: dict[str, dict[str, Any]] = {
    "convlstm": {"hidden": [4], "kernel": 3, "patch": 4},
    "predrnn": {"hidden": 4, "layers": 2, "kernel": 3, "patch": 4, "norm": "gn1"},
    "modernn": {"hidden": 4, "layers": 2, "patch": 4, "norm": "ln_chw"},
    "cms-lstm": {"hidden": 4, "layers": 2, "patch": 2},
}


def make_run(path: Path, model: str) -> runs.Run:
    recipe = parse_recipe(
        {
            "model": {"name": model, **SMALL[model]},
            "data": {
                "source": "moving-mnist",
                "frame": [1, 16, 16],
                "digit_size": 8,
                "context": 2,
                "horizon": 3,
            },
            "training": {"iterations": 1},
        }
    )
    path.mkdir()
    runs.save_recipe(path, recipe)
    torch.manual_seed(0)
    network = build_model(model, (1, 16, 16), recipe.model.keys)
    safetensors.torch.save_file(network.state_dict(), path / runs.WEIGHTS)
    runs.save_validation(path, np.random.default_rng(0).random((3, 5, 1, 16, 16), dtype=np.float32))
    return runs.open_run(path)


@pytest.mark.parametrize("name", ["convlstm", "predrnn"])
def test_the_weights_serve_another_grid(tmp_path: Path, name: str) -> None:
    """Against PyTorch on the padded frames; 22 rows become 24, 12 columns stay."""
    run = make_run(tmp_path / "run", name)
    bundle = export_run(run.path, tmp_path / "bundle", grid=(22, 12))
    manifest = bundle.manifest
    assert manifest.frame == (1, 24, 12)
    assert manifest.domain == (22, 12)
    assert manifest.accuracy is not None
    assert manifest.accuracy.passed
    frames = np.random.default_rng(1).random((2, 2, 1, 22, 12), dtype=np.float32)
    padded = np.pad(frames, ((0, 0),) * 3 + ((0, 2), (0, 0)), mode="edge")
    model = build_model(name, (1, 24, 12), SMALL[name])
    model.load_state_dict(run.model().state_dict())
    with torch.no_grad():
        wanted = rollout(model.eval(), torch.from_numpy(padded), 3).numpy()[..., :22, :]
    np.testing.assert_allclose(predicted(bundle, frames), np.clip(wanted, 0, 1), atol=1e-5)


def predicted(bundle: Bundle, frames: np.ndarray) -> np.ndarray:
    session = open_session(bundle, ("step", "forecast"))
    return predict_sequences(*on_domain(bundle, session, bundle.manifest.domain), frames, 3)


def test_weights_tied_to_a_grid_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "modernn")
    with pytest.raises(RunError, match=r"tied to the grid of 16x16.*gn1.*--grid 32x32 cover"):
        export_run(run.path, tmp_path / "bundle", grid=(32, 32))
    assert not (tmp_path / "bundle").exists()


def test_a_size_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    """CMS-LSTM's scales want a square map: neither axis alone has one."""
    run = make_run(tmp_path / "run", "cms-lstm")
    with pytest.raises(RecipeError, match=r"--grid 40x24.*tiles"):
        regrid(run, (40, 24))


def test_sequences_are_cut_or_mirrored() -> None:
    frames = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 2, 3)
    found, observed = cover(frames, np.ones((1, 1, 2, 3), bool), (1, 4, 2))
    np.testing.assert_array_equal(found[0, 0, 0], [[0, 1], [3, 4], [3, 4], [0, 1]])
    assert observed is not None
    assert observed.shape == (1, 1, 4, 2)
    assert cover(frames, None, (1, 2, 3))[0] is frames
