"""What a training run will need of memory, beside what its process takes already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from stpl_core.errors import StplError
from stpl_core.host.memory import WORTH_A_LINE, require_memory
from stpl_train.forecaster import rollout
from stpl_train.losses import sequence_loss
from stpl_train.models import ForecasterModule, build_model
from stpl_train.planning.live_bytes import LiveBytes
from stpl_train.prefetch import DEPTH
from stpl_train.recipe import Recipe
from stpl_train.unroll import TrainingPass

_FLOAT = 4
_KEPT = 4
"""A parameter, its gradient and AdamW's two moments."""
_SAVING = 9
"""Copies of a parameter while a checkpoint is written: it and two moments, thrice each."""
_LIBRARIES = 60e6
"""What TensorBoard, the optimiser and the runtime's threads load after the start."""
_SURE = 1.15
"""A setting that is suggested must really fit: so much more than estimated."""


@dataclass(frozen=True)
class TrainingMemory:
    """The parts of it, in bytes; a batch of `recipe.training.batch`."""

    recipe: Recipe
    frame: tuple[int, int, int]
    """(C, H, W)"""
    validation: int
    """Sequences that are validated."""

    @property
    def steps(self) -> int:
        """T + K - 1."""
        return self.recipe.data.context + self.recipe.data.horizon - 1

    @cached_property
    def parameters(self) -> int:
        """Number of them."""
        return sum(value.numel() for value in self._model().parameters())

    def bytes(self, batch: int) -> float:
        """All of it, with another batch size."""
        one = (self.steps + 1) * float(np.prod(self.frame)) * _FLOAT
        state = _FLOAT * self.parameters
        phases = (
            self.training_peak(batch),
            self.validation_peak(min(batch, self.validation)) + 2 * self.validation * one,
            _SAVING * state,
        )
        waiting = (DEPTH + 1) * batch * one
        return _KEPT * state + waiting + max(phases) + _LIBRARIES

    def batch_that_fits(self, room: float) -> int:
        """The greatest batch size, below the recipe's; 0 where none fits."""
        low, high = 0, self.recipe.training.batch
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.bytes(middle) * _SURE <= room
            low, high = (middle, high) if fits else (low, middle)
        return low

    def _model(self) -> ForecasterModule:
        with torch.device("meta"):
            return build_model(self.recipe.model.name, self.frame, self.recipe.model.keys)

    def training_peak(self, batch: int) -> int:
        """Of forward and backward, frames and loss among them."""
        training, steps = self.recipe.training, self.steps
        model = self._model().train()
        frames = torch.zeros(batch, steps + 1, *self.frame, device="meta")
        unrolled = TrainingPass(model, recompute=training.recompute)
        live = LiveBytes()
        with live, torch.device("meta"):
            if training.reversed_pass:
                frames = frames.flip(1)
            guesses, penalty = unrolled(frames, np.ones((batch, steps - 1), np.bool_))
            loss = sequence_loss(
                training.loss, guesses, frames, skip_first=training.skip_first_guess
            )
            (loss + penalty).backward()
        return live.peak

    def validation_peak(self, batch: int) -> int:
        """Of a validation's free-running pass."""
        model = self._model().eval()
        data = self.recipe.data
        frames = torch.zeros(batch, data.context, *self.frame, device="meta")
        live = LiveBytes()
        with live, torch.device("meta"), torch.no_grad():
            rollout(model, frames, data.horizon)
        return live.peak


def plan_memory(
    recipe: Recipe, validation: int, device: str, devices: int, resumed: bool = False
) -> str:
    """One line on the memory of a training run; refuses one that cannot fit.

    Args:
        recipe: with `data.frame`.
        validation: sequences that are validated.
        device: `cpu` or `cuda`, whose own memory then counts.
        devices: processes that share the batch.
        resumed: whether the batch size is fixed.

    Returns:
        The line; empty where it is little, or cannot be estimated: a model of somebody's own may do
        what only tensors with values can.

    Raises:
        EnvironmentFault: more is needed than there is; names the setting that fits.
    """
    frame = recipe.data.frame
    assert frame is not None, "a recipe with its data's frame"
    planned = TrainingMemory(recipe, frame, validation)
    share = -(-recipe.training.batch // devices)
    try:
        needed = planned.bytes(share) * (devices if device == "cpu" else 1)
    except (StplError, RuntimeError, NotImplementedError, TypeError, ValueError):
        return ""  # what is wrong with a recipe shows when the model is built
    count = f"{recipe.training.batch} sequence{'s' * (recipe.training.batch > 1)}"
    what = f"training on batches of {count} of {planned.steps + 1} frames"
    room = None if device == "cpu" else float(torch.cuda.mem_get_info()[0])
    if recipe.training.compile or recipe.training.precision != "32-true":
        room = float("inf")  # both take less than is counted here: nothing is refused for it
    line = require_memory(needed, what, lambda left: _smaller(planned, left, resumed), room)
    return line if needed >= WORTH_A_LINE else ""


def _smaller(planned: TrainingMemory, room: float, resumed: bool) -> str:
    """The setting that fits into `room` bytes."""
    more = "a higher ulimit -v or memory limit, or stop other programs"
    if resumed:
        return more
    if size := planned.batch_that_fits(room):
        return f"--set training.batch={size}"
    again = planned.recipe.training.model_copy(update={"recompute": True})
    leaner = TrainingMemory(
        planned.recipe.model_copy(update={"training": again}), planned.frame, planned.validation
    )
    if leaner.bytes(planned.recipe.training.batch) * _SURE <= room:
        return "--set training.recompute=true"
    if size := leaner.batch_that_fits(room):
        return f"--set training.batch={size} --set training.recompute=true"
    return f"smaller frames (data.crop, data.tiles), a narrower model, or {more}"
