"""NetCDF with CF conventions, and what `data convert` wrote; see `cf`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stpl_core.readers import hdf5
from stpl_core.readers.cf import read
from stpl_core.readers.hdf5_checks import open_hdf5

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

_OWN = (".nc", ".nc4", ".cdf", ".netcdf")
SUFFIXES = (*_OWN, *hdf5.SUFFIXES)
ABOUT = "NetCDF with CF conventions, and HDF5 with the same (IMERG)"


def recognises(path: Path) -> bool:
    """Whether it is NetCDF by its name, or HDF5 with the dimensions of NetCDF."""
    if not path.is_file():
        return False
    if path.name.lower().endswith(_OWN):
        return True
    with open_hdf5(path) as file:
        found = file.visititems(lambda _, one: _is_dimension(one) or None)
    return bool(found)


def _is_dimension(one: Any) -> bool:
    return bool(hdf5.plain(one.attrs.get("CLASS", "")) == "DIMENSION_SCALE")
