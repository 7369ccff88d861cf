"""The losses of the published recipes (bibliography.md 3.3)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from stpl_train.recipe import LeadsSection

Loss = Literal["sse-sae", "sse-2sae", "sse", "mse", "mse-events"]


def sequence_loss(
    kind: Loss,
    guesses: Tensor,
    frames: Tensor,
    *,
    skip_first: bool,
    observed: Tensor | None = None,
) -> Tensor:
    """Compare every guess with the frame it guesses.

    `sse-sae`: (sum of squares + sum of absolutes) / 4 (MoDeRNN); `sse-2sae`: sum of squares / 2 +
    sum of absolutes (E3D-LSTM); `sse`: sum of squares / 2 (CMS-LSTM, PredRNN++, MIM), all summed
    over the batch too; `mse`: the mean of squares (PredRNN, OpenSTL).

    Args:
        kind: which one.
        guesses: `(B, T + K - 1, C, H, W)`; number t guesses frame t + 1.
        frames: the true sequence, `(B, T + K, C, H, W)`.
        skip_first: leave out the guess of the second frame, which has seen no motion, unless it
            is the only one.
        observed: `(B, T + K, H, W)`, False where a pixel of `frames` was not observed: its error
            is none. The mean still divides by the number of all pixels, so that an observed one
            weighs the same in every batch and on every device. None: all were.

    Returns:
        A scalar.
    """
    first = 1 if skip_first and guesses.shape[1] > 1 else 0
    error = guesses[:, first:] - frames[:, first + 1 :]  # (B, T + K - 1 - first, C, H, W)
    if observed is not None:
        error = error.where(observed[:, first + 1 :, None], 0.0)
    if kind == "mse":
        return error.square().mean()
    if kind == "sse":
        return error.square().sum() / 2
    if kind == "sse-2sae":
        return error.square().sum() / 2 + error.abs().sum()
    return (error.square().sum() + error.abs().sum()) / 4


def lead_loss(
    field: Tensor,
    logits: Tensor,
    truth: Tensor,
    levels: Tensor,
    leads: tuple[int, ...],
    weights: LeadsSection,
    *,
    observed: Tensor | None = None,
) -> Tensor:
    """Mean square error by lead time, and cross-entropy of the events.

    The mean over the lead times of `MSE_k / (error * k ** growth) + sum_q weight_q * BCE_kq`, each
    a mean over all pixels, of which those that were not observed have none.

    Args:
        field: `(B, n, C, H, W)`.
        logits: `(B, n, Q, C, H, W)`.
        truth: as `field`.
        levels: `(Q,)`; an event is a value at or above one.
        leads: the n lead times, from 1.
        weights: of the parts.
        observed: `(B, n, H, W)`, False where a pixel of `truth` was not observed; None: all were.

    Returns:
        A scalar.
    """
    event = (truth[:, :, None] >= levels.view(-1, 1, 1, 1)).to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, event, reduction="none")
    square = (field - truth).square()
    if observed is not None:
        square = square.where(observed[:, :, None], 0.0)
        entropy = entropy.where(observed[:, :, None, None], 0.0)
    expected = weights.error * field.new_tensor(leads) ** weights.growth  # (n,)
    of_field = (square.mean((0, 2, 3, 4)) / expected).mean()
    of_events = (entropy.mean((0, 1, 3, 4, 5)) * field.new_tensor(weights.events)).sum()
    return of_field + of_events


def shard_weight(kind: Loss, local: int, total: int, devices: int) -> float:
    """Factor on one device's loss so that averaged gradients are those of one process.

    Data-parallel training averages the devices' gradients. A sum over the whole batch needs them
    added; a mean needs them weighted by the device's share of the batch.

    Args:
        kind: of the loss.
        local: sequences on this device.
        total: sequences on all devices.
        devices: how many.
    """
    return devices * local / total if kind.startswith("mse") else float(devices)
