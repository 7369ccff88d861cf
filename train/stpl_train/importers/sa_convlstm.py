"""Checkpoints of a third-party SA-ConvLSTM, jerrywn121/TianChi_AIEarth (folder SAConvLSTM).

Its choices (bibliography.md 1.6): no patches, no encoder, no norm, no forget bias, logits divided
by sqrt(d), Z of the attention's width, one convolution over [x; h], gates in the order i, f, o, g.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stpl_core.errors import CheckpointError
from stpl_train.importers.common import (
    Hints,
    Imported,
    assemble,
    count_layers,
    frame_and_patch,
    need,
)

PROJECT = "TianChi_AIEarth SAConvLSTM"

_RULES = [
    (r"cells\.(\d+)\.conv_([xh])\.conv\.weight", r"layers.\1.conv.weight[\2]"),
    (r"cells\.(\d+)\.conv_x\.conv\.bias", r"layers.\1.conv.bias"),
    (r"cells\.(\d+)\.memory\.project_([hm])\.(weight|bias)", r"layers.\1.sa.conv_\2.\3"),
    (r"cells\.(\d+)\.memory\.mix\.(weight|bias)", r"layers.\1.sa.conv_z.\2"),
    (
        r"cells\.(\d+)\.memory\.gates_([zh])\.conv\.weight",
        r"layers.\1.sa.conv_output.weight[\2]",
    ),
    (r"cells\.(\d+)\.memory\.gates_z\.conv\.bias", r"layers.\1.sa.conv_output.bias"),
    (r"decode\.(weight|bias)", r"conv_output.\1"),
]


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """Turn the third-party `net` into our SA-ConvLSTM.

    The model runs on frames of any size, so `hints` must give it.
    """
    decode = need(tensors, "conv_output.weight", 4, PROJECT)  # (C, D, 1, 1)
    first = need(tensors, "layers.0.conv.weight", 4, PROJECT)  # (4D, C + D, k, k)
    gates = need(tensors, "layers.0.sa.conv_output.weight", 4, PROJECT)  # (3D, Z + D, k, k)
    memory = need(tensors, "layers.0.sa.conv_m.weight", 4, PROJECT)  # (2A, D, 1, 1)
    hidden = first.shape[0] // 4
    shape, _ = frame_and_patch(decode.shape[0], None, Hints(hints.frame_shape), fixed=1)
    layers = count_layers(tensors, r"layers\.(\d+)\.")
    keys: dict[str, Any] = {
        "hidden": hidden,
        "layers": layers,
        "kernel": int(first.shape[-1]),
        "attention_kernel": int(gates.shape[-1]),
        "attention_width": memory.shape[0] // 2,
        "z_width": int(gates.shape[1]) - hidden,
        "scaled": True,
        "encoder": False,
        "patch": 1,
        "norm": "none",
        "forget_bias": 0.0,
    }
    plain = dict(tensors)
    for n in range(layers):
        _split(plain, f"layers.{n}", decode.shape[0] if n == 0 else hidden, hidden, keys["z_width"])
    return assemble(PROJECT, plain, "sa-convlstm", keys, shape, _RULES)


def _split(plain: dict[str, Tensor], layer: str, inputs: int, hidden: int, z_width: int) -> None:
    """Cut one layer's joint convolutions into ours, in place; i, f, o, g becomes i, f, g, o."""
    for name, parts in (
        (f"{layer}.conv.weight", {"x": inputs, "h": hidden}),
        (f"{layer}.sa.conv_output.weight", {"z": z_width, "h": hidden}),
    ):
        joint = need(plain, name, 4, PROJECT)
        if joint.shape[1] != sum(parts.values()):
            raise CheckpointError(
                f"tensor {name} reads {joint.shape[1]} channels",
                expected=f"{sum(parts.values())} ({inputs} of the input, {hidden} hidden)",
                fix="another project's word after --from",
            )
        weight = _reorder(plain.pop(name)) if name.endswith(".conv.weight") else plain.pop(name)
        start = 0
        for part, width in parts.items():
            plain[f"{name}[{part}]"] = weight[:, start : start + width].contiguous()
            start += width
    plain[f"{layer}.conv.bias"] = _reorder(need(plain, f"{layer}.conv.bias", 1, PROJECT))


def _reorder(gates: Tensor) -> Tensor:
    i, f, o, g = gates.chunk(4)
    return torch.cat([i, f, g, o])
