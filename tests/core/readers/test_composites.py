"""Composites of KNMI and ODIM as agencies write them, made here; values worked out by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
pytest.importorskip("xarray")
pyproj = pytest.importorskip("pyproj")

from stpl_core.errors import FrameError, UsageError  # noqa: E402
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, ReadOptions  # noqa: E402
from stpl_core.readers.converted import quantity_of  # noqa: E402
from stpl_core.readers.in_units import in_units  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402

SIZE = 12
POLAR = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378.137 +b=6356.752 +x_0=0 y_0=0"
ODIM_PLANE = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6370040 +b=6370040 +units=m"


def numbers() -> np.ndarray:
    """110 in a block, 255 beyond the image, 0 elsewhere."""
    made = np.zeros((SIZE, SIZE), np.uint8)
    made[4:8, 4:8], made[:, :2] = 110, 255
    return made


def knmi(path: Path, formula: str, missing: int = 0, outside: int = 255) -> Path:
    with h5py.File(path, "w") as file:
        image = file.create_group("image1")
        image["image_data"] = numbers()
        image.attrs["image_geo_parameter"] = np.bytes_("REFLECTIVITY_[DBZ]")
        calibration = image.create_group("calibration")
        file["image1/calibration"].attrs["calibration_formulas"] = np.bytes_(formula)
        calibration.attrs["calibration_missing_data"] = np.array([missing])
        calibration.attrs["calibration_out_of_image"] = np.array([outside])
        overview = file.create_group("overview")
        for edge in ("start", "end"):
            overview.attrs[f"product_datetime_{edge}"] = np.bytes_("01-JUN-2024;12:05:00.000")
        where = file.create_group("geographic")
        where.attrs.update(
            geo_pixel_size_x=np.array([1.0]),
            geo_pixel_size_y=np.array([-1.0]),
            geo_column_offset=np.array([0.0]),
            geo_row_offset=np.array([3650.0]),
            geo_number_columns=np.array([SIZE]),
            geo_number_rows=np.array([SIZE]),
            geo_dim_pixel=np.bytes_("KM,KM"),
        )
        plane = where.create_group("map_projection")
        plane.attrs["projection_proj4_params"] = np.bytes_(POLAR)
    return path


@pytest.mark.parametrize(
    "formula",
    [
        "GEO = 0.500000 * PV + -32.000000",
        "GEO=0.5*PV-32.0",
        "GEO=5e-1*PV+-3.2e1",
        "GEO=.5*PV - 32.",
    ],
)
def test_knmi_reflectivity_as_pysteps(tmp_path: Path, formula: str) -> None:
    path = knmi(tmp_path / "RAD_NL25_PCP_NA_202406011205.h5", formula)
    dataset = open_frames(path)
    frame, state = dataset["frames"].values[0, 0], dataset["state"].values[0]
    assert frame[5, 5] == 23
    assert frame[0, 5] == -32
    assert (state[5, 5], state[0, 5], state[0, 0]) == (VALUE, NO_ECHO, NO_DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importers = pytest.importorskip("pysteps.io.importers")
        theirs, _, _ = importers.import_knmi_hdf5(str(path), qty="DBZH")
    np.testing.assert_allclose(frame, np.ma.filled(theirs, np.nan), rtol=1e-6)


@pytest.mark.parametrize(
    "formula",
    [
        "GEO = 0.5 * PV + offset",
        "GEO = 0.5 * PV + -32.0 / 2",
        "GEO = 0.5 * PV * PV",
        "GEO = 10^(0.5*PV)",
        "GEO = 0.5 * PV + 3-2",
        "",
    ],
)
def test_knmi_formula_that_is_not_understood_is_quoted(tmp_path: Path, formula: str) -> None:
    path = knmi(tmp_path / "a_202406011205.h5", formula)
    with pytest.raises(FrameError) as refused:
        open_frames(path)
    assert repr(formula) in str(refused.value)


def odim(path: Path, **facts: Any) -> Path:
    """A composite; `facts` are attributes by the path of their group, such as `dataset1/how`."""
    to_degrees = pyproj.Transformer.from_crs(
        pyproj.CRS(ODIM_PLANE).geodetic_crs, ODIM_PLANE, always_xy=True
    )
    what = {"quantity": "DBZH", "gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 0.0}
    groups: dict[str, dict[str, Any]] = {
        "what": {"object": "COMP", "date": "20240601", "time": "120500"},
        "where": {"projdef": ODIM_PLANE, "xscale": 1000.0, "yscale": 1000.0},
        "dataset1/what": {"product": "COMP"},
        "dataset1/data1/what": what,
    }
    for corner, (x, y) in {"LL": (0, 0), "UR": (1, 1)}.items():
        lon, lat = to_degrees.transform(
            1000.0 * SIZE * x, -4e6 + 1000.0 * SIZE * y, direction="INVERSE"
        )
        groups["where"] |= {f"{corner}_lon": lon, f"{corner}_lat": lat}
    for group, attributes in facts.items():
        groups[group] = groups.get(group, {}) | attributes
    with h5py.File(path, "w") as file:
        for group, attributes in groups.items():
            for key, value in attributes.items():
                text = np.bytes_(value) if isinstance(value, str) else value
                file.require_group(group).attrs[key] = text
        file["dataset1/data1/data"] = numbers()
    return path


@pytest.mark.parametrize("level", ["how", "dataset1/how", "dataset1/data1/how"])
def test_odim_relation_holds_from_wherever_it_stands(tmp_path: Path, level: str) -> None:
    """35 dBZ are 4.644 mm/h by Z = 316 R^1.5, as wradlib's z_to_r gives."""
    made = odim(
        tmp_path / "c.h5",
        **{
            level: {"zr_a": 316.0, "zr_b": 1.5},
            "dataset1/data1/what": {"gain": 35 / 110, "offset": 0.0},
        },
    )
    dataset = open_frames(made)
    rate = in_units(
        dataset["frames"].values, dataset["state"].values, quantity_of(dataset), "mm h-1"
    )
    assert rate[0, 0, 5, 5] == pytest.approx((10**3.5 / 316) ** (1 / 1.5), rel=1e-5)


