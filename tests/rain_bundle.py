"""A small bundle of rain rates, untrained: what needs one, and no particular one."""

from __future__ import annotations

from pathlib import Path

import pytest


def export_rain_bundle(folder: Path) -> Path:
    """Export a model of 32x32 pixels, 3 frames in and 4 out, in mm/h, that gives chances too."""
    pytest.importorskip("torch")
    import safetensors.torch
    import torch

    from stpl_export.export import export_run
    from stpl_train.data.stand_in import stand_in_sequences
    from stpl_train.models import build_model
    from stpl_train.recipe import parse_recipe
    from stpl_train.run import WEIGHTS, save_recipe, save_validation

    codec = {"quantity": "rain rate", "units": "mm h-1", "high": 100.0, "kind": "db", "clip": True}
    data = {"source": "synthetic", "frame": (1, 32, 32), "context": 3, "horizon": 4, "codec": codec}
    keys = {"name": "advect", "hidden": 8, "width": 8, "levels": [0.3, 0.6], "horizon": 4}
    recipe = parse_recipe({"model": keys, "data": data, "training": {"iterations": 1}})
    path = folder / "run"
    path.mkdir(parents=True)
    save_recipe(path, recipe)
    torch.manual_seed(0)
    network = build_model("advect", (1, 32, 32), recipe.model.keys)
    safetensors.torch.save_file(network.state_dict(), path / WEIGHTS)
    save_validation(path, stand_in_sequences((1, 32, 32), 7, 2))
    export_run(path, folder / "bundle")
    return folder / "bundle"
