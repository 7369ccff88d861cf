"""The run directory: what training leaves behind, and what `export` starts from.

RUN/
  recipe.toml            the resolved recipe
  weights.safetensors    the weights of the best validation so far (names of the model's state dict)
  training.safetensors   everything that `--resume` needs, in one file
  validation.npz         a few validation sequences, at most 64 MB, for the closed-loop check
  grids.json             where the pixels of its data lie, where the data states it
  metrics.csv            one line per validation
  samples/  tensorboard/
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import safetensors
import safetensors.torch
import tomli_w
import tomllib
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from stpl_core.codec import Array
from stpl_core.errors import RecipeError, RunError, StplError
from stpl_core.files import atomic_file
from stpl_core.grid import Grid
from stpl_core.readers.npz import open_npz
from stpl_train.forecaster import FrameShape
from stpl_train.models import ForecasterModule, build_model, check_codec
from stpl_train.pretrained import meant_by, run_path
from stpl_train.recipe import Recipe, parse_recipe
from stpl_train.recipe_text import text_of

RECIPE = "recipe.toml"
WEIGHTS = "weights.safetensors"
TRAINING = "training.safetensors"
VALIDATION = "validation.npz"
GRIDS = "grids.json"
METRICS = "metrics.csv"

VALIDATION_BYTES = 64 * 2**20
"""Most that the kept validation sequences may take, as float32."""


@dataclass(frozen=True)
class Run:
    """An opened run directory."""

    path: Path
    recipe: Recipe

    def file(self, name: str) -> Path:
        """Path of one of the run's files."""
        return self.path / name

    @property
    def frame_shape(self) -> FrameShape:
        """(C, H, W).

        Raises:
            RunError: the recipe was never resolved.
        """
        if self.recipe.data.frame is None:
            raise RunError(
                f"{self.path}/{RECIPE} has no data.frame",
                expected="data.frame = [C, H, W]",
                fix="train again",
            )
        return self.recipe.data.frame

    def model(self) -> ForecasterModule:
        """The model with the best weights, in float32 on the CPU, in evaluation mode.

        Raises:
            RunError: no weights yet, a broken file, or tensors that do not fit the recipe.
        """
        path = self.path / WEIGHTS
        if not path.is_file():
            raise RunError(
                f"{self.path} has no {WEIGHTS}",
                expected="a run that was trained up to its first validation",
                fix=f"stpl-deploy train --resume --out {self.path}",
            )
        try:
            tensors = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise RunError(
                f"{path} is broken: {error}", expected="safetensors", fix="train again"
            ) from error
        with _corrected_in(self.path / RECIPE):
            model = build_model(self.recipe.model.name, self.frame_shape, self.recipe.model.keys)
            check_codec(model, self.recipe.model.name, self.recipe.data.codec)
        load_weights(model, tensors, str(path))
        return model.eval()

    def validation(self) -> Array:
        """Validation sequences `(N, T + K, C, H, W)`, float32, model units.

        Raises:
            RunError: the file is missing or broken.
        """
        path = self.path / VALIDATION
        try:
            with open_npz(path) as archive:
                frames = np.asarray(archive["frames"], dtype=np.float32)
            _check_sequences(frames, self.recipe)
            return frames
        except StplError:
            raise
        except Exception as error:  # what a parser meets in damaged bytes has no common base
            raise RunError(
                f"{path} cannot be read: {error}",
                expected="the run's own sequences",
                fix="--data FILE",
            ) from error

    def grids(self) -> tuple[Grid, ...]:
        """Where the pixels of its data lie, as the model sees them; empty where unknown.

        Raises:
            RunError: the file is broken.
        """
        path = self.path / GRIDS
        if not path.is_file():
            return ()
        try:
            return _GRIDS.validate_json(path.read_bytes())
        except pydantic.ValidationError as error:
            raise RunError(f"{path} is broken", expected="grids", fix="train again") from error


_GRIDS: TypeAdapter[tuple[Grid, ...]] = TypeAdapter(tuple[Grid, ...])


