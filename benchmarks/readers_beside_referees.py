"""Every reader beside an independent one, on real and on made files; writes benchmarks/results/.

    python -m benchmarks.readers_beside_referees --data FOLDER

FOLDER holds real frames (`radar/`, `weather_grid/`, `video/`); without it only made files are read.
A row has the greatest difference of the values, whether the masks and the times are equal, and by
how many pixels the corners differ. `--write` puts the table into docs/data-referees.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import readers_made as made
from stpl_core.files import atomic_file
from stpl_core.reader import NO_ECHO, ReadOptions
from stpl_core.readers.converted import grid_of
from stpl_core.readers.opening import open_frames
from stpl_deploy.cli.reports.output import document_text

HERE = Path(__file__).parent
RESULT = HERE / "results" / "readers.json"
PAGE = HERE.parent / "docs" / "data-referees.md"
BEGIN, END = "<!-- table: benchmarks/readers_beside_referees.py --write -->", "<!-- end -->"

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Truth:
    """What the independent reader found."""

    values: NDArray[Any]
    """`(n, C, H, W)`, NaN where there is no data."""
    corners: Corners | None = None
    times: NDArray[np.datetime64] | None = None
    nothing: float | None = None
    """What stands for no echo, where that is its own choice."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    referee: str
    files: int
    frames: int
    max_difference: float
    masks_equal: bool
    corners_pixels: float | None
    times_equal: bool | None


@dataclass(frozen=True)
class Case:
    """A file, how it is read, and by whom it is read beside."""

    name: str
    referee: str
    path: Path
    truth: Callable[[Path], Truth]
    options: ReadOptions = ReadOptions()  # noqa: RUF009
    reader: str | None = None


def compare(case: Case) -> Row:
    """Read with both."""
    opened = open_frames(case.path, case.reader, case.options)
    ours, state = opened["frames"].values, opened["state"].values
    truth = case.truth(case.path)
    theirs = truth.values[: len(ours)]
    ours = ours[: len(theirs)]
    if truth.nothing is not None:
        nothing = (state[: len(ours)] == NO_ECHO)[:, None] & (theirs == truth.nothing)
        theirs = np.where(nothing, ours, theirs)
    gone = np.isnan(ours), np.isnan(theirs)
    apart = np.abs(ours - theirs.astype(np.float64))
    corners = times = None
    if truth.corners is not None:
        grid = grid_of(opened)
        pixel = np.array([grid.affine[2], abs(grid.affine[3])] * 2)
        corners = float(np.max(np.abs(np.array(grid.corners) - truth.corners) / pixel))
    if truth.times is not None:
        found = opened["time"].values[: len(truth.times)]
        times = bool(np.array_equal(found, truth.times.astype("datetime64[ns]")))
    return Row(
        case.name,
        case.referee,
        len(opened.attrs["files"].splitlines()),
        opened.sizes["time"],
        float(np.nanmax(apart)),
        bool(np.array_equal(*gone)),
        corners,
        times,
    )


def at(*texts: str) -> NDArray[np.datetime64]:
    """Times of ISO 8601."""
    return np.array(texts, "datetime64[ns]")


def by_pysteps(name: str, scale: float = 1.0, nothing: float | None = None, **how: Any) -> Any:
    """A referee of one or more files: an importer of pysteps."""

    def truth(path: Path) -> Truth:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pysteps.io import importers

            files = sorted(file for file in path.rglob("*") if file.is_file()) or [path]
            read = [getattr(importers, name)(str(file), **how) for file in files]
        values = np.stack([np.ma.filled(np.ma.masked_invalid(one[0]), np.nan) for one in read])
        facts = read[0][2]
        corners = tuple(float(facts[key]) * scale for key in ("x1", "y1", "x2", "y2"))
        times = [stamp for file in files if (stamp := _in_name(file)) is not None]
        return Truth(values[:, None], corners, np.array(times) if times else None, nothing)  # type: ignore[arg-type]

    return truth