def test_odim_inner_level_goes_before_the_outer(tmp_path: Path) -> None:
    made = odim(
        tmp_path / "c.h5",
        **{
            "how": {"zr_a": 200.0, "zr_b": 1.6},
            "dataset1/data1/how": {"zr_a": 316.0},
        },
    )
    assert quantity_of(open_frames(made)).zr == (316.0, 1.6)


@pytest.mark.parametrize(
    ("group", "attributes", "quoted"),
    [
        ("what", {"time": "noon"}, "'noon'"),
        ("what", {"date": "2024-06-01"}, "'2024-06-01'"),
        ("dataset1/data1/what", {"gain": "half"}, "gain 'half'"),
        ("dataset1/data1/what", {"nodata": "none"}, "nodata 'none'"),
        ("how", {"zr_a": 0.0, "zr_b": 1.6}, "zr_a 0.0"),
        ("where", {"projdef": "+proj=nowhere"}, "proj=nowhere"),
    ],
)
def test_odim_what_is_not_understood_is_quoted(
    tmp_path: Path, group: str, attributes: dict[str, Any], quoted: str
) -> None:
    with pytest.raises(FrameError) as refused:
        open_frames(odim(tmp_path / "c.h5", **{group: attributes}))
    assert quoted in str(refused.value)
    assert "truncated" not in str(refused.value)


def test_odim_other_reflectivities_and_german_names(tmp_path: Path) -> None:
    named = {"dataset1/data1/what": {"quantity": "DBZHC"}}
    dataset = open_frames(odim(tmp_path / "composite_hx_20240601_1205-hd5", **named))
    assert dataset["frames"].attrs["units"] == "dBZ"
    assert dataset["frames"].values[0, 0, 5, 5] == 23
    other = odim(tmp_path / "q.h5", **{"dataset1/data1/what": {"quantity": "QIND"}})
    with pytest.raises(FrameError, match="--variable QIND"):
        open_frames(other)
    chosen = open_frames(other, options=ReadOptions(variable="QIND"))  # what it says works
    assert chosen["frames"].attrs["units"] == "1"


def test_options_that_a_composite_leaves_no_room_for(tmp_path: Path) -> None:
    path = odim(tmp_path / "c.h5")
    for options in (ReadOptions(units="mm/h"), ReadOptions(nan="no-echo")):
        with pytest.raises(UsageError, match="odim states units and no echo itself"):
            open_frames(path, options=options)
    renamed = odim(tmp_path / "at_0730_of_240601.h5")
    stated = open_frames(renamed, options=ReadOptions(time_format="%H%M_of_%y%m%d"))
    assert str(stated["time"].values[0]).startswith("2024-06-01T07:30:00")


def several(path: Path, *kinds: dict[str, Any], root: dict[str, Any] | None = None) -> Path:
    """A composite with a dataset for each of `kinds`: attributes of its `what`."""
    odim(path, **{"what": root or {}})
    with h5py.File(path, "r+") as file:
        for n, kind in enumerate(kinds, 1):
            if n > 1:
                file.copy("dataset1", f"dataset{n}")
            group = file[f"dataset{n}"]
            stored = group["data1/data"][...]
            stored[5, 5] = 110 + n
            group["data1/data"][...] = stored
            for key, value in kind.items():
                holder = group["data1/what"] if key == "quantity" else group["what"]
                holder.attrs[key] = np.bytes_(value) if isinstance(value, str) else value
    return path


def at(start: str, end: str) -> dict[str, str]:
    return {
        "startdate": "20240601", "starttime": start, "enddate": "20240601", "endtime": end,
    }  # fmt: skip


