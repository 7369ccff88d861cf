"""Training data: sequences by index, from a generator or from the user's own files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import RecipeError
from stpl_train.data.archive import open_archive_split
from stpl_train.data.arrays import open_array
from stpl_train.data.digits import Part, digit_images
from stpl_train.data.moving_digits import MovingDigits
from stpl_train.data.sequences import DataSplit, Sequences, masked_batch, training_indices
from stpl_train.randomness import Stream
from stpl_train.recipe import (
    ArchiveSection,
    ArraySection,
    DataSection,
    MovingMnistSection,
    SyntheticSection,
)

__all__ = [
    "DataSplit",
    "Sequences",
    "masked_batch",
    "open_data",
    "training_indices",
    "unseen_sequence",
]

_UNSEEN = 1
"""A seed of the validation digits; the validation part itself has 0."""


def open_data(section: DataSection, seed: int) -> DataSplit:
    """Open the data of a recipe; the validation part does not depend on the seed.

    Raises:
        FrameError: files that are missing or that do not fit.
        EnvironmentFault: digits that must be downloaded, and cannot be.
        RecipeError: the stand-in of an imported model, which is not for training.
    """
    if isinstance(section, ArraySection):
        return open_array(section)
    if isinstance(section, ArchiveSection):
        return open_archive_split(section, seed)
    if isinstance(section, SyntheticSection):
        raise RecipeError(
            'data.source = "synthetic"',
            expected="data to train on: moving-mnist, array or archive",
            fix="--set data.source=array --set data.path=FILE",
        )
    training = _moving_digits(section, seed, "training", None)
    validation = _moving_digits(section, 0, "validation", section.validation_sequences)
    every = np.arange(section.validation_sequences)
    return DataSplit(training, validation.batch(every), section.frame)


def unseen_sequence(section: DataSection, frames: int, index: int = 0) -> Array:
    """A long sequence `(frames, C, H, W)`, model units, that neither part of the data holds.

    Moving digits only: digits of the validation part on ways of their own, others for each index.
    """
    assert isinstance(section, MovingMnistSection), "moving digits"
    digits = _moving_digits(section, _UNSEEN, "validation", None)
    sequences = replace(digits, length=frames).batch(np.array([index]))
    return np.asarray(sequences[0], dtype=np.float32)


def _moving_digits(
    section: MovingMnistSection, seed: int, part: Part, count: int | None
) -> MovingDigits:
    return MovingDigits(
        images=digit_images(section.images, section.digit_size, part),
        frame=section.frame,
        length=section.context + section.horizon,
        digits=section.digits,
        step=section.step,
        seed=seed,
        stream=Stream.TRAINING_DIGITS if part == "training" else Stream.VALIDATION_DIGITS,
        count=count,
    )
