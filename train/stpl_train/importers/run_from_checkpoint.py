"""`stpl-deploy import`: another project's checkpoint becomes a run directory, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import CheckpointError, FrameError, RecipeError, RunError, UsageError
from stpl_core.files import atomic_directory, refuse_existing, sha256_of
from stpl_core.frames import physical_values, read_array, sequence_layout
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.forecaster import FrameShape
from stpl_train.importers import IMPORTERS, Hints, Imported, convert
from stpl_train.importers.containers import Container, read_container
from stpl_train.models import build_model
from stpl_train.recipe import Recipe, parse_recipe, settings_document
from stpl_train.run import WEIGHTS, load_weights, save_recipe, save_validation

OLDER_EQUATIONS = "openstl-2023-06"
STAND_IN_SEQUENCES = 16
MOST_SEQUENCES = 256

MARKS: dict[str, tuple[str, ...]] = {
    "lstm.0.conv33_H.0.weight": ("modernn",),
    "lstm.0.SEBlock.w_z.weight": ("cms-lstm",),
    "lstm.0.convQ.0.weight": ("cms-lstm",),
    "layers.0.sa.conv_h.weight": ("sa-convlstm",),
    "stlstm_layer.0.conv_x.0.weight": ("openstl",),
    "gradient_highway.z_concat.0.weight": ("openstl",),
    "cell_list.0.conv_m.0.weight": ("openstl", "predrnn"),
    "cell_list.0.conv_x.0.weight": ("openstl",),
}
"""A tensor that identifies the project -> the words after `--from` that it may belong to."""


@dataclass(frozen=True)
class ImportRequest:
    """The arguments of `stpl-deploy import`."""

    checkpoint: Path
    project: str
    """The word after `--from`."""
    method: str | None = None
    """OpenSTL's word for the model, where the checkpoint does not name it."""
    frame: FrameShape | None = None
    """(C, H, W), where it does not follow from the weights."""
    context: int | None = None
    """T; None takes the checkpoint's own, else 10."""
    horizon: int | None = None
    """K; None takes the checkpoint's own, else 10."""
    data: Path | None = None
    """Sequences for the export's check; None lets moving digits stand in."""
    settings: tuple[str, ...] = ()
    """`section.key=value`, over what was inferred."""


@dataclass(frozen=True)
class ImportReport:
    """The result of an import."""

    run: str
    checkpoint: str
    container: str
    """In words, what kind of file it was."""
    tensors: int
    model: str
    keys: dict[str, Any]
    frame: FrameShape
    context: int
    horizon: int
    parameters: int
    unused: tuple[str, ...]
    """Upstream tensors that change no output there and were left out."""
    data: str
    """A file's name, or `synthetic`."""
    notes: tuple[str, ...]


def run_from_checkpoint(request: ImportRequest, out: Path) -> ImportReport:
    """Make a run directory of a checkpoint.

    Args:
        request: what to import, and what the checkpoint itself does not hold.
        out: the run directory; must not be there yet.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another project.
        RecipeError, FrameError, UsageError: the settings, the data or `out` do not fit.
    """
    refuse_existing(out)
    chosen = settings_document(request.settings)
    container = read_container(request.checkpoint)
    _check_project(request, container.tensors)
    sequences = _read_data(request, chosen)
    imported = _convert(request, container, chosen, sequences)
    recipe = _recipe(request, container, chosen, imported)
    frames = _validation(request, recipe, imported.frame_shape, sequences)
    weights = {
        name: tensor.float().contiguous().clone() if tensor.is_floating_point() else tensor
        for name, tensor in imported.state_dict.items()
    }
    model = build_model(recipe.model.name, imported.frame_shape, recipe.model.keys)
    try:
        load_weights(model, weights, str(request.checkpoint))
    except RunError as error:
        raise CheckpointError(
            error.found,
            expected=error.expected,
            fix="leave out that --set: it follows from the weights",
        ) from error
    with atomic_directory(out) as partial:
        save_recipe(partial, recipe)
        safetensors.torch.save_file(weights, partial / WEIGHTS)
        save_validation(partial, frames)
    return ImportReport(
        run=str(out),
        checkpoint=str(request.checkpoint),
        container=container.kind,
        tensors=len(container.tensors),
        model=recipe.model.name,
        keys=recipe.model.keys,
        frame=imported.frame_shape,
        context=recipe.data.context,
        horizon=recipe.data.horizon,
        parameters=sum(tensor.numel() for tensor in model.parameters()),
        unused=imported.unused,
        data=request.data.name if request.data else "synthetic",
        notes=tuple(_notes(request, container, recipe)),
    )


