"""Checkpoints of OpenSTL (chengtan9907/OpenSTL), one function per method.

The method is the checkpoint's own `hyper_parameters["method"]` where it carries one, else it is
recognised by a tensor that only this method has. OpenSTL's published ConvLSTM and PredRNN++
weights of June 2023 were presumably trained with older equations: `Hints.equations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from stpl_deploy.errors import CheckpointError
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
from stpl_train.importers.predrnn import convert_st_lstm

PROJECT = "OpenSTL"


def convlstm(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """ConvLSTM (models.md 1.1): no forget bias; `conv_o` and the cells' `conv_last` are dead."""
    layers = count_layers(tensors, r"cell_list\.(\d+)\.")
    first = need(tensors, "cell_list.0.conv_x.0.weight", 4, PROJECT)  # (4D, C*p*p, k, k)
    norm = "cell_list.0.conv_x.1.weight"
    shape, patch = frame_and_patch(first.shape[1], map_size(tensors, norm), hints)
    keys: dict[str, Any] = {
        "hidden": [
            need(tensors, f"cell_list.{n}.conv_h.0.weight", 4, PROJECT).shape[1]
            for n in range(layers)
        ],
        "kernel": int(first.shape[-1]),
        "patch": patch,
        "norm": norm_key(tensors, norm),
        "forget_bias": 0.0,
        "equations": hints.equations or "current",
    }
    rules = [
        (r"cells\.(\d+)\.(conv_[xh])\.conv\.weight", r"cell_list.\1.\2.0.weight"),
        (r"cells\.(\d+)\.(conv_[xh])\.norm\.(weight|bias)", r"cell_list.\1.\2.1.\3"),
        (r"decode\.weight", "conv_last.weight"),
    ]
    dead = r"cell_list\.\d+\.(conv_o\.[01]\.(weight|bias)|conv_last\.weight)"
    return assemble(PROJECT, tensors, "convlstm", keys, shape, rules, dead)


def predrnn(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """PredRNN (models.md 1.2)."""
    return convert_st_lstm(PROJECT, tensors, "predrnn", hints)


def predrnnv2(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """PredRNN-V2 (models.md 1.2); `adapter.weight` serves the training loss only."""
    return convert_st_lstm(PROJECT, tensors, "predrnn-v2", hints)


METHODS: dict[str, Callable[[Mapping[str, Tensor], Hints], Imported]] = {
    "convlstm": convlstm,
    "predrnn": predrnn,
    "predrnnv2": predrnnv2,
}
"""OpenSTL's own word for a method -> its importer."""

MARKS: dict[str, str] = {
    "predrnnv2": "adapter.weight",
    "predrnn": "cell_list.0.conv_m.0.weight",
    "convlstm": "cell_list.0.conv_x.0.weight",
}
"""Method -> a tensor that tells it from the methods below it in this table."""


def method_of(tensors: Mapping[str, Tensor], hints: Hints) -> str:
    """Name the method of a state dict.

    Raises:
        CheckpointError: a method that has no importer, or tensors of no known method.
    """
    stored = str(hints.hyper_parameters.get("method", "")).lower()
    if stored and stored not in METHODS:
        raise CheckpointError(
            f'the checkpoint says method "{stored}"',
            expected=f"one of {', '.join(METHODS)}",
            fix="a model of these, or your own with --model package.module:Class",
        )
    if stored:
        return stored
    for method, mark in MARKS.items():
        if mark in tensors:
            return method
    raise CheckpointError(
        f"no tensor of a known method; the first ones are {', '.join(list(tensors)[:3])}",
        expected=f"OpenSTL's {', '.join(METHODS)}",
        fix="another project's word after --from",
    )


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """Turn an OpenSTL state dict (prefix `model.` removed) into one of our models."""
    return METHODS[method_of(tensors, hints)](tensors, hints)