def _in_name(file: Path) -> np.datetime64 | None:
    """The 12 or 14 digits of a name, without our parser."""
    import re

    found = re.search(r"(20\d{10})(\d\d)?", file.name)
    if found is None:
        return None
    d = found[1]
    return np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:8]}T{d[8:10]}:{d[10:]}:{found[2] or '00'}", "ns")


_ECCODES = """
import sys, numpy, eccodes
values, times = [], []
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            get = lambda key: eccodes.codes_get(message, key)
            values.append(eccodes.codes_get_values(message).reshape(get("Nj"), get("Ni")))
            times.append(f"{get('validityDate')}{get('validityTime'):04}")
            corners = [get("longitudeOfFirstGridPointInDegrees") - get("iDirectionIncrementInDegrees") / 2,
                get("latitudeOfLastGridPointInDegrees") - get("jDirectionIncrementInDegrees") / 2,
                get("longitudeOfLastGridPointInDegrees") + get("iDirectionIncrementInDegrees") / 2,
                get("latitudeOfFirstGridPointInDegrees") + get("jDirectionIncrementInDegrees") / 2]
numpy.savez(sys.argv[1], values=numpy.array(values, "f4"), times=times, corners=corners)
"""  # noqa: E501


def by_eccodes(path: Path) -> Truth:
    """GRIB on latitude and longitude, by eccodes in a process of its own."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        subprocess.run([sys.executable, "-c", _ECCODES, str(out), *map(str, files)], check=True)
        with np.load(out) as found:
            values, corners = found["values"][:, None], found["corners"]
            times = [f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:10]}:{t[10:12]}" for t in found["times"]]
    values = np.where(values < 0, np.nan, values) if "mrms" in str(path) else values
    west = corners[[0, 2]] - 360.0 * (corners[0] > 180)
    place = (float(west[0]), float(corners[1]), float(west[1]), float(corners[3]))
    if place[2] < place[0]:
        place = (place[0], place[1], place[2] + 360.0, place[3])
    return Truth(values, place, at(*times))


def by_gdal(driver: str, scale: float, offset: float, nodata: float | None) -> Any:
    """A raster by rasterio, scaled by a documented formula."""

    def truth(path: Path) -> Truth:
        import rasterio

        file_path = next(path.rglob("*.tif")) if path.is_dir() else path
        with rasterio.open(file_path, driver=driver) as file:
            stored, mask = file.read(1), file.read_masks(1)
            gone = (mask == 0) | (stored == nodata if nodata is not None else False)
            corners = tuple(file.bounds)
        values = np.where(gone, np.nan, stored * scale + offset)
        stamp = _in_name(file_path)
        return Truth(
            values[None, None], corners, None if stamp is None else np.array([stamp]), offset
        )

    return truth


def by_netcdf4(path: Path) -> Truth:
    """CF by netCDF4-python, turned north up."""
    import netCDF4

    with netCDF4.Dataset(path) as file:
        values = np.ma.filled(np.ma.asarray(file["rr"][:], np.float64), np.nan)[:, ::-1]
        lat, lon = file["lat"][:], file["lon"][:] - 360.0
        clock = file["time"]
        dates = netCDF4.num2date(clock[:], clock.units, only_use_cftime_datetimes=False)
    corners = (lon[0] - 0.05, lat[0] - 0.05, lon[-1] + 0.05, lat[-1] + 0.05)
    return Truth(values[:, None], corners, np.array(np.ravel(np.asarray(dates)), "datetime64[ns]"))


def by_opencv(path: Path) -> Truth:
    """The first frames of a film, grey as OpenCV turns them, at the rate of its container."""
    import cv2

    film = cv2.VideoCapture(str(path))
    frames: list[NDArray[Any]] = []
    while len(frames) < 25:
        frames.append(cv2.cvtColor(film.read()[1], cv2.COLOR_BGR2GRAY))
    rate = film.get(cv2.CAP_PROP_FPS)
    times = np.datetime64(0, "ns") + np.round(np.arange(25) / rate * 1e9).astype("m8[ns]")
    return Truth(np.stack(frames)[:, None] / 255.0, None, times)


def by_pillow(mode: str) -> Any:
    """Pictures by Pillow, as a fraction of full scale."""

    def truth(path: Path) -> Truth:
        from PIL import Image

        files = sorted(path.rglob("*.png"))
        stored = [np.asarray(Image.open(file).convert(mode), np.float64) / 255 for file in files]
        values = np.stack(stored)
        values = values[:, None] if values.ndim == 3 else np.moveaxis(values, -1, 1)
        times = [stamp for file in files if (stamp := _in_name(file)) is not None]
        return Truth(values, None, np.array(times) if times else None)

    return truth


def by_formula(values: NDArray[Any], *times: str, corners: Corners | None = None) -> Any:
    """What the numbers are by the description of the format."""
    return lambda path: Truth(values, corners, at(*times) if times else None)


def real_cases(data: Path) -> Iterator[Case]:
    """Every real file."""
    radar = data / "radar"
    yield Case(
        "odim RATE (OPERA Odyssey)", "pysteps", radar / "opera_odyssey_hdf5",
        by_pysteps("import_odim_hdf5", qty="RATE"),
    )  # fmt: skip
    yield Case(
        "odim DBZH (OPERA Cirrus)", "pysteps", radar / "opera_cirrus_hdf5",
        by_pysteps("import_odim_hdf5", nothing=-30.0, qty="DBZH"),
    )  # fmt: skip
    yield Case(
        "knmi", "pysteps", radar / "knmi_hdf5",
        by_pysteps("import_knmi_hdf5", 1000.0, qty="ACRR", accutime=5.0),
    )  # fmt: skip
    yield Case(
        "fmi_pgm", "pysteps", radar / "fmi_pgm",
        by_pysteps("import_fmi_pgm", gzipped=True),
    )  # fmt: skip
    yield Case("geotiff (FMI)", "rasterio", radar / "fmi_geotiff", by_gdal("GTiff", 0.5, -32, 255))
    yield Case("mrms", "eccodes", radar / "mrms_grib2" / "20190610", by_eccodes)
    grib = data / "weather_grid" / "era5-2mt-2019-03-uk.grib"
    yield Case("era5", "eccodes", grib, by_eccodes)
    for film in sorted((data / "video").glob("*.mp4")):
        yield Case(f"video ({film.stem})", "OpenCV", film, by_opencv)


def by_h5py(path: Path) -> Truth:
    """TaxiBJ: half hours of Beijing, 8 hours before UTC, counted from 1."""
    import h5py

    with h5py.File(path) as file:
        values, dates = file["data"][:], [date.decode() for date in file["date"][:]]
    days = at(*[f"{d[:4]}-{d[4:6]}-{d[6:8]}" for d in dates])
    halves = np.array([int(d[8:]) - 1 for d in dates]) * np.timedelta64(30, "m")
    return Truth(values, None, days + halves - np.timedelta64(8, "h"))


def by_xarray(level: int) -> Any:
    """A level of a Zarr store, turned north up."""

    def truth(path: Path) -> Truth:
        import xarray as xr

        with xr.open_zarr(path, consolidated=False) as opened:
            one = opened["rr"].sel(level=level).sortby("lat", ascending=False)
            values, times = one.values.astype(np.float64), opened["time"].values
            lat, lon = one["lat"].values, one["lon"].values - 360.0
        corners = (lon[0] - 0.05, lat[-1] - 0.05, lon[-1] + 0.05, lat[0] + 0.05)
        return Truth(values[:, None], corners, times)

    return truth


def by_opacity(path: Path) -> Truth:
    """A GeoTIFF with GDAL's mask of the dataset, turned north up."""
    import rasterio

    with rasterio.open(path) as file:
        seen, stored = file.dataset_mask() > 0, file.read(1) * file.scales[0]
        left, bottom, right, top = file.bounds
    values = np.where(seen, stored, np.nan)[::-1]
    return Truth(values[None, None], (left, min(bottom, top), right, max(bottom, top)))


