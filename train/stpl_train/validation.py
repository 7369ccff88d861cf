"""Validation: the free-running forecast against truth, beside persistence, and pictures of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stpl_deploy.baselines import persistence
from stpl_deploy.codec import Array
from stpl_deploy.files import atomic_file
from stpl_deploy.metrics import PerLead, mse_per_frame
from stpl_train.forecaster import rollout
from stpl_train.models import ForecasterModule

_GAP = 2  # pixels between pictures
_LEAST_SIDE = 64  # smaller frames are enlarged by a whole factor
_SHOWN = 3  # sequences in one picture


def persistence_mse(sequences: Array, context: int) -> PerLead:
    """MSE per frame of repeating the last context frame, `(K,)`."""
    truth = sequences[:, context:]
    return mse_per_frame(persistence(sequences[:, :context], truth.shape[1]), truth)


@torch.no_grad()
def forecasts(model: ForecasterModule, sequences: Array, context: int, batch: int) -> Array:
    """Free-running forecasts `(N, K, C, H, W)`, clipped to [0, 1] as a nowcast is.

    Args:
        model: put into evaluation mode and back into training mode.
        sequences: `(N, T + K, C, H, W)`.
        context: T.
        batch: sequences at a time.
    """
    device = next(model.parameters()).device
    horizon = sequences.shape[1] - context
    parts = []
    model.eval()
    for start in range(0, len(sequences), batch):
        frames = torch.from_numpy(sequences[start : start + batch, :context]).to(device)
        parts.append(rollout(model, frames, horizon).float().clamp(0, 1).cpu().numpy())
    model.train()
    return np.concatenate(parts)  # (N, K, C, H, W)


def save_strips(path: Path, sequences: Array, forecast: Array) -> None:
    """Write a PNG: for each of a few sequences the truth, and below it what was predicted.

    The first T pictures of the lower row are left blank: nothing is predicted there.

    Args:
        path: the file.
        sequences: `(N, T + K, C, H, W)` in [0, 1].
        forecast: `(N, K, C, H, W)` in [0, 1].
    """
    rows = []
    for truth, guess in zip(sequences[:_SHOWN], forecast[:_SHOWN], strict=True):
        blank = np.full_like(truth[: len(truth) - len(guess)], 0.25)
        rows += [_strip(truth), _strip(np.concatenate([blank, guess]))]
    picture = np.concatenate(rows)  # (height, width, 3)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    with atomic_file(path) as file:
        file.write(buffer.getvalue())


def _strip(frames: Array) -> NDArray[np.uint8]:
    """One row of pictures `(height, width, 3)` from `(F, C, H, W)`.

    Three channels are colours; of any other number the first is shown in grey.
    """
    channels = frames if frames.shape[1] == 3 else np.repeat(frames[:, :1], 3, axis=1)
    grow = max(1, -(-_LEAST_SIDE // min(frames.shape[2:])))
    large = channels.repeat(grow, axis=2).repeat(grow, axis=3)  # (F, 3, height, width)
    padded = np.pad(
        large, ((0, 0), (0, 0), (0, _GAP), (0, _GAP)), constant_values=0.5
    )  # (F, 3, height + gap, width + gap)
    row = np.concatenate(list(padded), axis=2)  # (3, height + gap, all widths)
    return np.moveaxis((np.clip(row, 0, 1) * 255).round().astype(np.uint8), 0, -1)
