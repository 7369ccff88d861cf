"""What a run directory holds, for `stpl-deploy inspect`."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import safetensors
import torch

from stpl_core.errors import RunError
from stpl_core.safety.printable import printable
from stpl_train.models import build_model, is_known
from stpl_train.recipe import Recipe
from stpl_train.run import METRICS, WEIGHTS, Run, open_run


def describe_run(path: Path) -> dict[str, Any]:
    """Describe a run: model, counted parameters, data, progress.

    A class of somebody's own is never imported for this: its parameters are those of the weights,
    and its state is not known.
    """
    run = open_run(path)
    recipe = run.recipe
    parameters, state = _built(run) if is_known(recipe.model.name) else (_weights(run), None)
    return {
        "model": recipe.model.name,
        "keys": recipe.model.keys,
        "parameters": parameters,
        "frames": f"{recipe.data.context} in, {recipe.data.horizon} out, "
        + "x".join(str(side) for side in run.frame_shape),
        "data": recipe.data.source,
        "state": state,
        **_origin(run.path, recipe),
    }


def _built(run: Run) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Parameters and state of a model that we know, counted without memory for its weights."""
    with torch.device("meta"):
        model = build_model(run.recipe.model.name, run.frame_shape, run.recipe.model.keys)
        state = model.initial_state(1)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in state.items()}
    return sum(tensor.numel() for tensor in model.parameters()), shapes


def _weights(run: Run) -> int | None:
    """How many numbers the weights hold; None where there are none yet."""
    path = run.file(WEIGHTS)
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
            return sum(int(math.prod(shape)) for shape in shapes)
    except (safetensors.SafetensorError, OSError) as error:
        raise RunError(
            f"{path} is broken: {error}", expected="safetensors", fix="train again"
        ) from error


def _origin(path: Path, recipe: Recipe) -> dict[str, Any]:
    """How the weights came to be: imported, or trained here."""
    if recipe.imported is not None:
        return {"imported": f"{recipe.imported.file} of {recipe.imported.project}"}
    rows = _rows(path / METRICS)
    started = {} if recipe.start is None else {"started": recipe.start.weights}
    return {
        "iterations": recipe.training.iterations,
        "last": rows[-1] if rows else {},
        "best": min(rows, key=lambda row: float(row["mse"]), default={}),
        **started,
    }


_NUMBERS = ("iteration", "loss", "mse", "persistence")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            for key in _NUMBERS:
                float(row[key])
        return rows
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(
            f"{path} is broken: {printable(error)}",
            expected="a line for each validation",
            fix="remove it",
        ) from error
