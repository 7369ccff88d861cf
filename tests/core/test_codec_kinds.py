"""Codecs of rain: decibels, logarithms, dBZ to rain rate, no rain and no data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.codec import NO_DATA, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.rain import dbz_from_rate, rate_from_dbz

RATE: dict[str, Any] = {"quantity": "rain rate", "units": "mm h-1", "low": 0.0, "high": 100.0}
DBZ: dict[str, Any] = {"quantity": "reflectivity", "units": "dBZ", "low": -32.0, "high": 60.0}
KINDS = {
    "linear rate": FrameCodec(**RATE, clip=True),
    "db": FrameCodec(**RATE, kind="db", clip=True),
    "db, zero of pysteps' kind": FrameCodec(**RATE, kind="db", threshold=0.7, zero_value=-15.0),
    "log": FrameCodec(**RATE, kind="log"),
    "dBZ": FrameCodec(**DBZ),
    "dBZ clipped like mlcast": FrameCodec(**DBZ | {"low": 0.0}, no_rain=-32.0, clip=True),
    "dBZ to rate": FrameCodec(**DBZ, conversion="dbz-to-rate", zr=(223.0, 1.53)),
    "dBZ to rate in dB": FrameCodec(**DBZ, conversion="dbz-to-rate", kind="db"),
    "dBZ to rate in log": FrameCodec(**DBZ, conversion="dbz-to-rate", kind="log"),
    "rate to dBZ": FrameCodec(**RATE | {"low": 0.1}, conversion="rate-to-dbz", no_rain=0.0),
}


@pytest.mark.parametrize("codec", KINDS.values(), ids=list(KINDS))
@settings(max_examples=25, deadline=None)
@given(fractions=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_model_values_come_back(codec: FrameCodec, fractions: list[float]) -> None:
    """Physical values that a codec gave are mapped to themselves, there and back."""
    physical = codec.physical_from_model(np.asarray(fractions, np.float32))
    again = codec.model_from_physical(physical)
    assert physical.dtype == again.dtype == np.float32
    assert again.min() >= 0
    assert again.max() <= 1 + 1e-6
    # What a rate of 100 mm h-1 resolves in float32 is most of it, near nothing at all.
    back = codec.physical_from_model(again)
    np.testing.assert_allclose(back, physical, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("codec", KINDS.values(), ids=list(KINDS))
@settings(max_examples=25, deadline=None)
@given(fraction=st.floats(0.25, 1))
def test_rain_comes_back(codec: FrameCodec, fraction: float) -> None:
    physical = np.asarray([codec.low + fraction * (codec.high - codec.low)], np.float32)
    if codec.conversion == "dbz-to-rate" and physical[0] < 10:
        return  # less than the threshold, or lost in the linear scale
    back = codec.physical_from_model(codec.model_from_physical(physical))
    smallest = 1e-6 * (codec.high - codec.low)  # float32, in which 0 dBZ is a third of the range
    np.testing.assert_allclose(back, physical, rtol=1e-4, atol=smallest)


@pytest.mark.parametrize("codec", KINDS.values(), ids=list(KINDS))
def test_no_rain_is_zero_and_comes_back_exactly(codec: FrameCodec) -> None:
    empty = np.full((2, 3), codec.no_rain_value, np.float32)
    assert (codec.model_from_physical(empty) == 0).all()
    for floor in (0.0, -0.25):
        back = codec.physical_from_model(np.full((2, 3), floor, np.float32))
        assert (back == np.float32(codec.no_rain_value)).all()
    codec.check(empty, "frame.npy")


@pytest.mark.parametrize("codec", KINDS.values(), ids=list(KINDS))
def test_the_top_is_one_and_larger_values_are_clipped(codec: FrameCodec) -> None:
    top = np.asarray([codec.high], np.float32)
    np.testing.assert_allclose(codec.model_from_physical(top), 1.0, rtol=1e-6)
    over = codec.physical_from_model(np.asarray([1.5], np.float32))
    np.testing.assert_allclose(over, top, rtol=1e-6)


def test_decibels_as_written() -> None:
    codec = KINDS["db"]
    rate = np.asarray([0.0, 0.0999, 0.1, 1.0, 10.0, 100.0], np.float32)
    zero, top = -15.0, 20.0  # 10 log10 0.1 - 5 and 10 log10 100
    expected = (np.asarray([zero, zero, -10.0, 0.0, 10.0, 20.0]) - zero) / (top - zero)
    np.testing.assert_allclose(codec.model_from_physical(rate), expected, atol=1e-6)
    back = codec.physical_from_model(np.asarray([0.1], np.float32))  # -11.5 dB: below -10
    assert back.tolist() == [0.0]


def test_the_threshold_itself_is_rain() -> None:
    for threshold in (0.1, 0.3, 0.7, 1.1):
        codec = FrameCodec(**RATE, kind="db", threshold=threshold)
        value = np.asarray([threshold], np.float32)
        back = codec.physical_from_model(codec.model_from_physical(value))
        np.testing.assert_allclose(back, value, rtol=1e-6)


def test_the_logarithm_as_written() -> None:
    rate = np.asarray([0.0, 0.5, 100.0], np.float32)
    logs = np.log(rate.astype(np.float64) + 0.01)
    expected = (logs - logs[0]) / (logs[-1] - logs[0])
    np.testing.assert_allclose(KINDS["log"].model_from_physical(rate), expected, atol=1e-6)


def test_reflectivity_and_rain_rate() -> None:
    """Marshall and Palmer; the usual figures."""
    rates = np.asarray([0.1, 1.0, 10.0, 50.0])
    np.testing.assert_allclose(dbz_from_rate(rates), [7.0, 23.0, 39.0, 50.2], atol=0.05)
    for zr in ((200.0, 1.6), (223.0, 1.53), (316.0, 1.5), (58.53, 1.56)):
        np.testing.assert_allclose(rate_from_dbz(dbz_from_rate(rates, zr), zr), rates, rtol=1e-12)
    assert dbz_from_rate(np.zeros(1))[0] == -np.inf


@pytest.mark.parametrize("how", [{}, DBZ, {"kind": "db", "high": 100.0, "clip": True}])
def test_no_data_is_marked_beyond_all_values(how: dict[str, Any]) -> None:
    plain, codec = FrameCodec(**how), FrameCodec(**how, marks_no_data=True)
    values = np.array([[np.nan, codec.low, codec.high, np.nan]], np.float32)
    made = codec.model_from_physical(values)
    np.testing.assert_array_equal(made[0, [0, 3]], NO_DATA)
    np.testing.assert_array_equal(made[0, 1:3], plain.model_from_physical(values)[0, 1:3])
    assert codec.physical_from_model(made)[0, 0] == codec.no_rain_value
    with pytest.raises(ValueError, match="is not used with marks_no_data"):
        FrameCodec(marks_no_data=True, no_data=0.5)


def test_no_data_takes_its_value() -> None:
    holes = np.asarray([np.nan, 30.0], np.float32)
    assert KINDS["dBZ clipped like mlcast"].model_from_physical(holes).tolist() == [0.0, 0.5]
    codec = FrameCodec(**DBZ, no_data=14.0)
    assert codec.model_from_physical(holes)[0] == np.float32(0.5)
    with pytest.raises(FrameError, match="1 values that are NaN"):
        codec.check(holes, "x.npy")
    codec.check(holes, "x.npy", observed=np.asarray([False, True]))
    with pytest.raises(FrameError, match="1 values that are NaN"):
        codec.check(np.asarray([np.nan, np.nan], np.float32), "x", np.asarray([False, True]))


def test_clipping_takes_what_would_be_refused() -> None:
    heavy = np.asarray([0.0, 180.0], np.float32)
    with pytest.raises(FrameError, match="values from 0 to 180"):
        KINDS["log"].check(heavy, "x.npy")
    KINDS["linear rate"].check(heavy, "x.npy")
    assert KINDS["linear rate"].model_from_physical(heavy).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (RATE | {"conversion": "dbz-to-rate"}, "needs units dBZ"),
        (DBZ | {"conversion": "rate-to-dbz"}, "needs units mm h-1"),
        (DBZ | {"kind": "db"}, "decibels already"),
        (RATE | {"conversion": "rate-to-dbz"}, "low above 0"),
        (RATE | {"kind": "log", "low": -1.0}, "low \\+ offset above 0"),
        (RATE | {"kind": "db", "threshold": 200.0}, "threshold 200 must be in"),
        (RATE | {"kind": "db", "zero_value": 3.0}, "must be below the threshold"),
        (RATE | {"no_rain": 1.0}, "must not be above low"),
        (RATE | {"kind": "cubic"}, "linear"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        FrameCodec(**keys)


def test_an_older_manifest_is_linear() -> None:
    old = {"quantity": "reflectivity", "units": "dBZ", "low": -32.0, "high": 95.5}
    codec = FrameCodec.model_validate(old)
    assert (codec.kind, codec.conversion, codec.clip) == ("linear", "none", False)
    assert FrameCodec.model_validate(codec.model_dump(mode="json")) == codec
