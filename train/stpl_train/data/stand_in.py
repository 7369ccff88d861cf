"""Moving digits in place of a user's own frames: for an imported model, or to try a recipe."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.frames import FrameShape
from stpl_core.windows.placing import Layout
from stpl_train.data.digits import digit_images
from stpl_train.data.moving_digits import MovingDigits
from stpl_train.randomness import Stream
from stpl_train.recipe import ArchiveSection

_DIGIT_SHARE = 28 / 64  # of the frame's shorter side, as in Moving MNIST


def stand_in_sequences(frame: FrameShape, length: int, count: int) -> Array:
    """Make sequences of two digits per channel, the channels independent of one another.

    Args:
        frame: (C, H, W).
        length: frames per sequence, T + K.
        count: N.

    Returns:
        `(N, T + K, C, H, W)` float32 in [0, 1]; the same for the same arguments.
    """
    channels, height, width = frame
    size = max(1, round(_DIGIT_SHARE * min(height, width)))
    digits = MovingDigits(
        images=digit_images("scikit-learn", size, "validation"),
        frame=(1, height, width),
        length=length,
        digits=2,
        step=0.1,
        seed=0,
        stream=Stream.VALIDATION_DIGITS,
    )
    planes = digits.batch(np.arange(count * channels))  # (N * C, T + K, 1, H, W)
    planes = planes.reshape(count, channels, length, height, width)
    return np.ascontiguousarray(np.moveaxis(planes, 1, 2))  # (N, T + K, C, H, W)


_CADENCE_S = 60.0  # where the recipe states none
_ROOM = 1.2  # times the frames that the recipe's split needs at least


def stand_in_archive(section: ArchiveSection, shape: FrameShape, path: Path) -> ArchiveSection:
    """Write an archive to try a recipe without its data: one long sequence in the recipe's units.

    Args:
        section: the recipe's `[data]`.
        shape: (C, H, W) of the frames to write.
        path: the .npz to make.

    Returns:
        The section that reads it: split in time, since a published split is the data's own.
    """
    span = Layout(section.context + section.horizon, section.every).span
    tested = Layout(section.context + (section.test_horizon or section.horizon), section.every)
    parts = [(section.validation_fraction, span), (section.test_fraction, tested.span)]
    parts.append((1 - section.validation_fraction - section.test_fraction, span))
    count = math.ceil(_ROOM * max(length / part for part, length in parts if part > 0))
    frames = section.codec.physical_from_model(stand_in_sequences(shape, count, 1)[0])
    step_s = (section.cadence_s or _CADENCE_S) / section.every
    with atomic_file(path) as file:
        np.savez_compressed(
            file, frames=frames, time=np.arange(count) * step_s, units=section.codec.units
        )
    return section.model_copy(
        update={"path": path, "reader": None, "variable": None, "split": "time"}
    )
