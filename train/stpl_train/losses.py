"""The losses of the published recipes (bibliography.md 3.3)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Loss = Literal["sse-sae", "sse-2sae", "sse", "mse"]


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
    return devices * local / total if kind == "mse" else float(devices)
