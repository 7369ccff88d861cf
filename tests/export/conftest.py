"""Small runs and bundles, made by the real export."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from stpl_core.bundle import Bundle, open_bundle
from stpl_export.export import export_run
from stpl_export.graphs.onnx_step import step_onnx
from stpl_train import run as runs
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.forecaster import FrameShape
from stpl_train.models import ForecasterModule, build_model
from stpl_train.recipe import parse_recipe
from tests.exported_once import made_once

TRAINED = Path(__file__).parents[1] / "data" / "modernn-mini"


@pytest.fixture(scope="session", autouse=True)
def _exported_once(exported_once: None) -> None:
    """Every export here is kept."""


KEYS = {
    "modernn": {"hidden": 4, "layers": 2, "patch": 2},
    "convlstm": {"hidden": [4, 4], "kernel": 3, "patch": 2},
}


def make_run(
    path: Path, model: str, *, seed: int = 0, context: int = 3, horizon: int = 3, side: int = 8
) -> Path:
    """Write a run directory with random weights and random validation sequences."""
    recipe = parse_recipe(
        {
            "model": {"name": model, **KEYS[model]},
            "data": {
                "source": "moving-mnist",
                "frame": [1, side, side],
                "digit_size": side // 2,
                "context": context,
                "horizon": horizon,
            },
            "training": {"iterations": 1},
        }
    )
    path.mkdir(parents=True)
    torch.manual_seed(seed)
    runs.save_recipe(path, recipe)
    network = build_model(model, (1, side, side), recipe.model.keys)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name.endswith(("norm.weight", "norm.bias", "norm_c.weight", "norm_c.bias")):
                tensor.add_(0.3 * torch.randn_like(tensor))  # fresh norms are blind to some faults
    safetensors.torch.save_file(network.state_dict(), path / runs.WEIGHTS)
    random = np.random.default_rng(seed)
    frames = random.random((4, context + horizon, 1, side, side), dtype=np.float32)
    runs.save_validation(path, frames)
    return path


RunMaker = Callable[..., Path]


@pytest.fixture
def run_maker(tmp_path: Path) -> RunMaker:
    """Make a run directory in a temporary folder."""

    def make(model: str, **keys: int) -> Path:
        name = "-".join([model, *(f"{key}{value}" for key, value in keys.items())])
        return make_run(tmp_path / name, model, **keys)

    return make


@pytest.fixture(scope="session")
def trained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small trained run that lies in the repository, exported once; copy it before a change."""
    return open_bundle(
        made_once(
            tmp_path_factory, "trained.bundle", lambda path: export_run(TRAINED, path, sequences=4)
        )
    )


STEP_MODELS: dict[str, dict[str, Any]] = {
    "advect": {"hidden": 8, "width": 16},
    "convlstm": {"hidden": [8, 8]},
    "modernn": {"hidden": 8, "layers": 2},
    "predrnn": {"hidden": 8, "layers": 2},
    "predrnn-zigzag": {"hidden": 8, "layers": 2},
    "predrnn-pp": {"hidden": [8, 8]},
    "mim": {"hidden": 8, "layers": 2},
    "e3d-lstm": {"hidden": [8, 8]},
    "cms-lstm": {"hidden": 8, "layers": 2},
    "sa-convlstm": {"hidden": 8, "layers": 2},
}
"""Every model with a graph of its own, two layers, frames of 1x16x16 in patches of 4."""

KEYS_OF_MODELS: dict[str, dict[str, Any]] = {
    **STEP_MODELS,
    "predrnn-v2": {"hidden": 8, "layers": 2},  # differs in training alone
}
"""Every model of the catalogue."""

FRAME: FrameShape = (1, 16, 16)
CONTEXT, HORIZON = 3, 3


def tiny_model(name: str) -> ForecasterModule:
    """A model of `KEYS_OF_MODELS`. Fresh norms and zeros hide faults, so no weight is fresh."""
    amount = 0.03 if name == "advect" else 0.05  # more throws its rain out of every range
    torch.manual_seed(5)
    model = build_model(name, FRAME, {"patch": 4, **KEYS_OF_MODELS[name]}).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(amount * torch.randn_like(tensor))
    return model


def tiny_run(path: Path, name: str) -> Path:
    """The run of a `tiny_model`."""
    data = {"source": "synthetic", "frame": FRAME, "context": CONTEXT, "horizon": HORIZON}
    keys = {"name": name, "patch": 4, **KEYS_OF_MODELS[name]}
    recipe = parse_recipe({"model": keys, "data": data, "training": {"iterations": 1}})
    path.mkdir()
    runs.save_recipe(path, recipe)
    safetensors.torch.save_file(tiny_model(name).state_dict(), path / runs.WEIGHTS)
    runs.save_validation(path, stand_in_sequences(FRAME, CONTEXT + HORIZON, 2))
    return path


StepMaker = Callable[[str], onnx.ModelProto]


@pytest.fixture(scope="session")
def step_of() -> StepMaker:
    """The step graph of a `tiny_model`; copy it before a change."""
    return functools.cache(lambda name: step_onnx(tiny_model(name)))


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The `tiny_run` of a model, made once."""

    def make(name: str) -> Path:
        return made_once(tmp_path_factory, f"{name}.run", lambda path: tiny_run(path, name))

    return make


@pytest.fixture(scope="session")
def bundle_of(
    run_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Bundle]:
    """The bundle of a `tiny_run`, exported once; copy it before a change."""

    def make(name: str) -> Bundle:
        export = functools.partial(export_run, run_of(name))
        return open_bundle(made_once(tmp_path_factory, f"{name}.bundle", export))

    return make
