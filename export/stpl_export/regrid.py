"""`export --grid HxW`: a run's weights on another grid, where no weight is tied to the old one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import RecipeError, RunError
from stpl_train.forecaster import FrameShape
from stpl_train.models import ForecasterModule, build_model
from stpl_train.run import Run

_MOST_PADDING = 64
"""Rows or columns by which frames may be padded to what the model can take."""


def regrid(run: Run, size: tuple[int, int]) -> tuple[Run, ForecasterModule]:
    """A run as if it had been trained on frames of another size.

    Args:
        run: an opened run.
        size: (H, W) of the frames.

    Returns:
        The run with a recipe for those frames, nothing cropped; and its model, whose own frames are
        padded below and on the right to what it can take.

    Raises:
        RunError: weights that belong to the old grid, as those of `norm = "layer"` do.
        RecipeError: the model takes no size near this one.
    """
    trained = run.model()
    frame, padded = (run.frame_shape[0], *size), _padded(run, size)
    model = build_model(run.recipe.model.name, padded, run.recipe.model.keys)
    weights, expected = trained.state_dict(), model.state_dict()
    tied = [name for name in expected if expected[name].shape != weights[name].shape]
    if tied:
        raise RunError(
            f"{run.path}: {len(tied)} weights, such as {tied[0]}, are tied to the grid of "
            f"{run.frame_shape[1]}x{run.frame_shape[2]} it was trained on",
            expected='a model with norm = "gn1" or "none"',
            fix=f"export without --grid; predict and stream with --grid {_text(size)} cover the "
            "field in tiles",
        )
    model.load_state_dict(weights)
    data = run.recipe.data
    changes = {"frame": frame, "crop": None, "tiles": False}
    known = {key: value for key, value in changes.items() if key in type(data).model_fields}
    recipe = run.recipe.model_copy(update={"data": data.model_copy(update=known)})
    return replace(run, recipe=recipe), model.eval()


def cover(
    frames: Array, observed: NDArray[np.bool_] | None, frame: FrameShape
) -> tuple[Array, NDArray[np.bool_] | None]:
    """Bring sequences for the check to a model's own frames: cut, or mirrored at their edges.

    Args:
        frames: `(N, S, C, H, W)`, model units.
        observed: `(N, S, H, W)`; None: everything.
        frame: (C, H, W) of the model.
    """
    if frames.shape[2:] == frame:
        return frames, observed
    rows, columns = _mirrored(frames.shape[3], frame[1]), _mirrored(frames.shape[4], frame[2])
    frames = np.ascontiguousarray(frames[:, :, :, rows][..., columns])
    if observed is not None:
        observed = np.ascontiguousarray(observed[:, :, rows][..., columns])
    return frames, observed


def _mirrored(have: int, want: int) -> NDArray[np.int64]:
    """Indices 0 .. have - 1, then back, and so on: `want` of them."""
    there_and_back = np.concatenate([np.arange(have), np.arange(have)[::-1]])
    return np.resize(there_and_back, want)


def _padded(run: Run, size: tuple[int, int]) -> FrameShape:
    """The least (C, H, W) that the model can take and that holds `size`; H and W one by one."""
    channels, height, width = run.frame_shape
    rows = _least(run, [(channels, n, width) for n in _candidates(size[0])], size)
    columns = _least(run, [(channels, height, n) for n in _candidates(size[1])], size)
    return channels, rows[1], columns[2]


def _candidates(length: int) -> range:
    return range(length, length + _MOST_PADDING)


def _least(run: Run, frames: list[FrameShape], size: tuple[int, int]) -> FrameShape:
    refused: RecipeError | None = None
    for frame in frames:
        try:
            with torch.device("meta"):  # builds without memory or time
                build_model(run.recipe.model.name, frame, run.recipe.model.keys)
        except RecipeError as error:
            refused = refused or error
            continue
        return frame
    raise RecipeError(
        f"--grid {_text(size)}: {refused.found if refused else 'no size'}",
        expected=refused.expected if refused else "",
        fix=f"export without --grid; predict and stream with --grid {_text(size)} cover the field "
        "in tiles",
    )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
