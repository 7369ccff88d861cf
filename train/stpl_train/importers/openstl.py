"""Checkpoints of OpenSTL (chengtan9907/OpenSTL), one function per method.

The method is the checkpoint's own `hyper_parameters["method"]` where it carries one, else it is
recognised by a tensor that only this method has. OpenSTL's published ConvLSTM and PredRNN++
weights of June 2023 were presumably trained with older equations: `Hints.equations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from stpl_core.errors import CheckpointError
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
    """ConvLSTM (bibliography.md 1.1): no forget bias; `conv_o` and `conv_last` are never used."""
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
    """PredRNN (bibliography.md 1.2)."""
    return convert_st_lstm(PROJECT, tensors, "predrnn", hints)


def predrnnv2(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """PredRNN-V2 (bibliography.md 1.2); `adapter.weight` serves the training loss only."""
    return convert_st_lstm(PROJECT, tensors, "predrnn-v2", hints)


def predrnnpp(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """PredRNN++ (bibliography.md 1.7): bias-free; `conv_o` of each cell is dead.

    OpenSTL's layer norm cannot run there, so the frame size does not follow from any tensor.
    """
    first = need(tensors, "cell_list.0.conv_x.0.weight", 4, PROJECT)  # (7D, C*p*p, k, k)
    shape, patch = frame_and_patch(first.shape[1], None, hints)
    keys: dict[str, Any] = {
        "hidden": [
            need(tensors, f"cell_list.{n}.conv_h.0.weight", 4, PROJECT).shape[1]
            for n in range(count_layers(tensors, r"cell_list\.(\d+)\."))
        ],
        "kernel": int(first.shape[-1]),
        "patch": patch,
        "equations": hints.equations or "current",
    }
    rules = [
        (r"cells\.(\d+)\.(conv_[xhcm])\.conv\.weight", r"cell_list.\1.\2.0.weight"),
        (r"cells\.(\d+)\.conv_c_new\.conv\.weight", r"cell_list.\1.conv_c2m.0.weight"),
        (r"cells\.(\d+)\.conv_m_new\.conv\.weight", r"cell_list.\1.conv_om.0.weight"),
        (r"cells\.(\d+)\.merge\.weight", r"cell_list.\1.conv_last.weight"),
        (r"highway\.conv_([xz])\.conv\.weight", r"gradient_highway.\1_concat.0.weight"),
        (r"decode\.weight", "conv_last.weight"),
    ]
    dead = r"cell_list\.\d+\.conv_o\.0\.weight"
    return assemble(PROJECT, tensors, "predrnn-pp", keys, shape, rules, dead)


def mim(tensors: Mapping[str, Tensor], hints: Hints) -> Imported:
    """MIM (bibliography.md 1.8): `conv_last` of the difference column is dead.

    `ct_weight` `(2D, h, w)` holds the peepholes of i and f, one after the other.
    """
    first = need(tensors, "stlstm_layer.0.conv_x.0.weight", 4, PROJECT)  # (7D, C*p*p, k, k)
    peepholes = need(tensors, "stlstm_layer.1.ct_weight", 3, PROJECT)  # (2D, h, w)
    norm = "stlstm_layer.0.conv_x.1.weight"
    size = (int(peepholes.shape[1]), int(peepholes.shape[2]))
    shape, patch = frame_and_patch(first.shape[1], size, hints)
    layers = count_layers(tensors, r"stlstm_layer\.(\d+)\.")
    keys: dict[str, Any] = {
        "hidden": peepholes.shape[0] // 2,
        "layers": layers,
        "kernel": int(first.shape[-1]),
        "patch": patch,
        "norm": norm_key(tensors, norm),
    }
    rules = [*_mim_rules(layers), (r"decode\.weight", "conv_last.weight")]
    dead = r"stlstm_layer_diff\.\d+\.conv_last\.weight"
    return assemble(PROJECT, _split_peepholes(tensors), "mim", keys, shape, rules, dead)


def _split_peepholes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each `<cell>.ct_weight` by `<cell>.ct_weight[i]` and `<cell>.ct_weight[f]`."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".ct_weight") and tensor.ndim == 3:
            middle = tensor.shape[0] // 2
            split |= {f"{name}[i]": tensor[:middle], f"{name}[f]": tensor[middle:]}
        else:
            split[name] = tensor
    return split


def _mim_rules(layers: int) -> list[tuple[str, str]]:
    """Rules for the cells; what is `blocks.<l-1>` here is `stlstm_layer.<l>` there."""
    names = {"first": "stlstm_layer.0"}  # our cell -> upstream's
    convs = {f"first.conv_{part}": f"stlstm_layer.0.conv_{part}" for part in "xhmo"}
    inner: dict[str, str] = {}  # our peephole cell -> upstream's
    for n in range(layers - 1):
        ours, theirs = f"blocks.{n}", f"stlstm_layer.{n + 1}"
        names[ours] = inner[f"{ours}.inner"] = theirs
        inner[f"differences.{n}"] = f"stlstm_layer_diff.{n}"
        convs |= {
            f"{ours}.conv_{a}": f"{theirs}.conv_{b}_cc" for a, b in zip("xhm", "xts", strict=True)
        }
    for ours, theirs in inner.items():
        convs |= {f"{ours}.conv_{part}": f"{theirs}.conv_{part}_concat" for part in "xh"}
    rules = [
        (rf"{re.escape(ours)}\.merge\.weight", f"{theirs}.conv_last.weight")
        for ours, theirs in names.items()
    ]
    for ours, theirs in convs.items():
        cell = re.escape(ours)
        rules.append((rf"{cell}\.conv\.weight", f"{theirs}.0.weight"))
        rules.append((rf"{cell}\.norm\.(weight|bias)", rf"{theirs}.1.\1"))
    for ours, theirs in inner.items():
        cell = re.escape(ours)
        rules.append((rf"{cell}\.peep_([if])", rf"{theirs}.ct_weight[\1]"))
        rules.append((rf"{cell}\.peep_o", f"{theirs}.oc_weight"))
    return rules


METHODS: dict[str, Callable[[Mapping[str, Tensor], Hints], Imported]] = {
    "convlstm": convlstm,
    "predrnn": predrnn,
    "predrnnv2": predrnnv2,
    "predrnnpp": predrnnpp,
    "mim": mim,
}
"""OpenSTL's own word for a method -> its importer."""

MARKS: dict[str, str] = {
    "predrnnpp": "gradient_highway.z_concat.0.weight",
    "mim": "stlstm_layer.0.conv_x.0.weight",
    "predrnnv2": "adapter.weight",
    "predrnn": "cell_list.0.conv_m.0.weight",
    "convlstm": "cell_list.0.conv_x.0.weight",
}
"""Method -> a tensor that none of the methods below it in this table has."""


def method_of(tensors: Mapping[str, Tensor], hints: Hints) -> str:
    """Name the method of a state dict.

    Raises:
        CheckpointError: a method that has no importer, or tensors of no known method.
    """
    stored = str(hints.hyper_parameters.get("method", "")).lower()
    if stored and stored not in METHODS:
        raise CheckpointError(
            f'the checkpoint names the method "{stored}"',
            expected=f"one of {', '.join(METHODS)}",
            fix="one of these models, or your own with --model package.module:Class",
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
