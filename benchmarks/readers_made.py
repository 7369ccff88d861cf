"""One small file of each format that `readers_beside_referees.py` has no real file of."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

H, W = 24, 32
START = datetime(2024, 6, 1, 12)


def rain(count: int = 4) -> NDArray[np.float32]:
    """`(count, H, W)` mm/h: a shower that moves, no rain elsewhere."""
    made = np.zeros((count, H, W), np.float32)
    for n in range(count):
        made[n, 5:12, 4 + n : 14 + n] = 5.0 + np.arange(10) / 4
    return made


def netcdf(path: Path) -> Path:
    """Packed, south up, longitudes beyond 180, with a fill value."""
    import netCDF4

    values = rain()[:, ::-1]
    with netCDF4.Dataset(path, "w") as file:
        for name, line, unit in (
            ("lat", 40 + 0.1 * np.arange(H), "degrees_north"),
            ("lon", 350 + 0.1 * np.arange(W), "degrees_east"),
            ("time", 300.0 * np.arange(len(values)), "seconds since 2024-06-01 12:00:00"),
        ):
            file.createDimension(name, len(line))
            made = file.createVariable(name, "f8", (name,))
            made[:], made.units = line, unit
        field = file.createVariable("rr", "i2", ("time", "lat", "lon"), fill_value=-1)
        field.set_auto_maskandscale(False)
        field.setncatts({"scale_factor": 0.05, "add_offset": 0.0, "units": "mm/h"})
        packed = np.round(values / 0.05).astype(np.int16)
        packed[:, 0] = -1
        field[:] = packed
    return path


def odim(path: Path) -> Path:
    """Three lead times of DBZH in one file."""
    import h5py
    from pyproj import CRS, Transformer

    plane = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6370040 +b=6370040 +units=m"
    back = Transformer.from_crs(plane, CRS(plane).geodetic_crs, always_xy=True)
    with h5py.File(path, "w") as file:
        file.create_group("what").attrs.update(object="COMP", date="20240601", time="120000")
        where = file.create_group("where").attrs
        where.update(projdef=plane, xscale=1000.0, yscale=1000.0)
        for corner, x, y in (("LL", 0.0, -4e6), ("UR", 1000.0 * W, -4e6 + 1000.0 * H)):
            where[f"{corner}_lon"], where[f"{corner}_lat"] = back.transform(x, y)
        for n in range(3):
            what = file.create_group(f"dataset{n + 1}/what").attrs
            for edge in ("start", "end"):
                what[f"{edge}date"], what[f"{edge}time"] = "20240601", f"12{5 * n:02}00"
            data = file.create_group(f"dataset{n + 1}/data1")
            data.create_group("what").attrs.update(
                quantity="DBZH", gain=0.5, offset=-32.0, nodata=255.0, undetect=0.0
            )
            stored = np.where(rain()[n] > 0, 110 + n, 0).astype(np.uint8)
            stored[:, :2] = 255
            data["data"] = stored
    return path


_DUTCH = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752 +x_0=0 +y_0=0 +units=km"


def knmi(path: Path, images: int = 1) -> Path:
    """Reflectivity of KNMI; of several images a forecast of sums, 5 minutes apart."""
    import h5py

    with h5py.File(path, "w") as file:
        for n in range(images):
            image = file.create_group(f"image{n + 1}")
            calibration = image.create_group("calibration").attrs
            if images == 1:
                texts = "REFLECTIVITY_[DBZ]", "GEO = 0.500000 * PV + -32.000000"
                stored, missing, outside = np.where(rain()[0] > 0, 110, 0).astype(np.uint8), 0, 255
            else:
                texts = "PRECIP_[MM]", "GEO=0.010000*PV+0.000000"
                stored, missing, outside = (rain()[n] * 20).astype(np.uint16), 65534, 65535
                valid = f"01-JUN-2024;12:{5 * n:02}:00.000"
                image.attrs["image_datetime_valid"] = np.bytes_(valid)
            stored[:, :2] = outside
            image["image_data"] = stored
            image.attrs["image_geo_parameter"] = np.bytes_(texts[0])
            calibration["calibration_formulas"] = np.bytes_(texts[1])
            calibration["calibration_missing_data"] = np.array([missing])
            calibration["calibration_out_of_image"] = np.array([outside])
        for edge in ("start", "end"):
            overview = file.require_group("overview").attrs
            overview[f"product_datetime_{edge}"] = np.bytes_("01-JUN-2024;12:00:00.000")
        where = file.create_group("geographic")
        numbers = {"pixel_size_x": 1.0, "pixel_size_y": -1.0, "row_offset": 3650.0}
        numbers |= {"column_offset": 0.0, "number_columns": W, "number_rows": H}
        where.attrs.update({f"geo_{key}": np.array([value]) for key, value in numbers.items()})
        where.attrs["geo_dim_pixel"] = np.bytes_("KM,KM")
        plane = where.create_group("map_projection").attrs
        plane["projection_proj4_params"] = np.bytes_(_DUTCH)
    return path


def geotiff(path: Path) -> Path:
    """From the south, packed, with an opacity band, as a COG has its tiles."""
    import rasterio

    stored = (rain()[0, ::-1] * 10).astype(np.uint8)
    seen = np.full(stored.shape, 255, np.uint8)
    seen[:, :3] = 0
    how = {"driver": "GTiff", "height": H, "width": W, "count": 2, "dtype": "uint8"}
    how |= {"crs": "EPSG:25832", "photometric": "MINISBLACK", "alpha": "YES"}
    south_up = rasterio.Affine(1000, 0, 3e5, 0, 1000, 5e6)
    with rasterio.open(path, "w", transform=south_up, **how) as file:
        file.write(np.stack([stored, seen]))
        file.scales, file.offsets, file.units = (0.1, 1.0), (0.0, 0.0), ("mm/h", "")
    return path


def levels(path: Path, packed: Path) -> Path:
    """A Zarr store of two levels, of what a NetCDF file holds and twice that."""
    import xarray as xr

    with xr.open_dataset(packed) as opened:
        rr = opened["rr"].load()
        both = xr.concat([rr, 2 * rr], xr.Variable("level", [1000, 850], {"units": "hPa"}))
        both.encoding, both.attrs = {}, {"units": "mm/h"}
        both.rename("rr").to_dataset().to_zarr(path, consolidated=False, zarr_format=2)
    return path


def taxibj(path: Path) -> Path:
    """A day of crowd flows, two channels."""
    import h5py

    flows = np.random.default_rng(0).integers(0, 1000, (48, 2, 32, 32)).astype(np.float64)
    with h5py.File(path, "w") as file:
        file["data"] = flows
        file["date"] = np.array([f"20160401{n:02}".encode() for n in range(1, 49)])
    return path


def radolan(path: Path) -> Path:
    """An hour of rain (RW) of 900x900 pixels, with no data, clutter and a second source."""
    stored = np.zeros((900, 900), "<u2")
    stored[10:20, 30:40] = 123
    stored[30:40, 50:60] = 45 | 0x1000
    stored[:, :5] = 2500 | 0x2000
    tail = "VS 3SW  P20001HPR E-01INT  60GP 900x 900VV 000MF 00000001MS  5<boo>"
    head = "RW011250100000624BY"
    length = len(head) + 7 + len(tail) + 1 + stored.nbytes
    path.write_bytes(f"{head}{length:7d}{tail}".encode() + b"\x03" + stored.tobytes())
    return path


def swiss(path: Path) -> Path:
    """A picture of AQC: the number is the amount."""
    from PIL import Image

    numbers = np.zeros((640, 710), np.uint8)
    numbers[100:300, 100:300] = np.arange(200) + 2
    numbers[:, :20] = 255
    image = Image.fromarray(numbers).convert("P")
    image.putdata(numbers.ravel().tolist())
    image.save(path)
    return path


def meteonet(path: Path) -> Path:
    """Rain in hundredths of a millimetre; the dates are Python's own."""
    data = np.round(rain() * 8).astype(np.int16)
    data[:, 0] = -1
    dates = np.array([START + timedelta(minutes=5 * n) for n in range(len(data))], object)
    np.savez(path, data=data, dates=dates, miss_dates=np.array([], object))
    return path


