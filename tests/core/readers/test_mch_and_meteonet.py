"""MeteoSwiss's pictures beside pysteps' importer; MeteoNet's archives beside what it documents."""

from __future__ import annotations

import json
import pickle
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xarray")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("pyproj")

from stpl_core.errors import FrameError  # noqa: E402
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, ReadOptions  # noqa: E402
from stpl_core.readers import mch_gif  # noqa: E402
from stpl_core.readers.converted import grid_of, quantity_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402

SIZE = (640, 710)


def swiss(path: Path, kind: str = "rate", extra: tuple[int, int, int] | None = None) -> Path:
    """A picture in which every colour of a palette stands in a block; the order is our own."""
    palette = json.loads(Path(mch_gif.__file__).with_name("mch_palettes.json").read_text())[kind]
    colours = [bytes.fromhex(colour) for colour in sorted(palette)][:256]
    if extra:
        colours[-1] = bytes(extra)
    numbers = np.zeros(SIZE, np.uint8)
    for n in range(len(colours)):
        numbers[n : n + 2, 100:300] = n
    made = Image.fromarray(numbers).convert("P")
    made.putdata(numbers.ravel().tolist())
    made.putpalette(b"".join(colours))
    made.save(path)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "product", "units", "seconds"),
    [
        ("RZC161210545VL.801.gif", "rate", "RZC", "mm h-1", None),
        ("AZC161210545F_00060.801.gif", "amount", "AZC", "mm", 3600),
        ("AQC161210545F_00005.801.gif", "rate", "AQC", "mm", 300),
        ("CPC1612105450_00060.801.gif", "rate", "CPC", "mm", 3600),
    ],
)
def test_meteoswiss_as_pysteps(
    tmp_path: Path, name: str, kind: str, product: str, units: str, seconds: float | None
) -> None:
    path = swiss(tmp_path / name, kind)
    opened = open_frames(path, options=ReadOptions(bad_pixels=1.0))
    quantity = quantity_of(opened)
    assert (quantity.units, quantity.accumulation_s) == (units, seconds)
    assert str(opened["time"].values[0]).startswith("2016-04-30T05:45:00")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importers = pytest.importorskip("pysteps.io.importers")
        theirs, _, facts = importers.import_mch_gif(str(path), product, units, 5)
    expected = np.where(np.asarray(theirs) > 2500, np.nan, np.asarray(theirs, np.float64))
    np.testing.assert_allclose(opened["frames"].values[0, 0], expected, rtol=1e-6, atol=1.1e-4)
    np.testing.assert_array_equal(opened["state"].values[0] == NO_DATA, np.isnan(expected))
    corners = [facts[key] for key in ("x1", "y1", "x2", "y2")]
    np.testing.assert_allclose(grid_of(opened).corners, corners)
    assert "21781" in grid_of(opened).crs_wkt


def test_a_colour_of_no_palette_is_quoted(tmp_path: Path) -> None:
    path = swiss(tmp_path / "RZC161210545VL.801.gif", extra=(1, 2, 3))
    with pytest.raises(FrameError, match=r"the colour #010203 in \d+ pixels"):
        open_frames(path)


def meteonet(path: Path, data: np.ndarray, start: datetime = datetime(2016, 1, 1)) -> Path:
    dates = np.array([start + timedelta(minutes=5 * n) for n in range(len(data))], object)
    np.savez(path, data=data, dates=dates, miss_dates=np.array([], object))
    return path


@pytest.mark.parametrize(
    ("name", "dtype", "numbers", "values", "units"),
    [
        ("rainfall_NW_2016_01.1.npz", "i2", (42, 0, -1), 0.42, "mm"),
        ("reflectivity_old_NW_2016_01.1.npz", "u1", (35, 0, 255), 35.0, "dBZ"),
        ("reflectivity_new_NW_2018_03.1.npz", "i2", (355, -100, -200), 35.5, "dBZ"),
    ],
)
def test_meteonet_as_documented(
    tmp_path: Path, name: str, dtype: str, numbers: tuple[int, ...], values: float, units: str
) -> None:
    data = np.full((4, 6, 5), numbers[1], dtype)  # (T, H, W)
    data[:, 0, 0], data[:, 5, 4] = numbers[0], numbers[2]
    meteonet(tmp_path / name, data)
    lats, lons = np.meshgrid(50.0 - 0.01 * np.arange(6), 2.0 + 0.01 * np.arange(5), indexing="ij")
    np.savez(tmp_path / "radar_coords_NW.npz", lats=lats, lons=lons)
    opened = open_frames(tmp_path)
    assert opened["frames"].values[3, 0, 0, 0] == pytest.approx(values)
    state = opened["state"].values[0]
    assert (state[0, 0], state[1, 1], state[5, 4]) == (VALUE, NO_ECHO, NO_DATA)
    assert quantity_of(opened).units == units
    assert str(opened["time"].values[-1]).startswith("2016-01-01T00:15:00")
    assert opened.attrs["cadence_s"] == 300
    np.testing.assert_allclose(grid_of(opened).corners, (1.995, 49.945, 2.045, 50.005))


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('trapped').write_text('')",))


def test_meteonet_dates_are_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, dates = np.zeros((1, 4, 4), np.int16), np.array([_Trap()], object)
    np.savez("rainfall_NW_2016_01.1.npz", data=data, dates=dates, miss_dates=dates)
    with pytest.raises(FrameError, match="0 dates that are read for 1 frames"):
        open_frames(Path("rainfall_NW_2016_01.1.npz"))
    assert not Path("trapped").exists()
    pickle.dumps(_Trap())  # the trap is one


def test_meteonet_of_another_name_is_asked_for(tmp_path: Path) -> None:
    path = meteonet(tmp_path / "rainfall_mean_quality_NW_2016_01.1.npz", np.zeros((2, 4, 4), "i2"))
    with pytest.raises(FrameError, match="a name that begins with rainfall, reflectivity_old"):
        open_frames(path)
