"""Weights to start from: those of an older run, of `pretrained:NAME`, or of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from stpl_core.bundle import MANIFEST, open_bundle
from stpl_core.errors import RunError
from stpl_core.files import sha256_of
from stpl_train.models import ForecasterModule
from stpl_train.pretrained import PREFIX, run_path
from stpl_train.recipe import StartSection, plain_document
from stpl_train.recipe_text import Document
from stpl_train.run import RECIPE, WEIGHTS, load_weights, open_run


@dataclass(frozen=True)
class StartingWeights:
    """Trained weights with the recipe that they were trained by."""

    word: str
    """As it was typed after `--from`."""
    file: Path
    document: Document
    """The recipe; its `[model]` is what the weights fit."""

    @classmethod
    def open(cls, word: str) -> StartingWeights:
        """Find the weights of a run, of `pretrained:NAME` or of a bundle.

        Raises:
            RunError: it is none of them, or has no weights yet.
            BundleError, ChecksumError: a broken bundle.
        """
        path = run_path(Path(word))
        if (path / MANIFEST).is_file():
            recipe = open_bundle(path).manifest.recipe
            return cls(word, path / WEIGHTS, recipe)
        if not (path / RECIPE).is_file():
            raise RunError(
                f"--from {word} is {'missing' if not path.exists() else 'no run'}",
                expected=f"a run, a bundle, or {PREFIX}NAME",
                fix="stpl-deploy models, which lists those that come trained",
            )
        run = open_run(path)
        if not run.file(WEIGHTS).is_file():
            raise RunError(
                f"--from {word} has no {WEIGHTS}",
                expected="a run that was trained up to its first validation",
                fix=f"stpl-deploy train --resume --out {word}",
            )
        return cls(word, run.file(WEIGHTS), plain_document(run.recipe))

    @property
    def section(self) -> StartSection:
        """What the new run's recipe records."""
        named = self.word if self.word.startswith(PREFIX) else str(Path(self.word).resolve())
        return StartSection(weights=named, sha256=sha256_of(self.file))

    def load_into(self, model: ForecasterModule) -> None:
        """Give a new model these weights, by name.

        Raises:
            RunError: a tensor is missing, is left over or has another shape; names it.
        """
        try:
            tensors = safetensors.torch.load_file(self.file)
        except (safetensors.SafetensorError, OSError) as error:
            raise RunError(
                f"{self.file} is broken: {error}", expected="safetensors", fix="copy it again"
            ) from error
        whole = {name: _float32(tensor) for name, tensor in tensors.items()}
        try:
            load_weights(model, whole, f"--from {self.word}")
        except RunError as error:
            fix = _fix(self.document.get("model", {}), self.word)
            raise RunError(error.found, expected=error.expected, fix=fix) from error


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _fix(model: dict[str, Any], word: str) -> str:
    keys = ", ".join(f"{key} = {value!r}" for key, value in model.items())
    return f"the model of the weights, by --from {word} without RECIPE ({keys})"