def test_odim_lead_times_are_frames(tmp_path: Path) -> None:
    """Twelve of them, so that dataset10 does not come before dataset2."""
    leads = [at(f"12{5 * n:02}00", f"12{5 * n:02}00") for n in range(12)]
    path = several(tmp_path / "c.h5", *leads, root={"time": "120000"})
    opened = open_frames(path)
    assert opened["frames"].values[:, 0, 5, 5].tolist() == [23.5 + 0.5 * n for n in range(12)]
    assert str(opened["time"].values[-1]).startswith("2024-06-01T12:55:00")
    one = open_frames(path, options=ReadOptions(select=(("dataset", "3"),)))
    assert str(one["time"].values[0]).startswith("2024-06-01T12:10:00")
    assert one["frames"].values[0, 0, 5, 5] == 24.5


def test_odim_datasets_of_one_time_are_asked_for(tmp_path: Path) -> None:
    heights = [{"product": "CAPPI", "prodpar": 500.0 * n} for n in (1, 2, 3)]
    path = several(tmp_path / "c.h5", *heights)
    with pytest.raises(FrameError) as refused:
        open_frames(path)
    assert "3 datasets of DBZH at one time: 1 (prodpar 500.0), 2 (prodpar 1000.0)" in str(
        refused.value
    )
    assert "--select dataset=1, or --select dataset=1,2,3" in str(refused.value)
    one = open_frames(path, options=ReadOptions(select=(("dataset", "2"),)))
    assert one["frames"].values[0, 0, 5, 5] == 24
    both = open_frames(path, options=ReadOptions(select=(("dataset", "1,2"),)))
    assert both["frames"].values[0, :, 5, 5].tolist() == [23.5, 24.0]
    assert both.attrs["channels"] == "dataset1\ndataset2"
    with pytest.raises(UsageError, match="--select dataset=1"):
        open_frames(path, options=ReadOptions(select=(("dataset", "7"),)))
    with pytest.raises(UsageError, match="--select dataset=1"):
        open_frames(path, options=ReadOptions(select=(("height", "500"),)))


def test_odim_rain_of_two_kinds_is_asked_for_and_corrected_echo_is_not(tmp_path: Path) -> None:
    path = several(tmp_path / "c.h5", {"quantity": "DBZH"}, {"quantity": "RATE"})
    with pytest.raises(FrameError, match=r"quantities DBZH, RATE; .*--variable RATE"):
        open_frames(path)
    assert open_frames(path, options=ReadOptions(variable="DBZH")).attrs["files"]
    usual = several(tmp_path / "d.h5", *({"quantity": name} for name in ("TH", "DBZH", "QIND")))
    assert open_frames(usual)["frames"].values[0, 0, 5, 5] == 24


def test_odim_sums_stand_at_their_end_and_forecasts_at_their_time(tmp_path: Path) -> None:
    hour = several(tmp_path / "a.h5", {"quantity": "ACRR", **at("120500", "130500")})
    opened = open_frames(hour)
    assert str(opened["time"].values[0]).startswith("2024-06-01T13:05:00")
    assert opened.attrs["accumulation_s"] == 3600
    late = several(tmp_path / "b.h5", at("123500", "123500"))
    assert str(open_frames(late)["time"].values[0]).startswith("2024-06-01T12:35:00")


def test_odim_one_number_for_no_data_and_no_echo_is_never_a_value(tmp_path: Path) -> None:
    """And 255, which nothing explains any more, is not 95 dBZ."""
    facts = {"dataset1/data1/what": {"nodata": 0.0, "undetect": 0.0}}
    path = odim(tmp_path / "c.h5", **facts)
    with pytest.raises(FrameError, match=r"both 0.0, and 16.7%.* 255, .*--bad-pixels 0.17"):
        open_frames(path)
    opened = open_frames(path, options=ReadOptions(bad_pixels=0.17))
    state = opened["state"].values[0]
    assert (state[0, 5], state[5, 5], state[0, 0]) == (NO_DATA, VALUE, NO_DATA)
    stated = open_frames(path, options=ReadOptions(bad_pixels=0.17, nan="no-echo"))
    assert stated["state"].values[0, 0, 5] == NO_ECHO


def test_odim_undetect_that_is_no_number_is_no_echo(tmp_path: Path) -> None:
    path = odim(tmp_path / "c.h5", **{"dataset1/data1/what": {"undetect": np.nan, "gain": 1.0}})
    with h5py.File(path, "r+") as file:
        stored = numbers().astype(np.float32)
        stored[stored == 0] = np.nan
        del file["dataset1/data1/data"]
        file["dataset1/data1/data"] = stored
    state = open_frames(path)["state"].values[0]
    assert (state[0, 5], state[5, 5], state[0, 0]) == (NO_ECHO, VALUE, NO_DATA)
