"""Checkpoints of czh-98/MoDeRNN."""

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

PROJECT = "MoDeRNN"

# conv33_H reads h and changes x; conv33_X reads x and changes h. One rule per kernel.
_RULES = [
    (
        rf"cells\.(\d+)\.context\.from_{ours}\.{n}\.{kind}\.(weight|bias)",
        rf"lstm.\1.conv{k}{k}_{theirs}.{index}.\2",
    )
    for ours, theirs in (("h", "H"), ("x", "X"))
    for n, k in enumerate((3, 5, 7))
    for index, kind in enumerate(("conv", "norm"))
] + [
    (r"cells\.(\d+)\.conv_x\.conv\.weight", r"lstm.\1.conv_i2h.0.weight"),
    (r"cells\.(\d+)\.conv_x\.norm\.(weight|bias)", r"lstm.\1.conv_i2h.1.\2"),
    (r"cells\.(\d+)\.conv_h\.conv\.weight", r"lstm.\1.conv_h2h.0.weight"),
    (r"cells\.(\d+)\.conv_h\.norm\.(weight|bias)", r"lstm.\1.conv_h2h.1.\2"),
    (r"cells\.(\d+)\.norm_c\.(weight|bias)", r"lstm.\1.norm_cell.\2"),
    (r"encode\.(weight|bias)", r"embed.\1"),
    (r"decode\.(weight|bias)", r"output.\1"),
]


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """Turn a MoDeRNN `state_dict` into our MoDeRNN; its keys all follow from the tensors."""
    embed = need(tensors, "embed.weight", 4, PROJECT)  # (D, C*p*p, 1, 1)
    gates = need(tensors, "lstm.0.conv_i2h.0.weight", 4, PROJECT)  # (4D, D, k, k)
    size = map_size(tensors, "lstm.0.norm_cell.weight")
    shape, patch = frame_and_patch(embed.shape[1], size, hints)
    keys: dict[str, Any] = {
        "hidden": int(embed.shape[0]),
        "layers": count_layers(tensors, r"lstm\.(\d+)\."),
        "kernel": int(gates.shape[-1]),
        "patch": patch,
        "patch_order": "channel-col-row",
    }
    return assemble(PROJECT, tensors, "modernn", keys, shape, _RULES)
