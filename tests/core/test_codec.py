"""Physical values to model units and back."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError

bound = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@given(low=bound, span=st.floats(0.01, 1e4), fractions=st.lists(st.floats(0, 1), min_size=1))
def test_there_and_back(low: float, span: float, fractions: list[float]) -> None:
    codec = FrameCodec(low=low, high=low + span)
    physical = np.float32(low) + np.asarray(fractions, np.float32) * np.float32(span)
    there = codec.model_from_physical(physical)
    back = codec.physical_from_model(there)
    assert there.dtype == back.dtype == np.float32
    # float32 near `low` has steps of low * 2**-23: a small span far from zero keeps that much.
    step = 2.0**-22 * (abs(low) + span)
    assert np.abs(back - physical).max() <= 2 * step
    assert there.min() >= -2 * step / span
    assert there.max() <= 1 + 2 * step / span


def test_the_ends_of_the_range() -> None:
    codec = FrameCodec(quantity="reflectivity", units="dBZ", low=-32.0, high=95.5)
    ends = np.asarray([-32.0, 95.5], np.float32)
    assert codec.model_from_physical(ends).tolist() == [0.0, 1.0]
    assert codec.physical_from_model(np.asarray([0.0, 1.0], np.float32)).tolist() == ends.tolist()


def test_what_a_model_overshoots_is_clipped() -> None:
    codec = FrameCodec(low=10, high=20)
    values = np.asarray([-0.5, 0.5, 1.5], np.float32)
    assert codec.physical_from_model(values).tolist() == [10.0, 15.0, 20.0]


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan")), (0, float("inf"))])
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(pydantic.ValidationError):
        FrameCodec(low=ends[0], high=ends[1])


def test_a_typo_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError):
        FrameCodec.model_validate({"unit": "dBZ"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, float("nan")], "1 values that are NaN or infinite"),
        ([float("inf"), float("-inf")], "2 values that are NaN or infinite"),
        ([0.0, 255.0], "values from 0 to 255"),
        ([-0.5, 0.0], "values from -0.5 to 0"),
        ([], "no values"),
    ],
)
def test_values_out_of_range_are_reported(values: list[float], words: str) -> None:
    with pytest.raises(FrameError, match=words) as caught:
        FrameCodec().check(np.asarray(values, np.float32), "frame.npy")
    assert caught.value.found.startswith("frame.npy")


@pytest.mark.parametrize(
    ("codec", "most", "fix"),
    [
        (FrameCodec(), 255.0, "divide by 255"),
        (FrameCodec(), 256.0, "convert the frames to [0, 1] first"),
        (FrameCodec(high=60, units="mm h-1"), 90.0, "convert the frames to [0, 60] mm h-1 first"),
    ],
)
def test_what_to_do_about_the_range(codec: FrameCodec, most: float, fix: str) -> None:
    with pytest.raises(FrameError) as caught:
        codec.check(np.asarray([0, most], np.float32), "frame.npy")
    assert caught.value.fix == fix
    assert caught.value.expected == f"grey level in {codec.range_text()}"


def test_rounding_at_the_ends_is_not_out_of_range() -> None:
    FrameCodec().check(np.asarray([-1e-6, 1 + 1e-6], np.float32), "frame.npy")
