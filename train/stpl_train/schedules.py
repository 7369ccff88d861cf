"""What changes with the iteration: the learning rate, and which true frames the model reads.

Pure functions of the seed and the iteration (from 0), so that a resumed run continues exactly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stpl_train.randomness import Stream, uniforms
from stpl_train.recipe import TrainingSection

TrueFrameMask = NDArray[np.bool_]
"""`(B, T + K - 2)`: whether step t >= 1 reads the true frame t (entry t - 1) or the last guess."""


def learning_rate(training: TrainingSection, iteration: int) -> float:
    """Cosine from `lr` to `lr_min`, held for `lr_hold` iterations, times the warm-up."""
    epochs = math.ceil(training.iterations / training.lr_hold)
    done = (iteration // training.lr_hold) / epochs
    cosine = (1 + math.cos(math.pi * done)) / 2
    rise = min(1.0, (iteration + 1) / training.warmup) if training.warmup else 1.0
    return rise * (training.lr_min + (training.lr - training.lr_min) * cosine)


def true_frame_chances(training: TrainingSection, iteration: int) -> tuple[float, float]:
    """Chance that a context frame and that a future frame is the true one.

    Scheduled sampling (bibliography.md 3.1): 1, and 1 falling linearly to 0. Reverse scheduled
    sampling (3.2): 0.5 rising exponentially to 1, and 0.5 falling linearly to 0.
    """
    if training.sampling == "scheduled":
        until = training.sampling_until * training.iterations
        return 1.0, max(0.0, 1.0 - iteration / until) if until > 0 else 0.0
    start, end = training.reverse_start, training.reverse_end
    if iteration < start:
        return 0.5, 0.5
    if iteration >= end:
        return 1.0, 0.0
    since = iteration - start
    return 1.0 - 0.5 * math.exp(-since / training.reverse_alpha), 0.5 - 0.5 * since / (end - start)


def true_frame_mask(
    training: TrainingSection, iteration: int, context: int, horizon: int
) -> TrueFrameMask:
    """Draw, for each sequence and time, whether the model reads the true frame.

    Args:
        training: the recipe's section.
        iteration: from 0.
        context: T.
        horizon: K.

    Returns:
        `(batch, T + K - 2)` for the whole batch of all devices; the first T - 1 entries are of the
        context. The forward and the reversed pass share it.
    """
    of_context, of_future = true_frame_chances(training, iteration)
    chance = np.repeat([of_context, of_future], [context - 1, horizon - 1])  # (T + K - 2,)
    shape = (training.batch, context + horizon - 2)
    draws = uniforms(training.seed, Stream.SAMPLING, iteration, shape[0] * shape[1])
    return np.asarray(draws.reshape(shape) < chance)


def drawn_leads(
    training: TrainingSection, iteration: int, context: int, horizon: int
) -> tuple[int, tuple[int, ...]]:
    """Draw, for `loss = "mse-events"`, how many frames are read and which lead times compared.

    The first lead time is always among those after a short context: a stream begins with it.

    Args:
        training: the recipe's section.
        iteration: from 0.
        context: T.
        horizon: K.

    Returns:
        1 to T, and rising lead times of 1 to K.
    """
    assert training.leads is not None, "checked by the recipe"
    part, length, *order = uniforms(training.seed, Stream.LEADS, iteration, 2 + horizon).tolist()
    whole = part < training.leads.whole_context or context == 1
    read = context if whole else 1 + int(length * (context - 1))
    leads = (np.argsort(order)[: training.leads.count] + 1).tolist()
    if not whole and 1 not in leads:
        leads[0] = 1
    return read, tuple(sorted(leads))