_GRIB = """
import sys, eccodes, numpy
values = numpy.load(sys.argv[2]).astype(float)
message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
facts = {"gridType": "lambert", "Nx": values.shape[1], "Ny": values.shape[0], "jScansPositively": 1,
  "LaDInDegrees": 46.5, "LoVInDegrees": 10.0, "Latin1InDegrees": 45.0, "Latin2InDegrees": 48.0,
  "DxInMetres": 2500.0, "DyInMetres": 2500.0, "latitudeOfFirstGridPointInDegrees": 46.0,
  "longitudeOfFirstGridPointInDegrees": 7.5, "dataDate": 20240601, "dataTime": 1200,
  "shortName": "tp", "stepRange": "0-1", "bitsPerValue": 24, "bitmapPresent": 1,
  "missingValue": 9999}
for key, value in facts.items():
    eccodes.codes_set(message, key, value)
eccodes.codes_set_values(message, values.ravel())
with open(sys.argv[1], "wb") as file:
    eccodes.codes_write(message, file)
"""


def grib(path: Path) -> Path:
    """An amount in metres over one hour on a Lambert grid, with a bitmap."""
    values = rain(1)[0][::-1] / 1000
    values[:, -1] = 9999
    beside = path.with_suffix(".npy")
    np.save(beside, values)
    subprocess.run([sys.executable, "-c", _GRIB, str(path), str(beside)], check=True)
    beside.unlink()
    return path


def pictures(folder: Path, coloured: bool) -> Path:
    """Four pictures, 10 minutes apart."""
    from PIL import Image

    folder.mkdir()
    for n, frame in enumerate(rain()):
        grey = (frame * 20).astype(np.uint8)
        made = np.stack([grey, 255 - grey, grey // 2], axis=-1) if coloured else grey
        Image.fromarray(made).save(folder / f"{START + timedelta(minutes=10 * n):%Y%m%d%H%M}.png")
    return folder


def kth(folder: Path) -> Path:
    """A folder of KTH's names."""
    from PIL import Image

    inside = folder / "person01_walking_d1_1"
    inside.mkdir(parents=True)
    for n, frame in enumerate(rain()):
        Image.fromarray((frame * 20).astype(np.uint8)).save(inside / f"image_{n + 1:04}.png")
    return folder


def zipped(path: Path, *files: Path) -> Path:
    """An archive of files."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    return path
