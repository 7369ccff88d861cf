"""Weights by the names that other projects' code gives them, small and random."""

from __future__ import annotations

import torch
from torch import Tensor


def st_lstm(
    norm: bool = False, channels: int = 16, layers: int = 2, size: tuple[int, int] = (4, 6)
) -> dict[str, Tensor]:
    """A state dict with the names and shapes of predrnn-pytorch: 4 wide, 3x3, a map of `size`."""
    d, k = 4, 3
    tensors: dict[str, Tensor] = {}
    for n in range(layers):
        for name, outputs, inputs in (
            ("conv_x", 7 * d, channels if n == 0 else d),
            ("conv_h", 4 * d, d),
            ("conv_m", 3 * d, d),
            ("conv_o", d, 2 * d),
        ):
            tensors[f"cell_list.{n}.{name}.0.weight"] = torch.rand(outputs, inputs, k, k)
            if norm:
                for part in ("weight", "bias"):
                    tensors[f"cell_list.{n}.{name}.1.{part}"] = torch.rand(outputs, *size)
        tensors[f"cell_list.{n}.conv_last.weight"] = torch.rand(d, 2 * d, 1, 1)
    tensors["conv_last.weight"] = torch.rand(channels, d, 1, 1)
    return tensors
