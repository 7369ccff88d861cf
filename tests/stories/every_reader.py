"""A small archive for each reader: frames in one row of times, with no echo and no data if it can.

Each maker writes into an empty folder and says what a model of these frames is like.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_core.codec import FrameCodec

COUNT, HEIGHT, WIDTH = 8, 12, 16
RAIN = FrameCodec(
    quantity="rain rate", units="mm h-1", low=0.0, high=60.0, kind="db", clip=True, no_data=0.3
)
ECHO = FrameCodec(
    quantity="reflectivity", units="dBZ", low=0.0, high=60.0, clip=True, no_rain=-32.0, no_data=5.0
)
GREY = FrameCodec()
LAEA = "+proj=laea +lat_0=55 +lon_0=10 +ellps=WGS84 +units=m"


@dataclass(frozen=True)
class Archive:
    """What a maker wrote."""

    path: Path
    codec: FrameCodec
    frame: tuple[int, int, int]
    """(C, H, W) of a model of half the resolution."""
    count: int = COUNT
    crop: tuple[int, int, int, int] | None = None


def levels(*shape: int) -> np.ndarray:
    """Bytes: a sixth no echo (0), a sixth no data (255)."""
    random = np.random.default_rng(7)
    values = random.integers(1, 200, shape).astype(np.uint8)
    kind = random.integers(0, 6, shape)
    kind[..., :4, :4] = 0  # whole blocks too, which an area mean keeps
    kind[..., -4:, -4:] = 5
    values[kind == 0], values[kind == 5] = 0, 255
    return values


def stamp(n: int) -> str:
    """The time in a file's name."""
    return f"20240601{12 + n // 12:02}{n % 12 * 5:02}"


def times(count: int = COUNT) -> np.ndarray:
    """Every five minutes."""
    return np.datetime64("2024-06-01T12:00", "ns") + np.arange(count) * np.timedelta64(300, "s")


