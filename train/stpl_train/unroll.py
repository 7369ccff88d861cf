"""The training pass: a forecaster unrolled over a sequence, reading true frames or its guesses."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stpl_core.errors import EnvironmentFault, RecipeError
from stpl_train.forecaster import LeadForecaster, PenalisedForecaster, State
from stpl_train.models import ForecasterModule
from stpl_train.recipe import TrainingSection
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
        step = step_of(model)
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


class LeadPass(nn.Module):
    """The same for forecasts of chosen lead times, which need no steps between."""

    def __init__(self, model: ForecasterModule) -> None:
        """Call `model`, a `LeadForecaster`."""
        super().__init__()
        self.model = model
        self.between: Callable[[], None] = lambda: None
        """Called before the forecast; what it raises ends the pass."""

    def forward(self, frames: Tensor, leads: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """See `stpl_train.forecaster.LeadForecaster.lead_forecasts`."""
        self.between()
        return cast(LeadForecaster, self.model).lead_forecasts(frames, leads)


def training_pass(model: ForecasterModule, training: TrainingSection) -> TrainingPass | LeadPass:
    """The pass that a recipe's loss reads, of a model that `check_loss` let through."""
    if training.leads is not None:
        return LeadPass(model)
    return TrainingPass(model, recompute=training.recompute, compiled=training.compile)


def check_loss(model: ForecasterModule, training: TrainingSection) -> None:
    """Refuse a loss that this model cannot be trained with.

    Raises:
        RecipeError: `mse-events` for a model that forecasts none, or one of other levels.
    """
    if training.leads is None:
        return
    if not isinstance(model, LeadForecaster):
        raise RecipeError(
            f'training.loss = "mse-events" with {type(model).__name__}, which forecasts no events',
            expected="a model with lead_forecasts, such as advect, or another loss",
            fix="--model advect",
        )
    weights, levels = len(training.leads.events), len(model.levels)
    if weights != levels:
        raise RecipeError(
            f"training.leads.events has {weights} weights",
            expected=f"{levels}, one for each of model.levels",
            fix=f"--set training.leads.events='{[1.0] * levels}'",
        )


def step_of(model: ForecasterModule) -> Step:
    """The step that training takes, with a penalty of zero where the model has none."""
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
