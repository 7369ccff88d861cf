"""Small runs and bundles, made by the real export."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from filelock import FileLock

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.files import atomic_file
from stpl_export.export import export_run
from stpl_export.graphs.onnx_step import step_onnx
from stpl_train import run as runs
from stpl_train.models import build_model
from stpl_train.recipe import parse_recipe

TRAINED = Path(__file__).parents[1] / "data" / "modernn-mini"

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


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """What `make` writes to a path, once for all parallel workers: an export takes seconds."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers have folders of their own in it
    path = folder / "once" / name
    path.parent.mkdir(exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return path


@pytest.fixture(scope="session")
def trained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small trained run that lies in the repository, exported once; copy it before a change."""
    return open_bundle(
        made_once(
            tmp_path_factory, "trained.bundle", lambda path: export_run(TRAINED, path, sequences=4)
        )
    )


STEP_MODELS = {
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

StepMaker = Callable[[str], onnx.ModelProto]


def _save_step(name: str, path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(name, (1, 16, 16), {"patch": 4, **STEP_MODELS[name]}).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() == 4 and not tensor.any():  # at zero, what is before it is not seen
                tensor.normal_(0.0, 0.05)
    with atomic_file(path) as file:
        file.write(step_onnx(model).SerializeToString())


@pytest.fixture(scope="session")
def step_of(tmp_path_factory: pytest.TempPathFactory) -> StepMaker:
    """The step graph of a model in `STEP_MODELS`, exported once; copy it before a change."""

    @functools.cache
    def make(name: str) -> onnx.ModelProto:
        save = functools.partial(_save_step, name)
        return onnx.load(made_once(tmp_path_factory, f"{name}.onnx", save))

    return make
