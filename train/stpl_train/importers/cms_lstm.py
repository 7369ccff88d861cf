"""Checkpoints of czh-98/CMS-LSTM.

The released code has no ablations, but a checkpoint whose cells lack CE or SE is read as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stpl_train.importers.common import (
    Hints,
    Imported,
    assemble,
    count_layers,
    frame_and_patch,
    map_size,
    need,
)

PROJECT = "CMS-LSTM"

_RULES = [
    (r"encode\.(weight|bias)", r"embed.\1"),
    (r"decode\.(weight|bias)", r"output.\1"),
    (r"cells\.(\d+)\.norm_c\.(weight|bias)", r"lstm.\1.norm_cell.\2"),
    # convQ reads h and changes x; convR reads x and changes h.
    *(
        (rf"cells\.(\d+)\.{ours}\.{kind}\.(weight|bias)", rf"lstm.\1.{theirs}.{index}.\2")
        for ours, theirs in (
            ("conv_x", "conv_i2h"),
            ("conv_h", "conv_h2h"),
            (r"context\.from_h", "convQ"),
            (r"context\.from_x", "convR"),
            (r"expression\.gates_z", "SEBlock.w_z2h"),
            (r"expression\.gates_h", "SEBlock.w_h2h"),
        )
        for index, kind in enumerate(("conv", "norm"))
    ),
    (
        r"cells\.(\d+)\.expression\.stages\.(\d+)\.(query|key|value)\.(weight|bias)",
        r"lstm.\1.SEBlock.stages.\2.f_\3.\4",
    ),
    (r"cells\.(\d+)\.expression\.stages\.(\d+)\.gamma", r"lstm.\1.SEBlock.stages.\2.gamma"),
    # Upstream's conv_bn holds a layer norm over [C, h, 2w].
    (r"cells\.(\d+)\.expression\.merge\.(\d)\.(weight|bias)", r"lstm.\1.SEBlock.conv_bn.\2.\3"),
    (r"cells\.(\d+)\.expression\.mix\.(weight|bias)", r"lstm.\1.SEBlock.w_z.\2"),
    (r"cells\.(\d+)\.expression\.norm_c\.(weight|bias)", r"lstm.\1.SEBlock.norm_mem.\2"),
]


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """Turn a CMS-LSTM `state_dict` into ours; its keys all follow from the tensors."""
    embed = need(tensors, "embed.weight", 4, PROJECT)  # (D, C*p*p, 1, 1)
    gates = need(tensors, "lstm.0.conv_i2h.0.weight", 4, PROJECT)  # (4D, D, k, k)
    size = map_size(tensors, "lstm.0.norm_cell.weight")
    shape, patch = frame_and_patch(embed.shape[1], size, hints)
    stages = count_layers(tensors, r"lstm\.0\.SEBlock\.stages\.(\d+)\.")
    keys: dict[str, Any] = {
        "hidden": int(embed.shape[0]),
        "layers": count_layers(tensors, r"lstm\.(\d+)\."),
        "kernel": int(gates.shape[-1]),
        "context": "lstm.0.convQ.0.weight" in tensors,
        "scales": [2**n for n in range(stages)],
        "patch": patch,
        "patch_order": "channel-col-row",
    }
    return assemble(PROJECT, tensors, "cms-lstm", keys, shape, _RULES)
