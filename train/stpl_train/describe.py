"""What a run directory holds, for `stpl-deploy inspect`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from stpl_train.models import build_model
from stpl_train.recipe import Recipe
from stpl_train.run import METRICS, open_run


def describe_run(path: Path) -> dict[str, Any]:
    """Describe a run: model, counted parameters, data, progress."""
    run = open_run(path)
    recipe = run.recipe
    model = build_model(recipe.model.name, run.frame_shape, recipe.model.keys)
    state = model.initial_state(1)
    return {
        "model": recipe.model.name,
        "keys": recipe.model.keys,
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "frames": f"{recipe.data.context} in, {recipe.data.horizon} out, "
        + "x".join(str(side) for side in run.frame_shape),
        "data": recipe.data.source,
        "state": {name: tuple(tensor.shape[1:]) for name, tensor in state.items()},
        **_origin(run.path, recipe),
    }


def _origin(path: Path, recipe: Recipe) -> dict[str, Any]:
    """How the weights came to be: imported, or trained here."""
    if recipe.imported is not None:
        return {"imported": f"{recipe.imported.file} of {recipe.imported.project}"}
    return {"iterations": recipe.training.iterations, "last": _last_line(path / METRICS)}


def _last_line(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[-1] if rows else {}
