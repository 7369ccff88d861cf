"""Moving digits in place of a user's own frames, where an imported model came without any."""

from __future__ import annotations

import numpy as np

from stpl_deploy.codec import Array
from stpl_train.data.digits import digit_images
from stpl_train.data.moving_digits import MovingDigits
from stpl_train.forecaster import FrameShape
from stpl_train.randomness import Stream

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
