"""Bytes of the tensors that live at the same time: counted on PyTorch's meta device.

Tensors there have a shape and no values, so a pass over a whole batch costs no memory and little
time, and every operation, forward and backward, is the one that the real pass runs.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


class LiveBytes(TorchDispatchMode):
    """Inside the block, `peak` is the most that tensors made there took together."""

    def __init__(self) -> None:
        """Count from nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now = 0
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
        scratch = _columns(args, made) if func in _CONVOLUTIONS else 0
        self.peak = max(self.peak, self._now + scratch)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self._now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._now += size


def _columns(args: Sequence[Any], made: Any) -> int:
    """Scratch of a float64 convolution on the CPU: it unfolds the whole batch into columns."""
    out = next((value for value in tree_leaves(made) if isinstance(value, Tensor)), None)
    weight = next((arg for arg in args[1:3] if isinstance(arg, Tensor) and arg.dim() == 4), None)
    if out is None or weight is None or out.dtype != torch.float64 or weight[0, 0].numel() == 1:
        return 0
    return out.shape[0] * math.prod(weight.shape[1:]) * math.prod(out.shape[2:]) * 8
