"""The training pass: a forecaster unrolled over a sequence, reading true frames or its guesses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stpl_core.errors import EnvironmentFault
from stpl_train.forecaster import PenalisedForecaster, State
from stpl_train.models import ForecasterModule
from stpl_train.schedules import TrueFrameMask

Step = Callable[[Tensor, State], tuple[Tensor, State, Tensor]]
"""Frame `(B, C, H, W)` and state -> guess, state and the penalty of this step, a scalar."""


class TrainingPass(nn.Module):
    """One forward call per sequence, so that data-parallel wrappers see one call per backward."""

    def __init__(
        self, model: ForecasterModule, *, recompute: bool = False, compiled: bool = False
    ) -> None:
        """Unroll `model`, whose penalty is used where it has one.

        Args:
            model: the forecaster.
            recompute: keep only the states between steps and run each step again on the way back:
                memory for one step instead of T + K - 1, about half more time.
            compiled: run the step through torch.compile.
        """
        super().__init__()
        self.model = model
        step = _step_of(model)
        self._step = _compiled(step) if compiled else step
        self._recompute = recompute
        self.between: Callable[[], None] = lambda: None
        """Called before each step; what it raises ends the pass."""

    def forward(self, frames: Tensor, use_true: TrueFrameMask) -> tuple[Tensor, Tensor]:
        """Run T + K - 1 steps; the first reads the true frame.

        Args:
            frames: `(B, T + K, C, H, W)`.
            use_true: `(B, T + K - 2)` on the host: its all-true and all-false columns cost nothing.

        Returns:
            The guesses `(B, T + K - 1, C, H, W)` and the mean penalty, a scalar.
        """
        state = self.model.initial_state(frames.shape[0])
        guess = frames[:, 0]  # (B, C, H, W)
        guesses: list[Tensor] = []
        penalties: list[Tensor] = []
        for t in range(frames.shape[1] - 1):
            self.between()
            true = frames[:, t]  # (B, C, H, W)
            frame = true if t == 0 else _mixed(true, guess, use_true[:, t - 1])
            if self._recompute:
                guess, state, penalty = checkpoint(self._step, frame, state, use_reentrant=False)
            else:
                guess, state, penalty = self._step(frame, state)
            guesses.append(guess)
            penalties.append(penalty)
        # (B, T + K - 1, C, H, W)
        return torch.stack(guesses, dim=1), torch.stack(penalties).mean()


def _step_of(model: ForecasterModule) -> Step:
    if isinstance(model, PenalisedForecaster):
        return model.training_step

    def step(frame: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        return *model.step(frame, state), frame.new_zeros(())

    return step


def _compiled(step: Step) -> Step:
    """The step through torch.compile; a missing or failing compiler becomes a one-line error."""
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import InductorError

    compiled: Step = torch.compile(step, dynamic=False)

    def run(frame: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        try:
            return compiled(frame, state)
        except (BackendCompilerFailed, InductorError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise EnvironmentFault(
                f"torch.compile failed: {lines[0]}",
                expected="a C++ compiler on the CPU, Triton on a GPU",
                fix="--set training.compile=false",
            ) from error

    return run


def _mixed(true: Tensor, guess: Tensor, use_true: TrueFrameMask) -> Tensor:
    """Per sequence, the true frame where `use_true` `(B,)` is set, else the guess."""
    if use_true.all():
        return true
    if not use_true.any():
        return guess
    choose = torch.from_numpy(use_true).to(true.device)[:, None, None, None]  # (B, 1, 1, 1)
    return torch.where(choose, true, guess.to(true.dtype))