def _check_project(request: ImportRequest, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint that another project wrote, where a tensor identifies it."""
    for mark, projects in MARKS.items():
        if mark in tensors:
            if request.project in IMPORTERS and request.project not in projects:
                raise CheckpointError(
                    f"{request.checkpoint} holds the tensor {mark}",
                    expected=f"a checkpoint of {request.project}",
                    fix=f"--from {projects[0]}",
                )
            return


def _read_data(request: ImportRequest, chosen: Mapping[str, Any]) -> Array | None:
    """The user's sequences `(N, T', C, H, W)` in physical units, where there are any."""
    if request.data is None:
        return None
    codec, where = _codec(chosen), str(request.data)
    layout = chosen.get("data", {}).get("layout")
    stored = sequence_layout(
        read_array(request.data), request.frame, where, layout, "--set data.layout="
    )
    return physical_values(stored, codec, where)


def _codec(chosen: Mapping[str, Any]) -> FrameCodec:
    section = {"source": "synthetic", "frame": (1, 1, 1)}
    stated = {"codec": chosen.get("data", {}).get("codec", {})}
    probe = parse_recipe(
        {"model": {"name": ""}, "data": section | stated, "training": {"iterations": 1}}
    )
    return probe.data.codec


def _convert(
    request: ImportRequest,
    container: Container,
    chosen: Mapping[str, Any],
    sequences: Array | None,
) -> Imported:
    keys = dict(chosen.get("model", {}))
    patch = keys.get("patch")
    if patch is not None and (not isinstance(patch, int) or patch < 1):
        raise RecipeError(
            f"model.patch = {patch!r}", expected="a whole number", fix="--set model.patch=4"
        )
    stored = dict(container.hyper_parameters)
    if request.method is not None:
        if request.project != "openstl":
            raise UsageError(
                f"--method {request.method} with --from {request.project}",
                expected="--method with --from openstl only",
                fix="leave it out",
            )
        stored["method"] = request.method
    frame = request.frame
    if frame is None and sequences is not None:
        channels, height, width = sequences.shape[2:]
        frame = (channels, height, width)
    hints = Hints(
        frame_shape=frame, patch=patch, equations=keys.get("equations"), hyper_parameters=stored
    )
    imported = convert(request.project, container.tensors, hints)
    return replace(imported, keys=imported.keys | {k: v for k, v in keys.items() if k != "name"})


def _recipe(
    request: ImportRequest,
    container: Container,
    chosen: Mapping[str, Any],
    imported: Imported,
) -> Recipe:
    stored = container.hyper_parameters
    data: dict[str, Any] = {
        "source": "synthetic" if request.data is None else "array",
        "frame": imported.frame_shape,
        "context": request.context or stored.get("pre_seq_length") or 10,
        "horizon": request.horizon or stored.get("aft_seq_length") or 10,
    }
    if request.data is not None:
        data["path"] = str(request.data)
    document = {
        **{section: value for section, value in chosen.items() if section != "model"},
        "model": {"name": imported.model, **imported.keys},
        "data": data | chosen.get("data", {}),
        "training": {"iterations": 1} | chosen.get("training", {}),
        "imported": {
            "project": request.project,
            "file": request.checkpoint.name,
            "sha256": sha256_of(request.checkpoint),
            "unused": imported.unused,
        },
    }
    return parse_recipe(document)


def _validation(
    request: ImportRequest, recipe: Recipe, frame: FrameShape, sequences: Array | None
) -> Array:
    """Sequences `(N, T + K, C, H, W)` in model units."""
    section = recipe.data
    length = section.context + section.horizon
    if sequences is None:
        return stand_in_sequences(frame, length, STAND_IN_SEQUENCES)
    n, stored = sequences.shape[:2]
    if stored < length:
        raise FrameError(
            f"{request.data} has sequences of {stored} frames",
            expected=f"at least {length} = {section.context} + {section.horizon}",
            fix="longer sequences, or a smaller --context and --horizon",
        )
    windows = stored // length
    frames = sequences[:, : windows * length].reshape(n * windows, length, *frame)
    keep = min(len(frames), MOST_SEQUENCES)
    chosen = np.linspace(0, len(frames) - 1, keep).round().astype(np.int64)
    return section.codec.model_from_physical(frames[chosen])


def _notes(request: ImportRequest, container: Container, recipe: Recipe) -> Sequence[str]:
    notes = []
    equations = recipe.model.keys.get("equations")
    if equations == OLDER_EQUATIONS:
        notes.append(
            f"equations: {OLDER_EQUATIONS}, as OpenSTL computed until December 2023 (issue 68)"
        )
    elif equations is not None:
        notes.append(
            f"equations: {equations}; weights that OpenSTL published in June 2023 presumably need "
            f"--set model.equations={OLDER_EQUATIONS}"
        )
    notes.extend(
        f"averaged weights (EMA) lie beside them under {key}, and are not what was imported; "
        f"to import those: torch.save(torch.load(FILE)[{key!r}], FILE2)"
        for key in container.averaged
    )
    stored = container.hyper_parameters
    for option, given, key in (
        ("--context", request.context, "pre_seq_length"),
        ("--horizon", request.horizon, "aft_seq_length"),
    ):
        if given is None and not stored.get(key):
            notes.append(f"the checkpoint does not state {option}; 10 is assumed")
    if request.data is None:
        notes.append(
            "data: synthetic moving digits are used for the check; --data FILE takes your own"
        )
    return notes
