"""Crops and area means: values, states and the grid."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.rain import dbz_from_rate, rate_from_dbz
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Quantity
from stpl_core.readers.fit import Fit
from stpl_core.readers.units import rain_rate, reflectivity

GRID = Grid((1000.0, 9000.0, 10.0, -20.0), height=6, width=8)


def test_the_grid_goes_along() -> None:
    fit = Fit(crop=(2, 4, 4, 4), size=(2, 2))
    made = fit.grid(GRID, "x")
    assert made.affine == (1040.0, 8960.0, 20.0, -40.0)
    assert (made.height, made.width) == (2, 2)
    np.testing.assert_allclose(made.x, [GRID.x[4:6].mean(), GRID.x[6:].mean()])
    np.testing.assert_allclose(made.y, [GRID.y[2:4].mean(), GRID.y[4:].mean()])
    assert Fit().grid(GRID, "x") == GRID
    with pytest.raises(FrameError, match="room for the crop of 4x4 at row 3, column 0"):
        Fit(crop=(3, 0, 4, 4)).grid(GRID, "x")


def test_uneven_shares_keep_the_total() -> None:
    frames = np.random.default_rng(1).random((2, 3, 7, 10)).astype(np.float32)
    state = np.full((2, 7, 10), VALUE, np.uint8)
    made, states = Fit(size=(3, 4)).apply(frames, state, Quantity("flow", "count"))
    np.testing.assert_allclose(made.mean(axis=(2, 3)), frames.mean(axis=(2, 3)), rtol=1e-6)
    assert (states == VALUE).all()


def test_reflectivity_is_averaged_as_rain_rate() -> None:
    frames = np.array([[[[40.0, 10.0], [20.0, -32.0]]]], np.float32)
    state = np.array([[[VALUE, VALUE], [VALUE, NO_ECHO]]], np.uint8)
    zr = (223.0, 1.53)
    made, states = Fit(size=(1, 1), zr=zr).apply(frames, state, reflectivity())
    rates = rate_from_dbz(np.array([40.0, 10.0, 20.0]), zr)
    np.testing.assert_allclose(made.ravel(), dbz_from_rate(rates.sum() / 4, zr), rtol=1e-6)
    assert states.tolist() == [[[VALUE]]]


@pytest.mark.parametrize("quantity", [rain_rate(), reflectivity()], ids=["rate", "dBZ"])
def test_no_echo_and_no_data_are_kept_apart(quantity: Quantity) -> None:
    empty = quantity.no_echo
    assert empty is not None
    state = np.array([[[1, 1, 2, 2, 0, 2], [1, 2, 2, 1, 2, 2]]], np.uint8)  # (1, 2, 6)
    frames = np.where(state == NO_DATA, np.nan, np.where(state == NO_ECHO, empty, 30.0))
    made, states = Fit(size=(1, 3)).apply(frames[:, None].astype(np.float32), state, quantity)
    # Three of four observed, nothing there; one of four; one of four.
    assert states.ravel().tolist() == [NO_ECHO, NO_DATA, NO_DATA]
    assert made[0, 0, 0, 0] == empty
    assert np.isnan(made[0, 0, 0, 1:]).all()
    half = np.array([[[0, 2], [0, 2]]], np.uint8)
    values = np.where(half == NO_DATA, np.nan, 30.0).astype(np.float32)[:, None]
    made, states = Fit(size=(1, 1)).apply(values, half, quantity)
    np.testing.assert_allclose(made.ravel(), [30.0], rtol=1e-6)
    assert states.ravel().tolist() == [VALUE]
