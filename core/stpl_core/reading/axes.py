"""The order of an array's axes: N sequences, T frames, C channels, H rows, W columns.

An array says nothing of its axes. Where its shape and the frames that are expected leave one order,
that is taken; else the user states it, as `NTHW`. A wrong guess would train on anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError

AXES = "NTCHW"
_MOST_CHANNELS = 4
"""Where there may be more channels, they may be frames as well."""
_COLOURS = (1, 3, 4)
"""Channels of pictures, which many write as the last axis."""
_MNIST_FRAMES = 20
_USUAL = {2: ("HW",), 3: ("THW", "HWC"), 4: ("TCHW", "NTHW", "THWC"), 5: ("NTCHW", "NTHWC")}
"""Axes -> their layouts, the usual one first."""

_WORDS = {"N": "sequences", "T": "frames", "C": "channels"}


def in_layout(stored: NDArray[Any], layout: str, where: str) -> NDArray[Any]:
    """View an array as `(N, T, C, H, W)`; an axis that the layout lacks has the length 1.

    Args:
        stored: the array.
        layout: the letter of each of its axes, such as `NTHW`.
        where: what to call it.

    Raises:
        FrameError: the layout is none, or has another number of axes.
    """
    letters = layout.upper()
    if len(set(letters)) < len(letters) or not {"H", "W"} <= set(letters) <= set(AXES):
        raise FrameError(
            f"the layout {layout!r}",
            expected="each axis once, of N (sequences), T (frames), C (channels), H and W",
            fix="--layout NTHW",
        )
    if len(letters) != stored.ndim:
        raise FrameError(
            f"{where} has shape {stored.shape}, {stored.ndim} axes",
            expected=f"{len(letters)}, as in the layout {letters}",
            fix=f"--layout {_USUAL.get(stored.ndim, ('NTCHW',))[0]}",
        )
    order = [letters.index(axis) for axis in AXES if axis in letters]
    missing = tuple(n for n, axis in enumerate(AXES) if axis not in letters)
    return np.expand_dims(np.transpose(stored, order), missing)


def layout_of(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    where: str,
    frame: tuple[int, int, int] | None = None,
    option: str = "--layout ",
) -> str:
    """The layout that follows from a shape; see `in_layout`.

    Args:
        shape: of the array.
        dtype: of its numbers: Moving MNIST's test file is known by it.
        where: what to call it.
        frame: (C, H, W) of the frames that are expected, where it is known.
        option: what to type before the layout.

    Raises:
        FrameError: none or several fit it.
    """
    known = _USUAL.get(len(shape), ())
    if not known or 0 in shape:
        raise FrameError(
            f"{where} has shape {shape}",
            expected="2 to 5 axes, such as (N, T, C, H, W) or (T, C, H, W), and none empty",
            fix="reshape it",
        )
    if len(known) == 1:
        return known[0]
    matching = [] if frame is None else [one for one in known if _frame(shape, one) == frame]
    moving_mnist = len(shape) == 4 and dtype == np.uint8 and shape[0] == _MNIST_FRAMES
    if moving_mnist and shape[1] > _MOST_CHANNELS and "TCHW" not in matching:
        return "TNHW"
    fitting = matching or [layout for layout in known if _plausible(shape, layout)]
    if len(fitting) == 1 or frame is not None:
        return (fitting or known)[0]
    many = sorted(fitting, key=lambda layout: not layout.startswith("N"))  # as most have them
    likely = [*many, *(layout for layout in known if layout not in many)]
    raise FrameError(
        f"{where} has shape {shape}: {' or '.join(_words(shape, layout) for layout in likely[:2])}",
        expected="one way to read it",
        fix=f"{option}{likely[0]}, or {option}{likely[1]}",
    )


def _frame(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    sizes = dict(zip(layout, shape, strict=True))
    return sizes.get("C", 1), sizes["H"], sizes["W"]


def _plausible(shape: tuple[int, ...], layout: str) -> bool:
    """Whether the shape alone allows it: no picture is three pixels wide, no sequence so short."""
    innermost = shape[-1] in _COLOURS and min(shape[-3:-1]) > _MOST_CHANNELS
    if layout.endswith("C") or innermost:
        return layout.endswith("C") and innermost
    return layout != "NTHW" or shape[1] > _MOST_CHANNELS


def _words(shape: tuple[int, ...], layout: str) -> str:
    """As `200 sequences of 20 frames of 32x32`."""
    sizes = dict(zip(layout, shape, strict=True))
    parts = [f"{sizes[axis]} {_WORDS[axis]}" for axis in "NTC" if axis in sizes]
    return " of ".join([*parts, f"{sizes['H']}x{sizes['W']}"]) + f" ({layout})"
