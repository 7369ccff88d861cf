"""Random numbers as a pure function of (seed, stream, index).

No generator is carried along, so a resumed run needs no generator's state, and a sequence does not
depend on which others share its batch. Philox's raw output is fixed by numpy's compatibility
policy; the ways from raw bits to numbers are therefore written out here.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """What the numbers are for: streams never overlap."""

    WEIGHTS = 1
    TRAINING_DIGITS = 2
    VALIDATION_DIGITS = 3
    ORDER = 4
    SAMPLING = 5
    MODEL = 6
    LEADS = 7
    AUGMENT = 8


def _philox(seed: int, stream: Stream, index: int) -> np.random.Philox:
    key = np.array([seed, int(stream) << 56 | index], dtype=np.uint64)
    return np.random.Philox(key=key)


def uniforms(seed: int, stream: Stream, index: int, count: int) -> NDArray[np.float64]:
    """`count` numbers, uniform in [0, 1), with 53 random bits each.

    Args:
        seed: 0 to 2**63 - 1.
        stream: what they are for.
        index: 0 to 2**56 - 1, such as a sequence's number or an iteration.
        count: how many.
    """
    raw = np.asarray(_philox(seed, stream, index).random_raw(count), dtype=np.uint64)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def torch_seed(seed: int, stream: Stream, index: int) -> int:
    """A seed for `torch.manual_seed`, 0 to 2**63 - 1."""
    return int(_philox(seed, stream, index).random_raw(1)[0]) >> 1


@lru_cache(maxsize=2)
def permutation(seed: int, index: int, count: int) -> NDArray[np.int64]:
    """A random order of 0..count-1, one per epoch `index`; read-only."""
    draws = uniforms(seed, Stream.ORDER, index, count)
    order = np.argsort(draws, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order
