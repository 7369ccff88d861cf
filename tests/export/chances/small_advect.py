"""A small model that gives chances, its bundle, and what PyTorch makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from stpl_core.bundle import Bundle
from stpl_core.codec import NO_DATA, Array
from stpl_export.export import export_run
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.models import build_model
from stpl_train.models.advect import Advect
from stpl_train.recipe import parse_recipe
from stpl_train.run import WEIGHTS, save_recipe, save_validation

FRAME, CONTEXT, HORIZON = (1, 32, 48), 2, 3
KEYS = {"name": "advect", "hidden": 8, "width": 8, "levels": [0.2, 0.5], "horizon": 3}
RATE = {"quantity": "rain rate", "units": "mm h-1", "high": 100.0, "kind": "db", "clip": True}
DATA = {"source": "synthetic", "frame": FRAME, "context": CONTEXT, "horizon": HORIZON}


def small(frame: tuple[int, int, int] = FRAME) -> Advect:
    torch.manual_seed(0)
    keys = {key: value for key, value in KEYS.items() if key != "name"}
    model = build_model("advect", frame, keys)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    assert isinstance(model, Advect)
    return model.eval()


def exported(folder: Path, *, marks_no_data: bool = False) -> Bundle:
    """Write folder/run and folder/bundle.

    With `marks_no_data`, a third of its reference was not observed.
    """
    codec = {**RATE, "marks_no_data": marks_no_data}
    recipe = parse_recipe(
        {"model": KEYS, "data": {**DATA, "codec": codec}, "training": {"iterations": 1}}
    )
    path = folder / "run"
    path.mkdir(parents=True)
    save_recipe(path, recipe)
    safetensors.torch.save_file(small().state_dict(), path / WEIGHTS)
    frames, observed = stand_in_sequences(FRAME, CONTEXT + HORIZON, 2), None
    if marks_no_data:
        observed = np.ones((*frames.shape[:2], *FRAME[1:]), bool)
        observed[..., : FRAME[2] // 3] = False
        frames = np.where(observed[:, :, None], frames, np.float32(NO_DATA))
    save_validation(path, frames, observed)
    return export_run(path, folder / "bundle")


def contexts(bundle: Bundle, count: int = 2) -> Array:
    """`(N, T, C, H, W)`, physical units."""
    frames = stand_in_sequences(bundle.manifest.frame, CONTEXT, count)
    return bundle.manifest.codec.physical_from_model(frames)


@torch.no_grad()
def by_torch(model: Advect, frames: Array, horizon: int) -> tuple[Array, Array]:
    """Guesses `(N, K, C, H, W)` and chances `(N, K, Q, C, H, W)`, step by step."""
    state = model.initial_state(len(frames))
    guesses, chances = [], []
    guess = torch.from_numpy(frames[:, 0])
    for t in range(CONTEXT + horizon - 1):
        guess, state = model.step(torch.from_numpy(frames[:, t]) if t < CONTEXT else guess, state)
        if t >= CONTEXT - 1:
            guesses.append(guess.numpy())
            chances.append(state["chance"].numpy())
    return np.stack(guesses, 1), np.stack(chances, 1)