def option_cases(folder: Path, field: Path) -> Iterator[Case]:
    """What a user states about a NetCDF file of mm/h."""
    file = "netCDF4-python"

    def changed(change: Callable[[Truth], NDArray[Any]]) -> Callable[[Path], Truth]:
        def truth(path: Path) -> Truth:
            found = by_netcdf4(path)
            return Truth(change(found), found.corners, found.times)

        return truth

    yield Case(
        "netcdf, --units mm/5min", file, field, changed(lambda t: t.values * 12.0),
        ReadOptions(units="mm/5min"),
    )  # fmt: skip
    yield Case(
        "netcdf, --nan no-echo", file, field, changed(lambda t: np.nan_to_num(t.values)),
        ReadOptions(nan="no-echo"),
    )  # fmt: skip
    store = made.levels(folder / "levels.zarr", field)
    yield Case(
        "zarr, --select level=850", "xarray", store, by_xarray(850),
        ReadOptions(select=(("level", "850"),)),
    )  # fmt: skip
    named = made.geotiff(folder / "rain_31.12.2024_2355.tif")
    yield Case(
        "geotiff, --time-format", "rasterio", named,
        lambda path: replace(by_opacity(path), times=at("2024-12-31T23:55")),
        ReadOptions(time_format="%d.%m.%Y_%H%M"),
    )  # fmt: skip
    wild = folder / "wild.npz"
    values = made.rain()
    values[0, 0, :9] = 9999.0
    np.savez(wild, frames=values.transpose(1, 2, 0), units="mm h-1")
    yield Case(
        "arrays, --layout HWT, --bad-pixels", "NumPy", wild,
        by_formula(np.where(values > 2500, np.nan, values)[:, None]),
        ReadOptions(layout="HWT", bad_pixels=0.1),
    )  # fmt: skip


