"""A part that was cut out of a dataset lies where it lay in the whole."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("pyproj", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)

import numpy as np
import xarray as xr

from stpl_core.grid import Grid
from stpl_core.readers.converted import grid_of
from stpl_core.readers.dataset import grid_coordinates
from tests.core.readers.maps import MAPS

PLACES = [name for name in MAPS if name not in ("feet", "kilometres")]
"""Grids are in metres or degrees."""


def dataset(name: str | None) -> tuple[xr.Dataset, Grid]:
    affine, wkt, degrees = (0.0, 0.0, 1.0, 1.0), "", False
    if name is not None:
        (x, y), degrees = MAPS[name].middle(), MAPS[name].degrees
        step = 0.01 if degrees else 1000 / 3
        affine, wkt = (x - 7.1 * step, y + 9.3 * step, step, -step), MAPS[name].crs.to_wkt()
    grid = Grid(affine, 30, 20, wkt, degrees)
    frames = np.zeros((1, 1, 30, 20), np.float32)
    made = xr.Dataset(
        {"frames": (("time", "channel", "y", "x"), frames)},
        grid_coordinates(grid),
        {"affine": np.array(affine)},
    )
    return made, grid


@pytest.mark.parametrize("name", [None, *PLACES])
def test_a_part_keeps_its_place(name: str | None) -> None:
    whole, grid = dataset(name)
    assert grid_of(whole).affine == grid.affine  # to the bit
    part = grid_of(whole.isel(y=slice(4, 21), x=slice(3, 12)))
    left, top, width, height = grid.affine
    expected = Grid(
        (left + 3 * width, top + 4 * height, width, height), 17, 9, grid.crs_wkt, grid.geographic
    )
    assert part.same_as(expected)
    thinned = grid_of(whole.isel(y=slice(None, None, 2), x=slice(None, None, 2)))
    slack = 1e-3 * width
    np.testing.assert_allclose(thinned.x, grid.x[::2], rtol=0, atol=slack)
    np.testing.assert_allclose(thinned.y, grid.y[::2], rtol=0, atol=slack)
    single = grid_of(whole.isel(y=[7], x=[5]))
    np.testing.assert_allclose((single.x[0], single.y[0]), (grid.x[5], grid.y[7]), atol=slack)
