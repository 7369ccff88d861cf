"""The Forecaster contract: a recurrent video model as one pure step.

Everything downstream (training loop, rollout, ONNX step graph, unrolled graphs) is built on
`step`, so a module that keeps this contract trains, exports and streams like the built-in ones.

Shapes: `B` batch, `C, H, W` the frame as the user sees it (space-to-depth lives inside the model).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from stpl_core.codec import Array
from stpl_core.frames import FrameShape as FrameShape
from stpl_core.manifest import OutputSpec
from stpl_core.reader import Mask

State = dict[str, Tensor]
"""Named state tensors of any rank, batch first; all zero is the start of a sequence."""


@runtime_checkable
class Forecaster(Protocol):
    """A `torch.nn.Module` that predicts the next frame from a frame and a state.

    `step` must be pure: no hidden attributes that survive the call, no device moves, no Python
    branch on tensor values. The order of the state's names must not change between calls.
    """

    frame_shape: FrameShape

    def initial_state(self, batch: int) -> State:
        """All-zero state for `batch` sequences, on the model's device and in its dtype."""
        ...

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Take the frame at time t, `(B, C, H, W)`; return the guess of frame t+1 and the state."""
        ...


@runtime_checkable
class PenalisedForecaster(Forecaster, Protocol):
    """A forecaster whose training adds a penalty of its own (PredRNN-V2's decoupling loss)."""

    def training_step(self, frame: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """`step`, plus a scalar that the trainer averages over steps and adds to the mean loss."""
        ...


@runtime_checkable
class GivesMore(Forecaster, Protocol):
    """A forecaster that gives more with every step than the next frame.

    What it gives beside the frame is a part of the state that no step reads: `step` returns it
    under its name, `initial_state` has zeros there. These parts come last. So every loop, graph,
    engine and check carries it as it carries the state.
    """

    outputs: tuple[OutputSpec, ...]
    """What those parts are, in their order."""


@runtime_checkable
class LeadForecaster(Forecaster, Protocol):
    """A forecaster that can be trained at chosen lead times, with the chances of events.

    An event is a value at or above one of `levels`.
    """

    levels: Tensor
    """`(Q,)`, rising, model units."""

    def lead_forecasts(self, frames: Tensor, leads: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Forecast some lead times without the steps between.

        Args:
            frames: the context, `(B, T, C, H, W)`, in model units.
            leads: n lead times, from 1.

        Returns:
            The field `(B, n, C, H, W)`, and logits of the chance of each event,
            `(B, n, Q, C, H, W)`.
        """
        ...

    def fit_events(self, sequences: Array, observed: Mask | None, context: int) -> None:
        """Calibrate the chances of events.

        Args:
            sequences: held out, `(N, T + K, C, H, W)`, in model units.
            observed: `(N, T + K, H, W)`; None: everything.
            context: T.
        """
        ...


def emissions(model: Forecaster, frames: Tensor, horizon: int) -> Iterator[Tensor]:
    """Free-running pass: yield the T + K - 1 emissions, each `(B, C, H, W)`.

    The first T steps read the true frames, each later step reads the emission before it,
    unclipped (bibliography.md 1.0). Emission t is the guess of frame t + 1.

    Args:
        model: the forecaster.
        frames: the context, `(B, T, C, H, W)`, in model units.
        horizon: K >= 1, the number of future frames.
    """
    state = model.initial_state(frames.shape[0])
    guess = frames[:, 0]  # (B, C, H, W), replaced before it is read
    context = frames.shape[1]
    for t in range(context + horizon - 1):
        guess, state = model.step(frames[:, t] if t < context else guess, state)
        yield guess


def rollout(model: Forecaster, frames: Tensor, horizon: int) -> Tensor:
    """Predict the `horizon` frames after the context.

    Args:
        model: the forecaster.
        frames: the context, `(B, T, C, H, W)`, in model units.
        horizon: K >= 1.

    Returns:
        `(B, K, C, H, W)` in model units, unclipped.
    """
    every = list(emissions(model, frames, horizon))
    return torch.stack(every[frames.shape[1] - 1 :], dim=1)  # (B, K, C, H, W)
