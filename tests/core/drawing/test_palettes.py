"""Other colours: the same classes whatever the unit, and one that colour-blind people can tell."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.drawing.colours import NO_ECHO_COLOUR, SAFE, STANDARD, colour_map, palettes
from stpl_core.drawing.palettes import NATIONAL

DICHROMATS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""Linear RGB as they see it: Machado, Oliveira and Fernandes, 2009, severity 1."""


@pytest.mark.parametrize("units", ["mm h-1", "mm", "dBZ"])
def test_the_safe_colours_darken_step_by_step_for_everybody(units: str) -> None:
    colours = np.array(colour_map(units, 0.0, 1.0, SAFE).colours) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for matrix in [np.eye(3).tolist(), *DICHROMATS.values()]:
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        lightness = np.cbrt(seen @ [0.2126, 0.7152, 0.0722])
        assert (np.diff(lightness) < -0.03).all()


@pytest.mark.parametrize("word", NATIONAL)
def test_a_rate_and_its_reflectivity_have_one_colour(word: str) -> None:
    rates = np.array([[0.15, 0.7, 3.0, 12.0, 45.0, 90.0]])
    rain = colour_map("mm h-1", 0.0, 1.0, word)
    echo = colour_map("dBZ", 0.0, 1.0, word)
    dbz = 10 * np.log10(200 * rates**1.6)
    np.testing.assert_array_equal(rain.picture(rates), echo.picture(dbz))
    assert len(rain.colours) == len(rain.limits) + 1
    assert list(rain.limits) == sorted(rain.limits)
    assert rain.picture(np.array([[0.0]]))[0, 0].tolist() == list(NO_ECHO_COLOUR)


def test_which_there_are() -> None:
    assert list(palettes("mm h-1")) == [STANDARD, SAFE, *NATIONAL]
    assert list(palettes("K")) == [STANDARD, SAFE]
    assert list(palettes("1")) == [STANDARD]
    assert colour_map("K", 0.0, 1.0, "usa") == colour_map("K", 0.0, 1.0)
    assert colour_map("K", 0.0, 1.0, SAFE) != colour_map("K", 0.0, 1.0)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("word", "theirs"),
    [("australia", "BOM-RF3"), ("belgium", "STEPS-BE"), ("netherlands", "STEPS-NL")],
)
def test_as_pysteps_draws_them(word: str, theirs: str) -> None:
    fields = pytest.importorskip("pysteps.visualization.precipfields")
    colours, norm, *_ = fields.get_colormap("intensity", "mm/h", theirs)
    inside = [1.01 * limit for limit in NATIONAL[word].limits]
    drawn = np.rint(255 * colours(norm(inside))[:, :3]).astype(int)
    np.testing.assert_array_equal(drawn, NATIONAL[word].colours)


def test_as_metpy_draws_it() -> None:
    tables = pytest.importorskip("metpy.plots.ctables").registry
    norm, colours = tables.get_with_steps("NWSReflectivity", 5, 5)
    drawn = np.rint(255 * colours(norm(np.arange(7.5, 75, 5)))[:, :3]).astype(int)
    np.testing.assert_array_equal(drawn, NATIONAL["usa"].colours)