def half(codec: FrameCodec, path: Path, channels: int = 1) -> Archive:
    """A model of frames half as wide and high."""
    return Archive(path, codec, (channels, HEIGHT // 2, WIDTH // 2))


def odim(folder: Path) -> Archive:
    """DBZH with gain and offset, for a model of rain rates."""
    h5py = pytest.importorskip("h5py")
    for n, stored in enumerate(levels(COUNT, HEIGHT, WIDTH)):
        with h5py.File(folder / f"a{n}.h5", "w") as file:
            file.attrs["Conventions"] = "ODIM_H5/V2_3"
            what = {"object": "COMP", "date": stamp(n)[:8], "time": f"{stamp(n)[8:]}00"}
            file.create_group("what").attrs.update(what)
            corners = {"LL_lon": 9.9, "LL_lat": 54.9, "UR_lon": 10.1, "UR_lat": 55.1}
            file.create_group("where").attrs.update({"projdef": LAEA, **corners})
            group = file.create_group("dataset1/data1")
            group["data"] = stored
            group.create_group("what").attrs.update(
                {"quantity": "DBZH", "gain": 0.3, "offset": -10.0, "nodata": 255.0, "undetect": 0.0}
            )
    return half(RAIN, folder)


def knmi(folder: Path) -> Archive:
    """Amounts of five minutes, for a model of rain rates."""
    h5py = pytest.importorskip("h5py")
    for n, stored in enumerate(levels(COUNT, HEIGHT, WIDTH)):
        with h5py.File(folder / f"a{n}.h5", "w") as file:
            group = file.create_group("image1")
            group["image_data"] = stored.astype(np.uint16)
            group.attrs["image_geo_parameter"] = "INTERNAL_[MM]"
            group.create_group("calibration").attrs.update(
                {
                    "calibration_formulas": "GEO=0.01*PV+0.0",
                    "calibration_missing_data": 255,
                    "calibration_out_of_image": 255,
                }
            )
            clock = np.datetime_as_string(times()[n] - np.timedelta64(5, "m"), unit="s")[11:]
            file.create_group("overview").attrs.update(
                {
                    "product_datetime_start": f"01-JUN-2024;{clock}.000",
                    "product_datetime_end": f"01-JUN-2024;{stamp(n)[8:10]}:{stamp(n)[10:]}:00.000",
                }
            )
            where = file.create_group("geographic")
            where.attrs.update(
                {
                    "geo_pixel_size_x": 1.0, "geo_pixel_size_y": -1.0, "geo_dim_pixel": "KM,KM",
                    "geo_column_offset": 0.0, "geo_row_offset": 3650.0,
                }
            )  # fmt: skip
            where.create_group("map_projection").attrs["projection_proj4_params"] = (
                "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378.14 +b=6356.75 +x_0=0 y_0=0"
            )
    return half(RAIN, folder)


def fmi_pgm(folder: Path) -> Archive:
    """Reflectivity as it is."""
    for n, stored in enumerate(levels(COUNT, HEIGHT, WIDTH)):
        header = f"P5\n# obstime {stamp(n)}\n# param CorrectedReflectivity\n# type stereographic\n"
        header += "# centrallongitude 25\n# centrallatitude 90\n# truelatitude 60\n"
        header += "# bottomleft 18.600000 57.930000\n# topright 34.903000 69.005000\n"
        header += f"{WIDTH} {HEIGHT}\n255\n"
        (folder / f"{stamp(n)}.pgm").write_bytes(header.encode() + stored.tobytes())
    return half(ECHO, folder)


def geotiff(folder: Path) -> Archive:
    """Two bands, of which one alone may lack a pixel; cropped, then averaged."""
    rasterio = pytest.importorskip("rasterio")
    profile = {
        "driver": "GTiff", "count": 2, "height": HEIGHT, "width": WIDTH, "dtype": "uint8",
        "nodata": 255, "crs": "EPSG:3067", "transform": rasterio.Affine(250, 0, 0, 0, -250, 9000),
    }  # fmt: skip
    for n, stored in enumerate(levels(COUNT, 2, HEIGHT, WIDTH)):
        with rasterio.open(folder / f"a_{stamp(n)}.tif", "w", **profile) as file:
            file.write(stored)
            file.scales, file.offsets, file.units = (0.2, 0.2), (1.0, 1.0), ("K", "K")
    codec = FrameCodec(quantity="temperature", units="K", low=0.0, high=60.0, no_data=30.0)
    return Archive(folder, codec, (2, 5, 6), crop=(1, 2, 10, 12))


_GRIB = """
import sys
import eccodes, numpy
path, name = sys.argv[1], sys.argv[2]
stored = numpy.load(sys.argv[3])
with open(path, "wb") as file:
    for n, values in enumerate(stored):
        message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
        height, width = values.shape
        keys = {"Ni": width, "Nj": height, "latitudeOfFirstGridPointInDegrees": 55.0,
                "latitudeOfLastGridPointInDegrees": 55.0 - 0.1 * (height - 1),
                "longitudeOfFirstGridPointInDegrees": 10.0,
                "longitudeOfLastGridPointInDegrees": 10.0 + 0.1 * (width - 1),
                "iDirectionIncrementInDegrees": 0.1, "jDirectionIncrementInDegrees": 0.1,
                "dataDate": 20240601, "dataTime": 1200, "stepUnits": "m", "endStep": 5 * n,
                "parameterCategory": 6 if name == "mrms" else 0,
                "parameterNumber": 1 if name == "mrms" else 0, "bitsPerValue": 24}
        for key, value in keys.items():
            eccodes.codes_set(message, key, value)
        eccodes.codes_set_values(message, values.astype(float).ravel())
        content = bytearray(eccodes.codes_get_message(message))
        if name == "mrms":
            content[6] = 209  # the discipline, of which the samples know nothing
        file.write(content)
"""


def _grib(folder: Path, name: str, values: np.ndarray) -> Path:
    """Written in another process: eccodes and pyproj do not go together in one."""
    import importlib.util

    if importlib.util.find_spec("eccodes") is None:
        pytest.skip("eccodes is not installed")
    data = folder / "data"
    data.mkdir()
    np.save(folder / "stored.npy", values)
    command = [sys.executable, "-c", _GRIB, data / f"{name}.grib2", name, folder / "stored.npy"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return data


def mrms(folder: Path) -> Archive:
    """Rain rates: 0 is no echo, -3 no data; for a model of reflectivity."""
    stored = levels(COUNT, HEIGHT, WIDTH).astype(np.float32) / 4
    stored[stored > 60] = -3
    return half(ECHO, _grib(folder, "mrms", stored))


def era5(folder: Path) -> Archive:
    """Temperature, every pixel of it."""
    codec = FrameCodec(quantity="temperature", units="K", low=200.0, high=500.0)
    return half(codec, _grib(folder, "era5", 220.0 + levels(COUNT, HEIGHT, WIDTH)))


def netcdf(folder: Path) -> Archive:
    """Packed rain rates with a fill value."""
    pytest.importorskip("netCDF4")
    import xarray as xr

    rates = levels(COUNT, HEIGHT, WIDTH).astype(np.float32) / 5
    rain = xr.DataArray(
        np.where(rates == 51, np.nan, rates),
        dims=("time", "y", "x"),
        coords={
            "time": times(),
            "y": 1000.0 * np.arange(HEIGHT)[::-1],
            "x": np.arange(WIDTH) * 1e3,
        },
        attrs={"units": "mm h-1", "standard_name": "rainfall_rate"},
    )
    rain.to_dataset(name="rain").to_netcdf(folder / "a.nc", engine="netcdf4")
    return half(RAIN, folder / "a.nc")


def zarr(folder: Path) -> Archive:
    """What `data convert` made of reflectivity."""
    pytest.importorskip("zarr")
    from stpl_core.readers.store import convert

    (folder / "fmi").mkdir()
    convert(fmi_pgm(folder / "fmi").path, folder / "a.zarr")
    return half(ECHO, folder / "a.zarr")


def taxibj(folder: Path) -> Archive:
    """A day of counts in two channels."""
    h5py = pytest.importorskip("h5py")
    path = folder / "BJ13_M32x32_T30_InOut.h5"
    with h5py.File(path, "w") as file:
        file["data"] = levels(48, 2, 32, 32).astype(np.float64)
        file["date"] = np.array([f"20130701{slot:02}".encode() for slot in range(1, 49)])
    codec = FrameCodec(quantity="flow", units="count", low=0.0, high=255.0)
    return Archive(path, codec, (2, 16, 16), 48)


def kth(folder: Path) -> Archive:
    """One clip."""
    clip = folder / "boxing" / "person16_boxing_d1_uncomp"
    clip.mkdir(parents=True)
    for n, stored in enumerate(levels(COUNT, HEIGHT, WIDTH)):
        Image.fromarray(stored).save(clip / f"image_{n + 1:04}.png")
    return half(GREY, folder)


def moving_mnist(folder: Path) -> Archive:
    """The test file with one sequence."""
    np.save(folder / "mnist_test_seq.npy", levels(20, 1, 64, 64))
    return Archive(folder / "mnist_test_seq.npy", GREY, (1, 32, 32), 20)


def video(folder: Path) -> Archive:
    """Lossless grey pictures."""
    av = pytest.importorskip("av")
    with av.open(str(folder / "a.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for stored in levels(COUNT, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="gray")))
        container.mux(stream.encode())
    return Archive(folder / "a.avi", GREY, (1, 24, 32))


def arrays(folder: Path) -> Archive:
    """Rates with NaN where nothing was observed."""
    frames = levels(COUNT, 1, HEIGHT, WIDTH).astype(np.float32) / 5
    frames[frames == 51] = np.nan
    np.savez(folder / "a.npz", frames=frames, time=times(), units="mm/h")
    return half(RAIN, folder / "a.npz")


def pictures(folder: Path) -> Archive:
    """Dated pictures."""
    for n, stored in enumerate(levels(COUNT, HEIGHT, WIDTH)):
        Image.fromarray(stored).save(folder / f"sat_{stamp(n)}.png")
    return half(GREY, folder)


def corner(codec: FrameCodec, path: Path) -> Archive:
    """A model of the north-western corner of a large grid, half as wide and high."""
    return Archive(path, codec, (1, HEIGHT // 2, WIDTH // 2), crop=(0, 0, HEIGHT, WIDTH))


def radolan(folder: Path) -> Archive:
    """Amounts of five minutes (RY), rows from the south, for a model of rain rates."""
    for n, numbers in enumerate(levels(COUNT, HEIGHT, WIDTH)):
        stored = np.zeros((900, 900), "<u2")
        words = np.where(numbers == 255, 2500 | 0x2000, numbers)
        stored[-HEIGHT:, :WIDTH] = words[::-1]
        tail = "VS 3SW  P20001HPR E-02INT   5GP 900x 900VV 000MF 00000001MS  5<boo>"
        head = f"RY01{stamp(n)[8:]}100000624BY"
        length = len(head) + 7 + len(tail) + 1 + stored.nbytes
        path = folder / f"raa01-ry_10000-{stamp(n)[2:]}-dwd---bin"
        path.write_bytes(f"{head}{length:7d}{tail}".encode() + b"\x03" + stored.tobytes())
    return corner(RAIN, folder)


def mch_gif(folder: Path) -> Archive:
    """Amounts of five minutes by number (AQC), for a model of rain rates."""
    for n, numbers in enumerate(levels(COUNT, HEIGHT, WIDTH)):
        stored = np.zeros((640, 710), np.uint8)
        stored[:HEIGHT, :WIDTH] = numbers
        image = Image.fromarray(stored).convert("P")
        image.putdata(stored.ravel().tolist())
        image.save(folder / f"AQC24153{stamp(n)[8:]}F_00005.801.gif")
    return corner(RAIN, folder)


def meteonet(folder: Path) -> Archive:
    """Hundredths of a millimetre in five minutes, for a model of rain rates."""
    path = folder / "rainfall_NW_2024_06.1.npz"
    data = levels(COUNT, HEIGHT, WIDTH).astype(np.int16)
    data[data == 255] = -1
    dates = np.array([time.item() for time in times().astype("M8[us]")], object)
    np.savez(path, data=data, dates=dates, miss_dates=np.array([], object))
    return half(RAIN, path)


MAKERS: dict[str, Callable[[Path], Archive]] = {
    maker.__name__: maker
    for maker in (
        odim, knmi, fmi_pgm, geotiff, mrms, era5, netcdf, zarr, taxibj, kth, moving_mnist, video,
        arrays, pictures, radolan, mch_gif, meteonet,
    )
}  # fmt: skip
"""By the reader's word."""
