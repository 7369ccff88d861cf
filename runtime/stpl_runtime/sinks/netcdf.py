"""Nowcasts as NetCDF-4 files; `sinks.cf` says what they hold."""

from __future__ import annotations

from stpl_core.readers.libraries import NETCDF_LOCK, reads_with
from stpl_runtime.chances import CHANCE
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec, temporary_file
from stpl_runtime.sinks.cf import MEMBERS, NAME, dataset_of, encoding_of
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.file_format import FileFormat


def netcdf_bytes(nowcast: Nowcast) -> bytes:
    """A nowcast as a NetCDF-4 file.

    Raises:
        MissingExtraError: netCDF4 or xarray is not installed.
    """
    with reads_with("netcdf"):
        import netCDF4  # noqa: F401  # xarray imports it, and would not name the extra
    dataset = dataset_of(nowcast, "netcdf")
    encoding = encoding_of(dataset, "chunksizes")
    for name in encoding.keys() & {NAME, CHANCE, MEMBERS}:
        encoding[name].update(zlib=True, complevel=4, shuffle=True)
    with temporary_file("nowcast.nc") as path:
        with NETCDF_LOCK:
            dataset.to_netcdf(path, engine="netcdf4", encoding=encoding)
        return path.read_bytes()


NETCDF = FileFormat(
    (".nc",),
    netcdf_bytes,
    extra="netcdf",
    libraries=("pyproj", "xarray", "netCDF4"),
    media_type="application/netcdf",
    holds_chances=True,
    holds_members=True,
)
FORMATS = (NETCDF,)


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`nc:DIR` or `nc:FILE.nc`.

    Raises:
        MissingExtraError: netCDF4 or xarray is not installed.
    """
    return DirectorySink("nc", NETCDF, rest, spec)
