"""A forecaster of the change: its guess is its input frame plus the network's output.

`[model] output = "residual"`, for any model. Slow fields (temperature, counts) gain most: a model
that puts out zero is persistence.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from stpl_train.forecaster import Forecaster, FrameShape, PenalisedForecaster, State


class Residual(nn.Module):
    """Adds the frame to the guess of `inner`; the state is that of `inner`."""

    def __init__(self, inner: nn.Module) -> None:
        """Wrap `inner`, a forecaster."""
        super().__init__()
        self.inner = inner
        self.frame_shape: FrameShape = cast(Forecaster, inner).frame_shape

    def initial_state(self, batch: int) -> State:
        """See `stpl_train.forecaster.Forecaster`."""
        return cast(Forecaster, self.inner).initial_state(batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """See `stpl_train.forecaster.Forecaster`."""
        change, state = cast(Forecaster, self.inner).step(frame, state)
        return frame + change, state  # (B, C, H, W)


class PenalisedResidual(Residual):
    """The same for a forecaster with a penalty of its own."""

    def training_step(self, frame: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """See `stpl_train.forecaster.PenalisedForecaster`."""
        inner = cast(PenalisedForecaster, self.inner)
        change, state, penalty = inner.training_step(frame, state)
        return frame + change, state, penalty
