"""Layouts of arrays: what is certain is read, what is not is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError
from stpl_core.frames import sequence_layout
from stpl_core.reading.axes import AXES, in_layout, layout_of
from stpl_core.reading.understood import Understood

FLOAT, BYTES = np.dtype("float32"), np.dtype("uint8")


@pytest.mark.parametrize(
    ("shape", "kind", "layout"),
    [
        ((30, 64, 64), FLOAT, "THW"),
        ((30, 1, 64, 64), FLOAT, "TCHW"),
        ((30, 3, 64, 64), FLOAT, "TCHW"),
        ((30, 48, 64, 3), FLOAT, "THWC"),
        ((24, 8, 32, 32, 3), FLOAT, "NTHWC"),
        ((24, 8, 3, 32, 32), FLOAT, "NTCHW"),
        ((5, 20, 12, 32, 32), FLOAT, "NTCHW"),
        ((20, 10000, 64, 64), BYTES, "TNHW"),  # mnist_test_seq.npy
    ],
)
def test_what_is_certain(shape: tuple[int, ...], kind: np.dtype[np.generic], layout: str) -> None:
    assert layout_of(shape, kind, "a.npy") == layout


def test_what_is_not_is_asked_for() -> None:
    with pytest.raises(FrameError, match=r"200 sequences of 20 frames .*; try: --set x=NTHW"):
        layout_of((200, 20, 32, 32), FLOAT, "a.npy", option="--set x=")


def test_the_expected_frame_decides() -> None:
    shape = (200, 20, 32, 32)
    assert layout_of(shape, FLOAT, "a.npy", (1, 32, 32)) == "NTHW"
    assert layout_of(shape, FLOAT, "a.npy", (20, 32, 32)) == "TCHW"
    # Even where it has the shape of Moving MNIST's file.
    assert layout_of((20, 12, 32, 32), BYTES, "a.npy", (12, 32, 32)) == "TCHW"


@given(st.permutations(AXES), st.integers(2, 5))
def test_every_layout_finds_its_axes(order: list[str], count: int) -> None:
    letters = "".join([axis for axis in order if axis in AXES[-count:]])
    sizes = dict(zip(AXES, (2, 3, 4, 5, 6), strict=True))
    stored = np.arange(np.prod([sizes[axis] for axis in letters])).reshape(
        [sizes[axis] for axis in letters]
    )
    viewed = in_layout(stored, letters, "a.npy")
    assert viewed.shape == tuple(sizes[axis] if axis in letters else 1 for axis in AXES)
    # numpy's own way by names: einsum.
    own = np.einsum(f"{letters}->{''.join(a for a in AXES if a in letters)}", stored)
    assert np.array_equal(viewed.ravel(), own.ravel())


@pytest.mark.parametrize("layout", ["NTHX", "NTH", "HHW", "", "TCHW"])
def test_layouts_that_do_not_hold(layout: str) -> None:
    with pytest.raises(FrameError, match="try: --layout"):
        in_layout(np.zeros((2, 3, 4)), layout, "a.npy")


def test_a_stated_layout_is_taken() -> None:
    stored = np.zeros((7, 5, 8, 9), np.float32)
    assert sequence_layout(stored, None, "a.npy", "NTHW").shape == (7, 5, 1, 8, 9)


def test_bits_that_are_not_used_are_mentioned_with_what_fits() -> None:
    def remark(high: float) -> str:
        facts = Understood(1, 10, (1, 8, 8), 0.0, high, "grey level", "1", None)
        return facts.range_remark(FrameCodec())

    assert "--set data.codec.high=0.0625" in remark(4095 / 65535)
    assert "--set data.codec.high=0.25" in remark(0.2)
    assert remark(0.6) == "" == remark(0.0)
    # What it says to type covers all values, and nearly all of the range.
    codec = FrameCodec(high=0.0625)
    assert codec.model_from_physical(np.float32([4095 / 65535]))[0] == pytest.approx(1, abs=1e-3)
