"""KNMI's files beyond the one image in kilometres: forecasts, and planes that state their unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
pytest.importorskip("xarray")
pyproj = pytest.importorskip("pyproj")

from stpl_core.errors import FrameError, UsageError  # noqa: E402
from stpl_core.reader import NO_DATA, NO_ECHO, ReadOptions  # noqa: E402
from stpl_core.readers import knmi as reader  # noqa: E402
from stpl_core.readers.converted import quantity_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from tests.core.readers.test_composites import POLAR, knmi, numbers  # noqa: E402

IN_KM = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752 +x_0=0 +y_0=0 +units=km"


def forecast(path: Path, minutes: tuple[int, ...]) -> Path:
    """As of the data set radar_forecast: one image of a sum for each time."""
    knmi(path, "GEO = 0.010000 * PV + 0.000000")
    with h5py.File(path, "a") as file:
        file["geographic/map_projection"].attrs["projection_proj4_params"] = np.bytes_(IN_KM)
        del file["image1"]
        for n, minute in enumerate(minutes, 1):
            image = file.create_group(f"image{n}")
            stored = numbers().astype(np.uint16)
            stored[4:8, 4:8] += n
            stored[:, :2], stored[:, 2] = 65535, 65534
            image["image_data"] = stored
            image.attrs["image_geo_parameter"] = np.bytes_("PRECIP_[MM]")
            valid = f"01-JUN-2024;12:{minute:02}:00.000"
            image.attrs["image_datetime_valid"] = np.bytes_(valid)
            calibration = image.create_group("calibration").attrs
            calibration["calibration_formulas"] = np.bytes_("GEO=0.010000*PV+0.000000")
            calibration["calibration_missing_data"] = np.array([65534])
            calibration["calibration_out_of_image"] = np.array([65535])
        file["overview"].attrs["product_datetime_end"] = np.bytes_("01-JUN-2024;14:05:00.000")
    return path


def test_a_forecast_is_one_frame_for_each_image(tmp_path: Path) -> None:
    opened = open_frames(forecast(tmp_path / "RAD_NL25_RAC_FM_202406011205.h5", (5, 10, 15)))
    times = [str(time)[11:16] for time in opened["time"].values]
    assert times == ["12:05", "12:10", "12:15"]
    np.testing.assert_allclose(opened["frames"].values[:, 0, 5, 5], [1.11, 1.12, 1.13], rtol=1e-6)
    assert quantity_of(opened).accumulation_s == 300
    state = opened["state"].values
    assert (state[:, :, :3] == NO_DATA).all()
    assert (state[:, 0, 3:] == NO_ECHO).all()


def test_one_image_is_chosen(tmp_path: Path) -> None:
    path = forecast(tmp_path / "RAD_NL25_RAC_FM_202406011205.h5", (5, 10, 15))
    (piece,) = reader.read(path, ReadOptions(select=(("image", "3"),)))
    assert piece.time is not None
    assert str(piece.time[0])[11:16] == "12:15"
    assert piece.quantity.accumulation_s == 300
    with pytest.raises(UsageError, match="image1, image2, image3") as refused:
        list(reader.read(path, ReadOptions(select=(("level", "3"),))))
    assert "--select image=1" in str(refused.value)


def test_factors_beside_the_rain_are_passed_over(tmp_path: Path) -> None:
    path = forecast(tmp_path / "RAD_NL25_RAC_202406011205.h5", (5, 5))
    with h5py.File(path, "a") as file:
        file["image2"].attrs["image_geo_parameter"] = np.bytes_("ADJUSTMENT_FACTOR_[DB]")
    (piece,) = reader.read(path, ReadOptions())
    assert len(piece.frames) == 1
    assert piece.frames[0, 0, 5, 5] == pytest.approx(1.11)


def test_images_of_one_time_are_asked_for(tmp_path: Path) -> None:
    path = forecast(tmp_path / "RAD_NL25_RAC_FM_202406011205.h5", (5, 5))
    with pytest.raises(FrameError, match="2 images at one time") as refused:
        list(reader.read(path, ReadOptions()))
    assert "--select image=1" in str(refused.value)
    (piece,) = reader.read(path, ReadOptions(select=(("image", "1"),)))
    assert len(piece.frames) == 1


@pytest.mark.parametrize(
    "plane", [POLAR, IN_KM, IN_KM.replace("units=km", "units=m"), IN_KM.removesuffix(" +units=km")]
)
def test_every_way_to_write_the_plane_is_one_place(tmp_path: Path, plane: str) -> None:
    """Amsterdam West lies in row 398 and column 343 of the Dutch grid."""
    path = knmi(tmp_path / "a_202406011205.h5", "GEO=0.5*PV-32.0")
    with h5py.File(path, "a") as file:
        file["geographic/map_projection"].attrs["projection_proj4_params"] = np.bytes_(plane)
        # As in the files: the rows count down, and the first edge is 3650 pixels of -1 km.
        file["geographic"].attrs["geo_row_offset"] = np.array([3650.0])
    (piece,) = reader.read(path, ReadOptions())
    grid = piece.grid
    crs = pyproj.CRS(grid.crs_wkt)
    assert crs.axis_info[0].unit_name == "metre"
    x, y = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True).transform(4.85, 52.37)
    assert int((x - grid.affine[0]) / grid.affine[2]) == 343
    assert int((y - grid.affine[1]) / grid.affine[3]) == 398
