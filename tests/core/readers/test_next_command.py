"""What a message says to type next works: every suggested option is typed, until frames come."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("h5py", "netCDF4", "pyproj", "rasterio", "xarray"):  # an edge device has none
    pytest.importorskip(library)

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from stpl_core.errors import UsageError
from stpl_core.options import ReadingOptions
from stpl_core.readers.opening import open_frames
from tests.core.readers.test_clocks import rain
from tests.core.readers.test_composites import odim
from tests.core.readers.test_knmi import forecast
from tests.core.readers.test_radolan import radolan

MOST_STEPS = 3
OPTION = re.compile(r"--([a-z-]+) ('[^']*'|[^\s,]*(?:,[^\s,]+)*)")


def suggested(fix: str) -> list[tuple[str, str]]:
    """The options that a message names with a value, in its order."""
    found = [(name.replace("-", "_"), shlex.split(text)[0]) for name, text in OPTION.findall(fix)]
    whole = [(name, text) for name, text in found if text not in ("UNIT", "NAME", "PATTERN")]
    assert whole, fix
    return whole


def follow(path: Path, choice: int = 0) -> list[str]:
    """Open a path, type what the error says, and so on; the options that were typed."""
    typed: dict[str, Any] = {}
    for _ in range(MOST_STEPS + 1):
        options = ReadingOptions(**typed)
        try:
            opened = open_frames(path, options.reader, options.for_readers())
        except UsageError as error:
            ways = suggested(error.fix)
            name, text = ways[min(choice, len(ways) - 1)]
            if name == "select":
                typed[name] = (*typed.get(name, ()), text)
            else:
                typed[name] = float(text) if name == "bad_pixels" else text
            continue
        assert opened.sizes["time"] > 0
        return list(typed)
    raise AssertionError(f"{typed} did not open it")


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    with netCDF4.Dataset(path, "a") as file:
        change(file)
    return path


def over(path: Path, *more: tuple[str, int]) -> Path:
    """Rain over further dimensions."""

    def change(file: Any) -> None:
        for name, size in more:
            file.createDimension(name, size)
        dims = ("time", *(name for name, _ in more), "lat", "lon")
        field = file.createVariable("field", "f4", dims)
        field.units = "mm/h"
        field[:] = 1.0
        if more:  # else it is a second field
            field.ancillary_variables = "other"

    changed(rain(path), lambda file: file.renameVariable("rr", "other"))
    return changed(path, change)


def two_clocks(path: Path) -> Path:
    def change(file: Any) -> None:
        file.createDimension("lead", 2)
        lead = file.createVariable("lead", "f8", ("lead",))
        lead.setncatts({"units": "minutes", "standard_name": "forecast_period"})
        lead[:] = [0, 5]
        file.renameVariable("rr", "other")
        field = file.createVariable("rr", "f4", ("time", "lead", "lat", "lon"))
        field.setncatts({"units": "mm/h", "ancillary_variables": "other"})
        field[:] = 1.0

    return changed(rain(path), change)


def flags(path: Path) -> Path:
    def change(file: Any) -> None:
        file["rr"][:, 0, 0] = -9.0

    return changed(rain(path), change)


def archive(path: Path) -> Path:
    np.savez(path, radar=np.zeros((3, 8, 8), np.float32), mask=np.zeros((3, 8, 8), np.float32))
    return path


def axes(path: Path) -> Path:
    np.save(path, np.zeros((12, 8, 16, 16), np.float32))
    return path


def one_number(path: Path) -> Path:
    import h5py

    odim(path, **{"dataset1/data1/what": {"nodata": 0.0, "undetect": 0.0}})
    with h5py.File(path, "a") as file:
        file["dataset1/data1/data"][:] = np.where(np.eye(12) > 0, 255, 0)
    return path


def again(path: Path, quantity: str = "DBZH", **how: Any) -> Path:
    import h5py

    with h5py.File(odim(path), "a") as file:
        file.copy("dataset1", "dataset2")
        file["dataset2/data1/what"].attrs["quantity"] = np.bytes_(quantity)
        for key, value in how.items():
            file.require_group("dataset2/where").attrs[key] = value
    return path


def other(path: Path) -> Path:
    import h5py

    with h5py.File(odim(path), "a") as file:
        file["dataset1/data1/what"].attrs["quantity"] = np.bytes_("QIND")
    return path


def undated(path: Path) -> Path:
    changed(rain(path, 1), lambda file: file.renameVariable("time", "no_time"))
    return changed(path, lambda file: file["no_time"].delncattr("units"))


CASES: dict[str, Callable[[Path], Path]] = {
    "two fields": lambda folder: over(folder / "a.nc"),
    "members": lambda folder: over(folder / "a.nc", ("member", 3)),
    "members and levels": lambda folder: over(folder / "a.nc", ("level", 2), ("member", 3)),
    "two clocks": lambda folder: two_clocks(folder / "a.nc"),
    "impossible values": lambda folder: flags(folder / "a.nc"),
    "several arrays": lambda folder: archive(folder / "a.npz"),
    "axes": lambda folder: axes(folder / "a.npy"),
    "one mark": lambda folder: one_number(folder / "a.h5"),
    "heights": lambda folder: again(folder / "a.h5"),
    "two quantities": lambda folder: again(folder / "a.h5", "RATE"),
    "two grids": lambda folder: again(folder / "a.h5", UR_lon=12.0),
    "another quantity": lambda folder: other(folder / "a.h5"),
    "images": lambda folder: forecast(folder / "a_202406011205.h5", (5, 5)),
    "two times": lambda folder: undated(folder / "rain_202406011200_202406011300.nc"),
    "a local time": lambda folder: undated(folder / "rain_202406011200_CEST.nc"),
}


@pytest.mark.parametrize("choice", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_the_options_that_a_message_names_work(tmp_path: Path, name: str, choice: int) -> None:
    assert follow(CASES[name](tmp_path), choice)


def test_an_option_that_was_wrong_is_put_right(tmp_path: Path) -> None:
    path = over(tmp_path / "a.nc", ("level", 2))
    sky = radolan(tmp_path / "raa01-rw_10000-2406011250-dwd---bin")
    for wrong, file in (
        ({"select": ("level=9",), "variable": "field"}, path),
        ({"select": ("lead=x",)}, sky),
        ({"reader": "netcfd", "select": ("level=1",), "variable": "field"}, path),
    ):
        options = ReadingOptions(**wrong)
        with pytest.raises(UsageError) as refused:
            open_frames(file, options.reader, options.for_readers())
        ((name, text),) = suggested(refused.value.fix)
        mended = ReadingOptions(**{**wrong, name: (text,) if name == "select" else text})
        assert open_frames(file, mended.reader, mended.for_readers()).sizes["time"]
