"""The training pass: a forecaster unrolled over a sequence, some of whose frames it is shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stpl_train.forecaster import PenalisedForecaster
from stpl_train.models import ForecasterModule
from stpl_train.schedules import Shown


class TrainingPass(nn.Module):
    """One forward call per sequence, so that data-parallel wrappers see one call per backward."""

    def __init__(self, model: ForecasterModule) -> None:
        """Unroll `model`, whose penalty is used where it has one."""
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, shown: Shown) -> tuple[Tensor, Tensor]:
        """Run T + K - 1 steps; the first reads the true frame.

        Args:
            frames: `(B, T + K, C, H, W)`.
            shown: `(B, T + K - 2)` on the host: its all-true and all-false columns cost nothing.

        Returns:
            The guesses `(B, T + K - 1, C, H, W)` and the mean penalty, a scalar.
        """
        state = self.model.initial_state(frames.shape[0])
        guess = frames[:, 0]  # (B, C, H, W)
        guesses: list[Tensor] = []
        penalties: list[Tensor] = []
        for t in range(frames.shape[1] - 1):
            true = frames[:, t]  # (B, C, H, W)
            frame = true if t == 0 else _mixed(true, guess, shown[:, t - 1])
            if isinstance(self.model, PenalisedForecaster):
                guess, state, penalty = self.model.training_step(frame, state)
                penalties.append(penalty)
            else:
                guess, state = self.model.step(frame, state)
            guesses.append(guess)
        total = torch.stack(penalties).mean() if penalties else frames.new_zeros(())
        return torch.stack(guesses, dim=1), total  # (B, T + K - 1, C, H, W)


def _mixed(true: Tensor, guess: Tensor, shown: Shown) -> Tensor:
    """Per sequence, the true frame where `(B,)` says so, else the guess."""
    if shown.all():
        return true
    if not shown.any():
        return guess
    choose = torch.from_numpy(shown).to(true.device)[:, None, None, None]  # (B, 1, 1, 1)
    return torch.where(choose, true, guess.to(true.dtype))
