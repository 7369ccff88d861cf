"""The models, one file each; a recipe names one by its word or as `package.module:Class`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

import pydantic
from torch import nn

from stpl_core.codec import FrameCodec
from stpl_core.errors import RecipeError, first_problem
from stpl_core.safety.trust import is_trusted
from stpl_train.forecaster import Forecaster, FrameShape, PenalisedForecaster
from stpl_train.models.residual import PenalisedResidual, Residual

MODELS: dict[str, str] = {
    "advect": "stpl_train.models.advect:Advect",
    "cms-lstm": "stpl_train.models.cms_lstm:CMSLSTM",
    "convlstm": "stpl_train.models.convlstm:ConvLSTM",
    "e3d-lstm": "stpl_train.models.e3d_lstm:E3DLSTM",
    "mim": "stpl_train.models.mim:MIM",
    "modernn": "stpl_train.models.modernn:MoDeRNN",
    "predrnn": "stpl_train.models.predrnn:PredRNN",
    "predrnn-pp": "stpl_train.models.predrnn_pp:PredRNNPP",
    "predrnn-v2": "stpl_train.models.predrnn:PredRNNV2",
    "predrnn-zigzag": "stpl_train.models.predrnn_zigzag:PredRNNZigzag",
    "sa-convlstm": "stpl_train.models.sa_convlstm:SAConvLSTM",
}
"""One word -> where the class lives."""


_MOST_SIZE, _MOST_LAYERS = 65_536, 256
GROUP = "stpl_deploy.models"
"""The group of entry points by which other packages add a word."""


class ForecasterModule(nn.Module, Forecaster):
    """What the type checker sees: a module that keeps the Forecaster contract."""


def is_known(name: str) -> bool:
    """Whether a model is one of ours or of an installed package, not a class named by a file."""
    return name in MODELS or any(point.name == name for point in entry_points(group=GROUP))


def model_class(name: str) -> type[nn.Module]:
    """Find a model's class.

    Args:
        name: a word of `MODELS`, an installed package's entry point, or `package.module:Class`,
            which must have been trusted by hand (`stpl_core.safety.trust`): importing it runs
            its code.

    Raises:
        RecipeError: no such model, one that is not trusted, or no class that PyTorch can run.
    """
    if name in MODELS:
        return cast("type[nn.Module]", _imported(name, MODELS[name]))
    for point in entry_points(group=GROUP, name=name):
        return _module_class(name, _installed(point))
    return _module_class(name, _named_class(name))


def _installed(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # whatever another package's import raises
        raise RecipeError(
            f"model {point.name} ({point.value}) does not load: {error}",
            expected="a class that keeps the Forecaster contract",
            fix="repair or uninstall the package it comes from",
        ) from error


def _named_class(name: str) -> object:
    """The class behind `package.module:Class`, where it is trusted."""
    if ":" not in name:
        near = difflib.get_close_matches(name, MODELS, n=1)
        raise RecipeError(
            f'model.name = "{name}" is not a known model',
            expected=f"one of {', '.join(sorted(MODELS))}, or package.module:Class",
            fix=f"--set model.name={near[0] if near else 'modernn'}",
        )
    if not is_trusted(name):
        raise RecipeError(
            f'model.name = "{name}" is a class of somebody\'s own, which would be imported and run',
            expected="a model of stpl-deploy or of an installed package, or your word for it",
            fix=f"--trust-model {name}, if you know who wrote that class",
        )
    return _imported(name, name)


def _imported(name: str, target: str) -> object:
    module_name, _, class_name = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f'model.name = "{name}" cannot be imported: {error}',
            expected="package.module:Class that this Python can import",
            fix=f'python -c "import {module_name}" shows the whole error',
        ) from error


def _module_class(name: str, found: object) -> type[nn.Module]:
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    raise RecipeError(
        f'model.name = "{name}" is no torch.nn.Module',
        expected="a class that keeps the Forecaster contract",
        fix="see stpl_train/forecaster.py",
    )


def build_model(name: str, frame_shape: FrameShape, keys: Mapping[str, Any]) -> ForecasterModule:
    """Make an untrained model.

    Args:
        name: a word of `MODELS`, or `package.module:Class`. A foreign class is called as
            `Class(frame_shape, **keys)`, or `Class(frame_shape, Class.Config(**keys))` where it
            has a pydantic `Config`.
        frame_shape: (C, H, W).
        keys: the recipe's `[model]` section without `name`. Every model takes `output`: `frame`
            (default), or `residual`: it learns the change from its input frame.

    Raises:
        RecipeError: an unknown name or key, or a value that the model cannot take.
    """
    keys = dict(keys)
    output = keys.pop("output", "frame")
    if output not in ("frame", "residual"):
        raise RecipeError(
            f"model.output = {output!r}",
            expected="frame or residual",
            fix="--set model.output=residual",
        )
    model = _built(name, frame_shape, keys)
    if output == "frame":
        return model
    if getattr(model, "knows_its_guess", False):
        raise RecipeError(
            f"model.output = 'residual' with {name}, which changes its input frame by itself",
            expected="frame",
            fix="--set model.output=frame",
        )
    wrapped = PenalisedResidual if isinstance(model, PenalisedForecaster) else Residual
    return cast("ForecasterModule", wrapped(model))


def check_codec(model: ForecasterModule, name: str, codec: FrameCodec) -> None:
    """Refuse frames that the model would misread.

    Raises:
        RecipeError: the codec marks what was not observed, and the model takes it for a value.
    """
    if codec.marks_no_data and not getattr(model, "knows_no_data", False):
        raise RecipeError(
            f"data.codec.marks_no_data with {name}, which takes every pixel for a value",
            expected="a model that tells no data from none of it, such as advect",
            fix="--set data.codec.marks_no_data=false",
        )


def _check_sizes(value: object, where: str) -> None:
    """Refuse numbers and lists with which a model would never be built to its end.

    Raises:
        RecipeError: there is one.
    """
    most, usual = (_MOST_LAYERS, 4) if where.endswith(".layers") else (_MOST_SIZE, 64)
    if isinstance(value, int) and abs(value) > most:
        raise RecipeError(
            f"{where} = {value}", expected=f"at most {most:,}", fix=f"--set {where}={usual}"
        )
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_sizes(part, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        if len(value) > _MOST_LAYERS:
            raise RecipeError(
                f"{where} has {len(value):,} entries",
                expected=f"at most {_MOST_LAYERS}",
                fix="fewer",
            )
        for part in value:
            _check_sizes(part, where)


def _built(name: str, frame_shape: FrameShape, keys: Mapping[str, Any]) -> ForecasterModule:
    _check_sizes(keys, "model")
    cls = model_class(name)
    config = getattr(cls, "Config", None)
    try:
        model = cls(frame_shape, **keys) if config is None else cls(frame_shape, config(**keys))
    except pydantic.ValidationError as error:
        known = list(config.model_fields) if config is not None else []
        raise RecipeError(**first_problem(error, "model", known)) from error
    except (OverflowError, RuntimeError, MemoryError) as error:  # PyTorch's, of what has no room
        raise RecipeError(
            f"{name} cannot be built with these [model] keys: {str(error).splitlines()[0]}",
            expected="a model that this machine has room for",
            fix="smaller numbers in [model]",
        ) from error
    except TypeError as error:
        raise RecipeError(
            f"{name} does not take these [model] keys: {error}",
            expected="the keyword arguments of its __init__",
            fix=f"look at [model] in the recipe: {', '.join(keys) or 'no keys'}",
        ) from error
    if not isinstance(model, Forecaster):
        raise RecipeError(
            f"{name} does not keep the Forecaster contract",
            expected="frame_shape, initial_state(batch) and step(frame, state)",
            fix="see stpl_train/forecaster.py",
        )
    return cast("ForecasterModule", model)
