"""What the importers share: hints, the frame's size, and the check of every tensor by name.

An importer is a table of rules from our tensor names to the upstream ones. Our model is built
without memory for its weights (torch's meta device) from the inferred keys; then each of its
tensors must be present upstream in the right shape, and nothing may be left over but the tensors
that upstream itself never uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stpl_core.errors import CheckpointError
from stpl_train.forecaster import FrameShape
from stpl_train.models import build_model

Rules = Sequence[tuple[str, str]]
"""(our name as a regular expression, upstream name as its replacement template)."""


@dataclass(frozen=True)
class Hints:
    """What cannot be read from a checkpoint's tensors, or what the caller wants to override."""

    frame_shape: FrameShape | None = None
    """(C, H, W) of one frame."""
    patch: int | None = None
    """Side of the space-to-depth patches."""
    equations: str | None = None
    """`openstl-2023-06` for OpenSTL's ConvLSTM and PredRNN++ weights of June 2023."""
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    """The configuration that a Lightning checkpoint carries, as OpenSTL names it."""


@dataclass(frozen=True)
class Imported:
    """One of our models, ready to be written as a run."""

    model: str
    """The word of `stpl_train.models.MODELS`."""
    keys: dict[str, Any]
    """The recipe's `[model]` section without the name."""
    frame_shape: FrameShape
    state_dict: dict[str, Tensor]
    """Our names, upstream's values, dtypes as upstream stored them."""
    unused: tuple[str, ...]
    """Upstream tensors that do not change any output there and are not taken over."""


def need(tensors: Mapping[str, Tensor], name: str, dims: int, project: str) -> Tensor:
    """Return the tensor `name`, which must have `dims` axes.

    Raises:
        CheckpointError: it is absent, or has another number of axes.
    """
    if name not in tensors:
        first = ", ".join(list(tensors)[:3]) or "none"
        raise CheckpointError(
            f"no tensor {name}; the first ones found are {first}",
            expected=f"a checkpoint of {project}",
            fix="another project's word after --from",
        )
    found = tensors[name]
    if found.ndim != dims:
        raise CheckpointError(
            f"tensor {name} has shape {tuple(found.shape)}",
            expected=f"{dims} axes, as {project} writes it",
            fix="another project's word after --from",
        )
    return found


def count_layers(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Count the layers: one more than the largest index that `pattern` captures in a name."""
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match.group(1)) for match in found if match), default=-1)


def norm_key(tensors: Mapping[str, Tensor], name: str) -> str:
    """`ln_chw` where the LayerNorm weight `name` exists, else `none`."""
    return "ln_chw" if name in tensors else "none"


def map_size(tensors: Mapping[str, Tensor], name: str) -> tuple[int, int] | None:
    """Read (h, w) off a LayerNorm weight of shape `(C, h, w)`; None where there is none."""
    found = tensors.get(name)
    if found is None or found.ndim != 3:
        return None
    return int(found.shape[1]), int(found.shape[2])


def frame_and_patch(
    channels: int, size: tuple[int, int] | None, hints: Hints, fixed: int | None = None
) -> tuple[FrameShape, int]:
    """Find the frame's shape and the patch from a map of `channels` = C * patch * patch.

    Hints win; then a Lightning checkpoint's `in_shape` and `patch_size`; then the tensors: the
    largest square that divides `channels` is taken as patch * patch (16 -> one channel, patch 4;
    8 -> two channels, patch 2), and a LayerNorm's (h, w) gives the height and width.

    Args:
        channels: channels of the folded frame.
        size: (h, w) of the map, where it follows from a tensor.
        hints: what the caller knows.
        fixed: the only patch that the project's code has.

    Raises:
        CheckpointError: the hints contradict `channels`, or the frame size is unknown.
    """
    stored = hints.hyper_parameters.get("in_shape")  # [T, C, H, W]
    shape = hints.frame_shape or (tuple(int(side) for side in stored[1:]) if stored else None)
    patch = fixed or hints.patch or hints.hyper_parameters.get("patch_size")
    if patch is None:
        patch = _patch_of(channels, shape[0] if shape else None)
    if channels % (patch * patch) or (shape and shape[0] * patch * patch != channels):
        raise CheckpointError(
            f"the weights read {channels} channels per map cell",
            expected=_fitting(channels, fixed),
            fix="--frame C,H,W and --set model.patch=P as the model was trained",
        )
    if shape:
        return (shape[0], shape[1], shape[2]), patch
    colours = channels // (patch * patch)
    if size is None:
        raise CheckpointError(
            "the weights fit frames of any size",
            expected="the height and width of the frames the model was trained on",
            fix=f"--frame {colours},64,64 (with your height and width), or --data FILE",
        )
    return (colours, size[0] * patch, size[1] * patch), patch


def _fitting(channels: int, fixed: int | None) -> str:
    """The frames that fold into `channels`, in words."""
    patches = [fixed] if fixed else range(1, math.isqrt(channels) + 1)
    pairs = [(channels // p**2, p) for p in patches if channels % p**2 == 0]
    return "frames of " + ", or of ".join(f"{c} channels in patches of {p}" for c, p in pairs)


def _patch_of(channels: int, colours: int | None) -> int:
    """Largest p with p * p dividing `channels`, leaving `colours` channels where known."""
    if colours is not None:
        return max(1, math.isqrt(channels // colours))
    return max(p for p in range(1, math.isqrt(channels) + 1) if channels % (p * p) == 0)


def assemble(
    project: str,
    tensors: Mapping[str, Tensor],
    model: str,
    keys: dict[str, Any],
    frame_shape: FrameShape,
    rules: Rules,
    dead: str = r"(?!)",
) -> Imported:
    """Rename upstream's tensors into our model's, refusing what does not fit.

    Args:
        project: upstream's name, for messages.
        tensors: the upstream state dict.
        model: our model's word.
        keys: its inferred recipe keys.
        frame_shape: (C, H, W).
        rules: our names -> upstream names.
        dead: matches the upstream names that upstream itself never uses.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or belongs to no known place.
    """
    with torch.device("meta"):
        ours = build_model(model, frame_shape, keys).state_dict()
    source = {name: _rename(name, rules) for name in ours}
    for name, upstream in source.items():
        found = need(tensors, upstream, ours[name].ndim, project)
        if found.shape != ours[name].shape:
            raise CheckpointError(
                f"tensor {upstream} has shape {tuple(found.shape)}",
                expected=f"{tuple(ours[name].shape)} for {model} on frames of "
                + "x".join(str(side) for side in frame_shape),
                fix="--frame C,H,W and --set model.patch=P as the model was trained",
            )
    unused = tuple(name for name in tensors if name not in set(source.values()))
    for name in unused:
        if not re.fullmatch(dead, name):
            raise CheckpointError(
                f"tensor {name} has no place in {model}",
                expected=f"a checkpoint of {project}",
                fix="another project's word after --from",
            )
    state = {name: tensors[upstream] for name, upstream in source.items()}
    return Imported(model, keys, frame_shape, state, unused)


def _rename(name: str, rules: Rules) -> str:
    for pattern, template in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(template)
    raise KeyError(name)  # a rule is missing for a tensor of ours: a bug, not a user's mistake
