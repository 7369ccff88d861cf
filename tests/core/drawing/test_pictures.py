"""Frames as pixels: every picture of the same values has the same colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stpl_core.drawing.colours import (
    NO_DATA_COLOUR,
    NO_DATA_ON_DARK,
    NO_ECHO_COLOUR,
    colour_map,
    difference_map,
)
from stpl_core.drawing.pictures import (
    difference_picture,
    frame_picture,
    legend_entries,
    png_of,
    scaled,
    thinned,
)


def test_rain_by_class_no_echo_and_no_data() -> None:
    frame = np.asarray([[[0.0, 0.3, 3.0, 500.0, np.nan]]], np.float32)
    colours = colour_map("mm h-1", 0.0, 1.0)
    observed = np.asarray([[True, True, False, True, True]])
    picture = frame_picture(frame, colours, observed=observed, marks_no_echo=True)
    assert [tuple(map(int, pixel)) for pixel in picture[0]] == [
        NO_ECHO_COLOUR,
        colours.colours[1],  # 0.1 to 0.5
        NO_DATA_COLOUR,
        colours.colours[-1],
        NO_DATA_COLOUR,
    ]
    dark = frame_picture(frame, colours, observed=observed, no_data=NO_DATA_ON_DARK)
    assert tuple(dark[0, 0]) == colours.colours[0]
    assert tuple(dark[0, 2]) == NO_DATA_ON_DARK


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
def test_brightness_goes_over_the_range_of_the_codec(low: float, high: float) -> None:
    """Grey of one channel, the picture itself of three."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = (low + (high - low) * levels.astype(np.float64) / 255).astype(np.float32)
    grey = frame_picture(values[None], colour_map("1", low, high))
    np.testing.assert_array_equal(grey, np.stack([levels] * 3, axis=-1))
    rgb = np.stack([values, values.T, values[::-1]])  # (3, H, W)
    picture = frame_picture(rgb, colour_map("1", low, high))
    np.testing.assert_array_equal(picture, np.stack([levels, levels.T, levels[::-1]], axis=-1))


def test_three_channels_of_a_quantity_are_no_colour_picture() -> None:
    frame = np.random.default_rng(0).random((3, 4, 4), dtype=np.float32)
    colours = colour_map("K", 0.0, 1.0)
    np.testing.assert_array_equal(frame_picture(frame, colours), colours.picture(frame[0]))


def test_rain_that_nobody_sees_makes_no_difference() -> None:
    truth = np.asarray([[[0.0, 0.05, 4.0, 4.0]]], np.float32)
    forecast = np.asarray([[[0.09, 0.0, 9.5, 0.0]]], np.float32)
    valid = np.asarray([[True, True, True, False]])
    picture = difference_picture(forecast, truth, valid, "mm h-1", 0.0, 1.0)
    none, much = difference_map("mm h-1", 0.0, 1.0).picture(np.asarray([[0.0, 5.5]], np.float32))[0]
    np.testing.assert_array_equal(picture[0, :2], [none, none])
    np.testing.assert_array_equal(picture[0, 2], much)
    assert tuple(picture[0, 3]) == NO_DATA_COLOUR


@pytest.mark.parametrize("units", ["mm h-1", "dBZ", "K", "1"])
def test_a_legend_has_the_colours_of_the_picture(units: str) -> None:
    colours = colour_map(units, 0.0, 8.0)
    entries = legend_entries(colours, 5)
    if colours.classes:
        assert (entries[0].low, entries[-1].high) == (None, None)
        assert [one.high for one in entries[:-1]] == [one.low for one in entries[1:]]
    else:
        assert [one.low for one in entries] == [0.0, 2.0, 4.0, 6.0, 8.0]
    for colour, low, high in entries:
        value = low if low is not None else (high or 0.0) - 1e-3
        assert tuple(colours.picture(np.full((1, 1), value, np.float32))[0, 0]) == colour


def test_sizes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with Image.open(io.BytesIO(png_of(picture))) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    large = np.asarray(scaled(picture, 21, 15))
    np.testing.assert_array_equal(large, picture.repeat(3, axis=0).repeat(3, axis=1))
    assert thinned(np.zeros((2, 1000, 400)), 300).shape == (2, 250, 100)
    assert thinned(np.zeros((300, 300), bool), 300).shape == (300, 300)
