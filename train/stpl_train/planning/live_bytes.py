"""Bytes of the tensors that live at the same time, counted while a model runs one short pass."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stpl_core.frames import FrameShape
from stpl_train.models import ForecasterModule
from stpl_train.unroll import step_of

_FLOAT, _DOUBLE = 4, 8
_SMALL_FRAME = 2**17
"""Values of a frame up to which a step is really run: on PyTorch's meta device, where tensors have
a shape and no values, it takes no memory, but seconds."""


class LiveBytes(TorchDispatchMode):
    """Counts the tensors that are made inside the block."""

    def __init__(self) -> None:
        """Count from nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        """Bytes that live."""
        self.peak: int = 0
        """The most of it."""
        self.columns: int = 0
        """The most that a convolution unfolds into columns, which it does on the CPU in float64."""
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation and count what it makes."""
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        self.peak = max(self.peak, self.now)
        if func is torch.ops.aten.convolution.default:
            self.columns = max(self.columns, _columns(args[1], made))
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size


def _columns(weight: Tensor, made: Tensor) -> int:
    if weight.dim() != 4 or weight[0, 0].numel() == 1:
        return 0
    return made.shape[0] * math.prod(weight.shape[1:]) * math.prod(made.shape[2:]) * _DOUBLE


@dataclass(frozen=True)
class StepBytes:
    """One step of a model on one sequence, in bytes."""

    kept: int
    """That its backward pass waits for."""
    passing: int
    """The most beside the state while it runs with no backward pass."""
    state: int
    columns: int
    """See `LiveBytes.columns`."""


def place(frame: FrameShape) -> torch.device:
    """Where a step on frames of (C, H, W) is counted."""
    return torch.device("cpu" if math.prod(frame) <= _SMALL_FRAME else "meta")


def step_bytes(model: ForecasterModule) -> StepBytes:
    """Count the second step, which reads a state that the first one made.

    Args:
        model: on the device of `place`.
    """
    device = next(model.parameters()).device
    frame = torch.zeros(1, *model.frame_shape, device=device)  # (B, C, H, W)
    step = step_of(model)
    with LiveBytes() as live, device:
        state = model.initial_state(1)
        guess, state, _ = step(frame, state)
        before = live.now
        after = step(guess, state)
        kept = live.now - before
    size = sum(value.numel() for value in state.values()) * _FLOAT
    del after, guess, state
    with LiveBytes() as passing, device, torch.no_grad():
        model.step(frame, model.initial_state(1))
    return StepBytes(kept, max(0, passing.peak - size), size, passing.columns)
