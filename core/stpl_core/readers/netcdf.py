"""NetCDF with CF conventions, and what `data convert` wrote; see `cf`."""

from __future__ import annotations

from stpl_core.readers.cf import read

__all__ = ["ABOUT", "SUFFIXES", "read"]

SUFFIXES = (".nc", ".nc4", ".cdf", ".netcdf")
ABOUT = "NetCDF with CF conventions"