def save_grids(path: Path, grids: tuple[Grid, ...]) -> None:
    """Write down where the pixels lie; write nothing where it is unknown."""
    if grids:
        with atomic_file(path / GRIDS) as file:
            file.write(_GRIDS.dump_json(grids, indent=1))


def _check_sequences(frames: Array, recipe: Recipe) -> None:
    """Raise ValueError where sequences are not such as the recipe's."""
    data = recipe.data
    if frames.ndim != 5 or len(frames) == 0 or frames.shape[1] != data.context + data.horizon:
        raise ValueError(f"it has the shape {frames.shape}")
    if data.frame is not None and frames.shape[2] != data.frame[0]:
        raise ValueError(f"it has {frames.shape[2]} channels, not {data.frame[0]}")


def load_weights(model: ForecasterModule, tensors: dict[str, Tensor], where: str) -> None:
    """Load a state dict strictly.

    Raises:
        RunError: names or shapes differ, or a value is not finite; the first one is named.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else None
        expected = tuple(own[name].shape) if name in own else None
        if found != expected:
            raise RunError(
                f"{where}: no tensor {name}"
                if found is None
                else f"{where}: tensor {name} has shape {found}",
                expected="no such tensor" if expected is None else f"shape {expected}",
                fix="the recipe that these weights were trained with; or, where an earlier version "
                "trained them, train again",
            )
        if not bool(tensors[name].isfinite().all()):
            raise RunError(
                f"{where}: tensor {name} has NaN or infinity",
                expected="finite weights",
                fix="train again",
            )
    model.load_state_dict(tensors)


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Write the resolved recipe; None stands for an absent key."""
    with atomic_file(path / RECIPE) as file:
        tomli_w.dump(recipe.model_dump(mode="json", exclude_none=True), file)


def save_validation(path: Path, frames: Array, observed: NDArray[np.bool_] | None = None) -> None:
    """Keep the first sequences `(N, T + K, C, H, W)` that fit into 64 MB.

    Args:
        path: the run directory.
        frames: the sequences, model units.
        observed: `(N, T + K, H, W)`, False where a pixel was not observed; None: all were.
    """
    keep = max(1, VALIDATION_BYTES // frames[0].nbytes)
    kept: dict[str, NDArray[Any]] = {"frames": frames[:keep]}
    if observed is not None and not observed[:keep].all():
        kept["observed"] = observed[:keep]
    with atomic_file(path / VALIDATION) as file:
        np.savez_compressed(file, **kept)  # type: ignore[arg-type]  # names are ours


def open_run(path: Path) -> Run:
    """Open a run directory, or `pretrained:NAME`.

    Raises:
        RunError: it is not one.
        RecipeError: its recipe does not hold.
    """
    path = run_path(path)
    file = path / RECIPE
    if not file.is_file():
        what = (
            "a bundle"
            if (path / "manifest.json").is_file()
            else "not a run"
            if path.is_dir()
            else "missing"
        )
        raise RunError(
            f"{path} is {what}",
            expected=f"a directory with {RECIPE}",
            fix=_instead_of(path, what),
        )
    try:
        document: dict[str, Any] = tomllib.loads(text_of(file))
    except (ValueError, RecursionError, OSError) as error:
        raise RunError(f"{file} is broken: {error}", expected="TOML", fix="train again") from error
    with _corrected_in(file):
        return Run(path, parse_recipe(document))


def _instead_of(path: Path, what: str) -> str:
    """What to give in place of a path that is no run."""
    if what == "a bundle":
        return "the run that it was exported from"
    meant = meant_by(path) if what == "missing" else None
    return meant or f"stpl-deploy train modernn-mini --out {path}"


@contextmanager
def _corrected_in(file: Path) -> Iterator[None]:
    """No verb that opens a run takes `--set`: what is wrong with its recipe is corrected there."""
    try:
        yield
    except RecipeError as error:
        if "--set" not in error.fix:
            raise
        raise RecipeError(
            f"{file}: {error.found}", expected=error.expected, fix=f"correct it in {file}"
        ) from error
