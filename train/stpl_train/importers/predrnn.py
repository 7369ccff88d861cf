"""Checkpoints of thuml/predrnn-pytorch: PredRNN and PredRNN-V2 (not action-conditioned)."""

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
    norm_key,
)

_RULES = [
    (r"cells\.(\d+)\.(conv_[xhmo])\.conv\.weight", r"cell_list.\1.\2.0.weight"),
    (r"cells\.(\d+)\.(conv_[xhmo])\.norm\.(weight|bias)", r"cell_list.\1.\2.1.\3"),
    (r"cells\.(\d+)\.merge\.weight", r"cell_list.\1.conv_last.weight"),
    (r"decode\.weight", "conv_last.weight"),
    (r"adapter\.weight", "adapter.weight"),
]


def convert_st_lstm(
    project: str, tensors: Mapping[str, Tensor], model: str, hints: Hints
) -> Imported:
    """Convert a stack of ST-LSTM cells, named alike in predrnn-pytorch and OpenSTL.

    Args:
        project: upstream's name, for messages.
        tensors: the upstream state dict.
        model: `predrnn` or `predrnn-v2`.
        hints: the frame shape where layer norm is off, since then it follows from no tensor.
    """
    first = need(tensors, "cell_list.0.conv_x.0.weight", 4, project)  # (7D, C*p*p, k, k)
    hidden = need(tensors, "cell_list.0.conv_m.0.weight", 4, project).shape[1]
    norm = "cell_list.0.conv_x.1.weight"
    shape, patch = frame_and_patch(first.shape[1], map_size(tensors, norm), hints)
    keys: dict[str, Any] = {
        "hidden": int(hidden),
        "layers": count_layers(tensors, r"cell_list\.(\d+)\."),
        "kernel": int(first.shape[-1]),
        "patch": patch,
        "norm": norm_key(tensors, norm),
    }
    return assemble(project, tensors, model, keys, shape, _RULES)


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """Turn a predrnn-pytorch `net_param` into PredRNN, or PredRNN-V2 where it has an adapter."""
    model = "predrnn-v2" if "adapter.weight" in tensors else "predrnn"
    return convert_st_lstm("predrnn-pytorch", tensors, model, hints)
