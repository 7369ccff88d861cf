"""The models, one file each; a recipe names one by its word or as `package.module:Class`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, cast

import pydantic
from torch import nn

from stpl_core.errors import RecipeError, first_problem
from stpl_train.forecaster import Forecaster, FrameShape, PenalisedForecaster
from stpl_train.models.residual import PenalisedResidual, Residual

MODELS: dict[str, str] = {
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


class ForecasterModule(nn.Module, Forecaster):
    """What the type checker sees: a module that keeps the Forecaster contract."""


def model_class(name: str) -> type[nn.Module]:
    """Find a model's class by its word or by `package.module:Class`."""
    target = MODELS.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, MODELS, n=1)
        raise RecipeError(
            f'model.name = "{name}" is not a known model',
            expected=f"one of {', '.join(sorted(MODELS))}, or package.module:Class",
            fix=f"--set model.name={near[0] if near else 'modernn'}",
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f'model.name = "{name}" cannot be imported: {error}',
            expected="package.module:Class that this Python can import",
            fix=f'python -c "import {module_name}" shows the whole error',
        ) from error
    return cast("type[nn.Module]", found)


def build_model(name: str, frame_shape: FrameShape, keys: Mapping[str, Any]) -> ForecasterModule:
    """Make an untrained model.

    Args:
        name: a word of `MODELS`, or `package.module:Class`. A foreign class is called as
            `Class(frame_shape, **keys)`, or `Class(frame_shape, Class.Config(**keys))` where it
            has a pydantic `Config`.
        frame_shape: (C, H, W).
        keys: the recipe's `[model]` section without `name`. Every model takes `output`: `frame`
            (default), or `residual`: it learns the change from the frame that it is shown.

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
    wrapped = PenalisedResidual if isinstance(model, PenalisedForecaster) else Residual
    return cast("ForecasterModule", wrapped(model))


def _built(name: str, frame_shape: FrameShape, keys: Mapping[str, Any]) -> ForecasterModule:
    cls = model_class(name)
    config = getattr(cls, "Config", None)
    try:
        model = cls(frame_shape, **keys) if config is None else cls(frame_shape, config(**keys))
    except pydantic.ValidationError as error:
        known = list(config.model_fields) if config is not None else []
        raise RecipeError(**first_problem(error, "model", known)) from error
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
