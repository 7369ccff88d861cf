"""What a training run will need of memory, beside what its process takes already."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch

from stpl_core.frames import FrameShape
from stpl_core.host.memory import WORTH_A_LINE, require_memory
from stpl_train.forecaster import LeadForecaster
from stpl_train.models import ForecasterModule, build_model
from stpl_train.planning.live_bytes import LiveBytes, StepBytes, place, step_bytes
from stpl_train.prefetch import DEPTH
from stpl_train.recipe import Recipe

_FLOAT = 4
_WEIGHTS = 3
"""A parameter and AdamW's two moments."""
_SAVING = 9
"""Copies of a parameter while a checkpoint is written: it and two moments, thrice each."""
_ONE_GRADIENT = 2
"""Of the largest parameter, on its way to the sum over the steps."""
_LOSS = 5
"""Copies of the guesses: one by one, stacked, without the first, their errors, squares."""
_BACK = 1.0
"""Gradients that live together on the way back, over what one step kept."""
_VALIDATED = 3
"""Copies of the frames that a validation predicts."""
_ALLOCATOR = 1.65
"""What the allocator and the kernels take over the tensors: copies in their own order, gaps."""
_LIBRARIES = 50e6
"""What TensorBoard, the optimiser and the runtime's threads load after the start."""
_SURE = 1.15
"""A setting that is suggested must really fit: so much more than estimated."""


@dataclass(frozen=True)
class TrainingMemory:
    """The parts of it, in bytes."""

    recipe: Recipe
    frame: FrameShape
    validation: int
    """Sequences that are validated."""

    @property
    def steps(self) -> int:
        """T + K - 1."""
        return self.recipe.data.context + self.recipe.data.horizon - 1

    @cached_property
    def model(self) -> ForecasterModule:
        """Untrained, to count with."""
        name, keys = self.recipe.model.name, self.recipe.model.keys
        with torch.random.fork_rng(devices=[]), place(self.frame):
            return build_model(name, self.frame, keys)

    @cached_property
    def step(self) -> StepBytes:
        """Of one sequence."""
        return step_bytes(self.model)

    def bytes(self, batch: int, recompute: bool | None = None) -> float:
        """All of it, for batches of so many sequences."""
        picture = math.prod(self.frame) * _FLOAT
        sequence = (self.steps + 1) * picture
        weights = sum(value.nbytes for value in self.model.parameters())
        checked = min(batch, self.validation)
        phases = (
            self.both_ways(batch, recompute),
            checked * (self.step.passing + self.step.state + 2 * self.steps * picture)
            + self.validation * _VALIDATED * self.recipe.data.horizon * picture,
            (_SAVING - _WEIGHTS) * weights,
        )
        batches = (DEPTH + 1) * batch * sequence
        return _WEIGHTS * weights + batches + _ALLOCATOR * max(phases) + _LIBRARIES

    def both_ways(self, batch: int, recompute: bool | None = None) -> float:
        """Forward and back: what each step keeps, and the gradients."""
        lean = self.recipe.training.recompute if recompute is None else recompute
        sizes = [value.nbytes for value in self.model.parameters()]
        gradients = (1 + lean) * sum(sizes) + _ONE_GRADIENT * max(sizes)  # run again: their own too
        return batch * self._sequence(lean) + gradients

    def _sequence(self, lean: bool) -> float:
        training, frame = self.recipe.training, math.prod(self.frame) * _FLOAT
        if training.leads is not None:
            return self._of_leads * (1 + _BACK / self.recipe.data.context)
        kept = self.step.state + frame if lean else self.step.kept
        flipped = (self.steps + 1) * frame if training.reversed_pass else 0
        back = (1 + lean) * _BACK * self.step.kept  # run again: kept once more
        return self.steps * (kept + _LOSS * frame) + back + flipped

    @cached_property
    def _of_leads(self) -> int:
        """What forecasts of lead times keep for the way back."""
        weights, data = self.recipe.training.leads, self.recipe.data
        assert weights is not None
        leads = tuple(range(1, data.horizon + 1))[-weights.count :]
        where = place(self.frame)
        frames = torch.zeros(1, data.context, *self.frame, device=where)  # (B, T, C, H, W)
        live = LiveBytes()
        with live, where:
            made = cast(LeadForecaster, self.model).lead_forecasts(frames, leads)
        outputs: int = sum(value.numel() for value in made) * _FLOAT
        return live.now + _LOSS * outputs

    def batch_that_fits(self, room: float, recompute: bool | None = None) -> int:
        """The greatest batch size, below the recipe's; 0 where none fits."""
        low, high = 0, self.recipe.training.batch
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.bytes(middle, recompute) * _SURE <= room
            low, high = (middle, high) if fits else (low, middle)
        return low


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
    except Exception:  # of somebody's own model, anything; of a wrong recipe, the start says it
        return ""
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
    if planned.recipe.training.leads is None:
        if planned.bytes(planned.recipe.training.batch, recompute=True) * _SURE <= room:
            return "--set training.recompute=true"
        if size := planned.batch_that_fits(room, recompute=True):
            return f"--set training.batch={size} --set training.recompute=true"
    return f"smaller frames (data.crop, data.tiles), a narrower model, or {more}"