def made_cases(folder: Path) -> Iterator[Case]:
    """One made file of each other reader and option."""
    noon = [f"2024-06-01T12:{5 * n:02}" for n in range(4)]
    dbz = np.where(made.rain()[:3] > 0, 23 + np.arange(3)[:, None, None] / 2, -32.0)[:, None]
    dbz[..., :2] = np.nan
    place = (0.0, -4e6, 1000.0 * made.W, -4e6 + 1000.0 * made.H)
    film = made.odim(folder / "leads.h5")
    yield Case("odim, lead times", "formula", film, by_formula(dbz, *noon[:3], corners=place))
    yield Case(
        "odim, --select dataset=2", "formula", film, by_formula(dbz[1:2], noon[1], corners=place),
        ReadOptions(select=(("dataset", "2"),)),
    )  # fmt: skip
    field = made.netcdf(folder / "rain.nc")
    yield Case("netcdf, packed, south up, 350 E", "netCDF4-python", field, by_netcdf4)
    packed = made.zipped(folder / "rain.zip", field)
    yield Case("netcdf in a .zip", "netCDF4-python", packed, lambda _: by_netcdf4(field))
    yield from option_cases(folder, field)
    yield Case(
        "knmi, reflectivity, plane in km", "pysteps", made.knmi(folder / "RAD_202406011200.h5"),
        by_pysteps("import_knmi_hdf5", 1000.0, qty="DBZH"),
    )  # fmt: skip
    sums = np.floor(made.rain() * 20)[:, None] / 100
    sums[..., :2] = np.nan
    dutch = (0.0, -3.65e6 - 1000.0 * made.H, 1000.0 * made.W, -3.65e6)
    yield Case(
        "knmi, forecast", "KNMI's description", made.knmi(folder / "RAC_202406011200.h5", 4),
        by_formula(sums, *noon, corners=dutch),
    )  # fmt: skip
    tiff = made.geotiff(folder / "rain_202406011200.tif")
    yield Case("geotiff, south up, opacity", "rasterio", tiff, by_opacity)
    flows = made.taxibj(folder / "BJ16_M32x32_T30_InOut.h5")
    yield Case("taxibj", "h5py", flows, by_h5py)
    grib = made.grib(folder / "tp.grib2")
    yield Case("era5, Lambert, tp", "rasterio (GDAL)", grib, by_gdal("GRIB", 1000.0, 0.0, None))
    hour = np.zeros((900, 900))
    hour[10:20, 30:40], hour[30:40, 50:60], hour[:, :5] = 12.3, 4.5, np.nan
    west, south = -523462.16691, -4658644.72426
    yield Case(
        "radolan", "DWD's description",
        made.radolan(folder / "raa01-rw_10000-2406011250-dwd---bin"),
        by_formula(
            hour[::-1][None, None], "2024-06-01T12:50",
            corners=(west, south, west + 9e5, south + 9e5),
        ),
    )  # fmt: skip
    yield Case(
        "mch_gif", "pysteps", made.swiss(folder / "AQC241531200F_00005.801.gif"),
        by_pysteps("import_mch_gif", product="AQC", unit="mm", accutime=5.0),
    )  # fmt: skip
    data = np.round(made.rain() * 8).astype(float)[:, None] / 100
    data[:, :, 0] = np.nan
    yield Case(
        "meteonet", "MeteoNet's description",
        made.meteonet(folder / "rainfall_NW_2024_06.1.npz"), by_formula(data, *noon),
    )  # fmt: skip
    grey, colours = (made.pictures(folder / name, name == "rgb") for name in ("grey", "rgb"))
    yield Case("pictures, grey", "Pillow", grey, by_pillow("L"))
    rgb = by_pillow("RGB")
    yield Case("pictures, rgb", "Pillow", colours, rgb, ReadOptions(variable="rgb"))
    yield Case(
        "pictures, mean", "Pillow", colours,
        lambda path: Truth(rgb(path).values.mean(axis=1, keepdims=True)),
        ReadOptions(variable="mean"),
    )  # fmt: skip
    yield Case("kth", "Pillow", made.kth(folder / "kth"), by_pillow("L"))
    array = folder / "frames.npy"
    np.save(array, made.rain())
    yield Case("arrays", "NumPy", array, by_formula(made.rain()[:, None]))
    digits = folder / "mnist_test_seq.npy"
    stored = np.random.default_rng(0).integers(0, 255, (20, 3, 64, 64), np.uint8)
    np.save(digits, stored)
    moving = np.moveaxis(stored, 1, 0).reshape(-1, 1, 64, 64) / 255
    yield Case("moving_mnist", "NumPy", digits, by_formula(moving))


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| reader | beside | files, frames | max. difference | masks | corners, pixels | times |",
        "|---|---|---|---|---|---|---|",
    ]
    words = {True: "equal", False: "DIFFER", None: "-"}
    for row in rows:
        corners = "-" if row["corners_pixels"] is None else f"{row['corners_pixels']:.1g}"
        lines.append(
            f"| {row['case']} | {row['referee']} | {row['files']}, {row['frames']} | "
            f"{row['max_difference']:.1g} | {words[row['masks_equal']]} | {corners} | "
            f"{words[row['times_equal']]} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read everything, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of real frames")
    parser.add_argument("--write", action="store_true", help="only write the table of the result")
    given = parser.parse_args()
    if not given.write:
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            cases = [*(real_cases(given.data) if given.data else ()), *made_cases(Path(folder))]
            for case in cases:
                rows.append(asdict(compare(case)))
                print(json.dumps(rows[-1]), file=sys.stderr)
        with atomic_file(RESULT) as file:
            file.write(document_text({"rows": rows}).encode())
    found = json.loads(RESULT.read_text())["rows"]
    text = PAGE.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    with atomic_file(PAGE) as file:
        file.write(f"{text[:begin]}\n\n{table(found)}\n\n{text[end:]}".encode())


if __name__ == "__main__":
    main()
