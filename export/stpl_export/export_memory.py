"""What an export will need of memory, beside what its process takes already."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property

from stpl_core.host.memory import WORTH_A_LINE, require_memory
from stpl_train.models import ForecasterModule
from stpl_train.planning.live_bytes import StepBytes, place, step_bytes

_FLOAT, _DOUBLE = 4, 8
_LIBRARIES = 220e6
"""The exporter and the runtime, loaded after the start."""
_GRAPHS = 8
"""Copies of the weights: the traced program, three graphs with them inside, a session for each."""
_ARENA = 2.0
"""The runtime's arena, over the tensors that live at the same time."""
_OUTPUTS = 3
"""Copies of the frames that come out."""
_SURE = 1.15
"""A setting that is suggested must really fit: so much more than estimated."""


@dataclass(frozen=True)
class ExportMemory:
    """The parts of it, in bytes."""

    model: ForecasterModule
    horizon: int

    @cached_property
    def step(self) -> StepBytes:
        """Of one sequence."""
        where = place(self.model.frame_shape)
        model = self.model if where.type == "cpu" else copy.deepcopy(self.model).to(where)
        return step_bytes(model)

    def bytes(self, sequences: int) -> float:
        """All of it, for a check on so many sequences."""
        weights = _FLOAT * sum(value.numel() for value in self.model.parameters())
        outputs = self.horizon * math.prod(self.model.frame_shape)
        running = self.step.passing + 2 * self.step.state
        double = 2 * running + self.step.columns + outputs * (_FLOAT + _OUTPUTS * _DOUBLE)
        runtime = _ARENA * running + outputs * (_FLOAT + _DOUBLE + _OUTPUTS * _FLOAT)
        phases = (2 * weights + sequences * double, _GRAPHS * weights + sequences * runtime)
        return _LIBRARIES + max(phases)


def plan_memory(model: ForecasterModule, horizon: int, sequences: int) -> str:
    """One line on the memory of an export; refuses one that cannot fit.

    Args:
        model: what is exported.
        horizon: K.
        sequences: that the check runs at once.

    Returns:
        The line; empty where it is little, or cannot be estimated.

    Raises:
        EnvironmentFault: more is needed than there is; names the setting that fits.
    """
    planned = ExportMemory(model, horizon)
    try:
        needed = planned.bytes(sequences)
    except Exception:  # of somebody's own model that runs on tensors with values only, anything
        return ""
    size = "x".join(map(str, model.frame_shape[1:]))
    what = f"the check on {sequences} sequence{'s' * (sequences > 1)} of {size}"
    line = require_memory(needed, what, lambda room: _smaller(planned, sequences, room))
    return line if needed >= WORTH_A_LINE else ""


def _smaller(planned: ExportMemory, sequences: int, room: float) -> str:
    """The setting that fits into `room` bytes."""
    for fewer in range(sequences - 1, 0, -1):
        if planned.bytes(fewer) * _SURE <= room:
            return f"--sequences {fewer}"
    return "a smaller --grid, a higher ulimit -v or memory limit, or stop other programs"
