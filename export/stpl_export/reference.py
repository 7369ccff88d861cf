"""`reference.npz`: real sequences with PyTorch's own outputs, in float32 and float64.

The tolerance of an fp32 engine is PyTorch's own rounding: at each lead time 8 times the greatest
difference between its float32 and its float64 run on the same sequences (at least 1e-6).
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpl_deploy.codec import Array
from stpl_runtime.reference import Reference, ReferenceState
from stpl_train.forecaster import State
from stpl_train.models import ForecasterModule

FP32_FACTOR = 8.0
FP32_FLOOR = 1e-6
MOST_BYTES = 16 * 2**20
"""Sequences are kept up to this size."""
MOST_SEQUENCES = 16


def make_reference(
    model: ForecasterModule,
    sequences: Array,
    context: int,
    data: str,
    most: int = MOST_SEQUENCES,
    observed: NDArray[np.bool_] | None = None,
) -> Reference:
    """Run the closed loop in PyTorch, in float32 and float64.

    Args:
        model: float32, on the CPU, in evaluation mode.
        sequences: `(N, T + K, C, H, W)`, model units; as many as fit are used.
        context: T.
        data: where the sequences came from, for the report.
        most: use at most so many sequences (and at most 16 MB of them).
        observed: `(N, T + K, H, W)`, False where a pixel was not observed; None: all were.
    """
    keep = max(1, min(most, len(sequences), MOST_BYTES // (3 * sequences[0].nbytes)))
    sequences = sequences[:keep]
    horizon = sequences.shape[1] - context
    frames = torch.from_numpy(np.ascontiguousarray(sequences[:, :context]))  # (N, T, C, H, W)
    single, state32 = _closed_loop(model, frames, horizon)
    double, state64 = _closed_loop(copy.deepcopy(model).double(), frames.double(), horizon)
    gap = (single.double() - double).abs().amax(dim=(0, 2, 3, 4))  # (K,)
    states = {
        name: ReferenceState(
            values=state64[name].numpy(),
            tolerance=_tolerance((state32[name].double() - state64[name]).abs().max()),
        )
        for name in state64
    }
    seen = None if observed is None or observed[:keep].all() else observed[:keep]
    return Reference(
        data=data,
        context=sequences[:, :context],
        truth=sequences[:, context:],
        float32=single.numpy(),
        float64=double.numpy(),
        tolerance=np.asarray([_tolerance(value) for value in gap]),
        states=states,
        observed=seen,
    )


def _tolerance(gap: Tensor) -> float:
    return max(FP32_FACTOR * float(gap), FP32_FLOOR)


def _closed_loop(model: ForecasterModule, frames: Tensor, horizon: int) -> tuple[Tensor, State]:
    """K frames `(N, K, C, H, W)`, and the state after the context of the first sequence."""
    state = model.initial_state(len(frames))
    guesses: list[Tensor] = []
    kept: State = {}
    with torch.no_grad():
        guess = frames[:, 0]
        for t in range(frames.shape[1]):
            guess, state = model.step(frames[:, t], state)  # (N, C, H, W)
        kept = {name: tensor[:1].clone() for name, tensor in state.items()}
        guesses.append(guess)
        while len(guesses) < horizon:
            guess, state = model.step(guess, state)
            guesses.append(guess)
    return torch.stack(guesses, dim=1), kept


def save_reference(path: Path, reference: Reference) -> None:
    """Write `reference.npz`."""
    np.savez(path, allow_pickle=False, **reference.arrays())
