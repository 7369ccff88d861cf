"""Validation: the free-running forecast against truth, beside persistence, and pictures of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stpl_core.baselines import persistence
from stpl_core.codec import Array
from stpl_core.drawing.colours import NO_DATA_ON_DARK, Picture
from stpl_core.files import atomic_file
from stpl_core.metrics import PerLead, mse_per_frame
from stpl_core.reader import Mask
from stpl_train.forecaster import emissions
from stpl_train.models import ForecasterModule

_GAP = 2  # pixels between pictures
_LEAST_SIDE = 64  # smaller frames are enlarged by a whole factor
_MOST_SIDE = 256  # larger ones are thinned out: a row of a country's frames must still open
_DRAWN = 3  # sequences in one picture


def forecast_mse(forecast: Array, sequences: Array, observed: Mask | None = None) -> PerLead:
    """MSE per frame against the end of the sequences, `(K,)`.

    Args:
        forecast: `(N, K, C, H, W)`.
        sequences: `(N, T + K, C, H, W)`.
        observed: `(N, T + K, H, W)`; at each lead time only what was observed then counts. None:
            all was.
    """
    horizon = forecast.shape[1]
    seen = None if observed is None else observed[:, -horizon:]  # (N, K, H, W)
    return mse_per_frame(forecast, sequences[:, -horizon:], seen)


def persistence_mse(sequences: Array, context: int, observed: Mask | None = None) -> PerLead:
    """The same of repeating the last context frame, `(K,)`."""
    still = persistence(sequences[:, :context].clip(min=0.0), sequences.shape[1] - context)
    return forecast_mse(still, sequences, observed)


@torch.no_grad()
def forecasts(
    model: ForecasterModule,
    sequences: Array,
    context: int,
    batch: int,
    step: Callable[[int], None] = lambda done: None,
    between: Callable[[], None] = lambda: None,
    *,
    clip: bool = True,
) -> Array:
    """Free-running forecasts `(N, K, C, H, W)`, clipped as a nowcast is.

    Args:
        model: put into evaluation mode and back into training mode.
        sequences: `(N, T + K, C, H, W)`.
        context: T.
        batch: sequences at a time.
        step: given the sequences done after each batch.
        between: called after each step of the model and each batch; what it raises ends this.
        clip: to [0, 1].
    """
    device = next(model.parameters()).device
    horizon = sequences.shape[1] - context
    parts = []
    model.eval()
    try:
        for start in range(0, len(sequences), batch):
            frames = torch.from_numpy(sequences[start : start + batch, :context]).to(device)
            every = []
            for guess in emissions(model, frames, horizon):
                every.append(guess)
                between()
            made = torch.stack(every[context - 1 :], dim=1)  # (B, K, C, H, W)
            made = made.float().clamp(0, 1) if clip else made.float()
            parts.append(made.cpu().numpy())
            step(min(start + batch, len(sequences)))
            between()
    finally:
        model.train()
    return np.concatenate(parts)  # (N, K, C, H, W)


def save_strips(
    path: Path, sequences: Array, forecast: Array, observed: Mask | None = None
) -> None:
    """Write a PNG: for each of a few sequences the truth, and below it what was predicted.

    The first T pictures of the lower row are left blank: nothing is predicted there. What was not
    observed is blue in both rows: it is not scored.

    Args:
        path: the file.
        sequences: `(N, T + K, C, H, W)` in [0, 1].
        forecast: `(N, K, C, H, W)` in [0, 1].
        observed: `(N, T + K, H, W)`; None: all was.
    """
    rows = []
    for n, (truth, guess) in enumerate(zip(sequences[:_DRAWN], forecast[:_DRAWN], strict=True)):
        blank = np.full_like(truth[: len(truth) - len(guess)], 0.25)
        seen = np.ones_like(truth[:, 0], bool) if observed is None else observed[n]  # (F, H, W)
        below = seen.copy()
        below[: len(blank)] = True
        rows += [_strip(truth, seen), _strip(np.concatenate([blank, guess]), below)]
    picture = np.concatenate(rows)  # (height, width, 3)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    with atomic_file(path) as file:
        file.write(buffer.getvalue())


def _strip(frames: Array, observed: Mask) -> Picture:
    """One row of pictures `(height, width, 3)` from `(F, C, H, W)` and `(F, H, W)`.

    Three channels are colours; of any other number the first is drawn in grey. Of large frames
    every second, third, ... pixel is drawn.
    """
    thin = max(1, -(-max(frames.shape[2:]) // _MOST_SIDE))
    frames, observed = frames[..., ::thin, ::thin], observed[..., ::thin, ::thin]
    channels = frames if frames.shape[1] == 3 else np.repeat(frames[:, :1], 3, axis=1)
    unseen = np.asarray(NO_DATA_ON_DARK, np.float32)[:, None, None] / 255  # (3, 1, 1)
    channels = np.where(observed[:, None], channels, unseen)
    grow = max(1, -(-_LEAST_SIDE // min(frames.shape[2:])))
    large = channels.repeat(grow, axis=2).repeat(grow, axis=3)  # (F, 3, height, width)
    padded = np.pad(
        large, ((0, 0), (0, 0), (0, _GAP), (0, _GAP)), constant_values=0.5
    )  # (F, 3, height + gap, width + gap)
    row = np.concatenate(list(padded), axis=2)  # (3, height + gap, all widths)
    return np.moveaxis((np.clip(row, 0, 1) * 255).round().astype(np.uint8), 0, -1)
