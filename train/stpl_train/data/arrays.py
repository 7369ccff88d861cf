"""The user's own frames: one .npy or .npz, cut into windows; the last part is held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.frames import physical_values, read_array, sequence_layout
from stpl_core.reading.understood import Understood
from stpl_core.windows.placing import Indices
from stpl_train.data.sequences import DataSplit
from stpl_train.recipe import ArraySection

_CHECKED_VALUES = 2**24
"""Most values that the check at opening holds as float32 at a time."""


@dataclass(frozen=True)
class Windows:
    """Contiguous windows of stored sequences; a .npy stays on disk and is read as needed."""

    stored: NDArray[Any]
    """`(N, T', C, H, W)` as in the file."""
    starts: Indices
    """`(count, 2)`: sequence and first frame of each window."""
    length: int
    codec: FrameCodec
    where: str

    @property
    def count(self) -> int | None:
        """How many windows there are."""
        return len(self.starts)

    def batch(self, indices: Indices) -> Array:
        """Windows `(B, T + K, C, H, W)` float32 in model units."""
        windows = [self.stored[n, s : s + self.length] for n, s in self.starts[indices]]
        physical = physical_values(np.stack(windows), self.codec, self.where)
        return self.codec.model_from_physical(physical)


def open_array(section: ArraySection) -> DataSplit:
    """Open, check and split the user's file.

    Raises:
        FrameError: see `stpl_core.frames`; or too few frames for T + K and the split.
    """
    where = str(section.path)
    stored = sequence_layout(
        read_array(section.path.expanduser(), lazy=True),
        section.frame,
        where,
        section.layout,
        "--set data.layout=",
    )  # (N, T', C, H, W)
    low, high = _check_values(stored, section.codec, where)
    shape = (stored.shape[2], stored.shape[3], stored.shape[4])
    understood = Understood(
        sequences=stored.shape[0],
        frames=stored.shape[0] * stored.shape[1],
        shape=shape,
        low=low,
        high=high,
        quantity=section.codec.quantity,
        units=section.codec.units,
        cadence_s=section.cadence_s,
    )
    length = section.context + section.horizon
    if stored.shape[1] < length:
        raise FrameError(
            f"{where} has {stored.shape[1]} frames in a row",
            expected=f"at least {length} (data.context {section.context} + "
            f"data.horizon {section.horizon})",
            fix=f"--set data.context={max(1, stored.shape[1] // 2)} "
            f"--set data.horizon={max(1, stored.shape[1] // 4)}",
        )
    training, held_out = split_windows(stored.shape[0], stored.shape[1], length, section)
    for part, name in ((training, "training"), (held_out, "validation")):
        if len(part) == 0:
            raise FrameError(
                f"{where} leaves no window of {length} frames for {name}",
                expected=f"a split at data.validation_fraction = {section.validation_fraction:g} "
                f"of {stored.shape[0]} x {stored.shape[1]} frames with {length} on each side",
                fix="more frames, --set data.validation_fraction=0.5, or a shorter data.horizon",
            )
    validation = Windows(stored, _spread(held_out, section), length, section.codec, where)
    return DataSplit(
        training=Windows(stored, training, length, section.codec, where),
        validation=validation.batch(np.arange(len(validation.starts))),
        frame=shape,
        understood=understood,
        remarks=tuple(filter(None, [understood.range_remark(section.codec)])),
    )


def split_windows(
    sequences: int, frames: int, length: int, section: ArraySection
) -> tuple[Indices, Indices]:
    """Place windows on both sides of one cut in time; none crosses it.

    The cut is after whole sequences where the held-out share is at least one of them, else inside
    the last one.

    Args:
        sequences: N.
        frames: T', frames per sequence.
        length: of a window, T + K.
        section: gives the stride and the share.

    Returns:
        Training and validation windows, `(count, 2)` each: sequence and first frame.
    """
    share = section.validation_fraction
    whole = round(sequences * share)
    cut = (sequences - whole) * frames if whole else round(sequences * frames * (1 - share))
    n, start = np.meshgrid(np.arange(sequences), np.arange(frames - length + 1), indexing="ij")
    places = np.stack([n.ravel(), start.ravel()], axis=1).astype(np.int64)  # (all, 2)
    at = places[:, 0] * frames + places[:, 1]
    before, after = places[at + length <= cut], places[at >= cut]
    on_stride = before[:, 1] % section.stride == 0
    # The validation windows count from the cut, so that a large stride does not skip them all.
    offset = after[:, 1] - np.where(after[:, 0] == cut // frames, cut % frames, 0)
    return before[on_stride], after[offset % section.stride == 0]


def _spread(places: Indices, section: ArraySection) -> Indices:
    keep = min(len(places), section.validation_sequences)
    return places[np.linspace(0, len(places) - 1, keep).round().astype(np.int64)]


def _check_values(stored: NDArray[Any], codec: FrameCodec, where: str) -> tuple[float, float]:
    """Check every value; give the least and the greatest, physical."""
    values = stored.shape[2] * stored.shape[3] * stored.shape[4]
    block = max(1, _CHECKED_VALUES // values)
    low, high = np.inf, -np.inf
    for n in range(stored.shape[0]):
        for start in range(0, stored.shape[1], block):
            physical = physical_values(stored[n, start : start + block], codec, where)
            low, high = min(low, float(physical.min())), max(high, float(physical.max()))
    return low, high
