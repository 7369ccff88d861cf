"""Makes tests/data/convlstm-tiny.bundle: `python tests/data/make_convlstm_tiny.py`.

A ConvLSTM of 19 thousand random weights, T = 4 and K = 3, 16x16: the runtime's tests run thousands
of its steps, and do so where neither torch nor onnx is installed, so the bundle is committed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from stpl_export.export import export_run
from stpl_train import run as runs
from stpl_train.models import build_model
from stpl_train.recipe import parse_recipe

OUT = Path(__file__).parent / "convlstm-tiny.bundle"


def main() -> None:
    """Write the bundle; it must not be there."""
    recipe = parse_recipe(
        {
            "model": {"name": "convlstm", "hidden": [8], "kernel": 5, "patch": 4},
            "data": {
                "source": "moving-mnist",
                "frame": [1, 16, 16],
                "digit_size": 8,
                "context": 4,
                "horizon": 3,
            },
            "training": {"iterations": 1},
        }
    )
    torch.manual_seed(0)
    model = build_model(recipe.model.name, (1, 16, 16), recipe.model.keys)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)  # so that every frame of the context matters to the eye
    frames = np.random.default_rng(0).random((2, 7, 1, 16, 16), dtype=np.float32)
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory)
        runs.save_recipe(run, recipe)
        safetensors.torch.save_file(model.state_dict(), run / runs.WEIGHTS)
        runs.save_validation(run, frames)
        export_run(run, OUT)


if __name__ == "__main__":
    main()
