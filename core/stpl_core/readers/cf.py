"""CF datasets, NetCDF and Zarr alike, by xarray; ours are opened as they lie.

Of others: a variable over (time, y, x), or one frame with the scalar `valid_time` or `time`; NaN or
_FillValue is no data; coordinates in km become metres, rows run from north to south, columns from
west to east. mlcast's conventions (time, y, x; NaN; grid_mapping with WKT) are a case of this.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.reader import Piece, Quantity, ReadOptions, no_echo_at_zero, state_of
from stpl_core.readers.cf_grid import grid_and_flips, horizontal_dims, is_place
from stpl_core.readers.completeness import refuse_cut_netcdf
from stpl_core.readers.converted import check_zarr_whole, pieces_of_dataset
from stpl_core.readers.hdf5_checks import check_netcdf
from stpl_core.readers.libraries import NETCDF_LOCK, one_at_a_time, reads_with
from stpl_core.readers.units import cf_units, rain_amount, rain_rate, reflectivity
from stpl_core.readers.zarr_checks import check_zarr
from stpl_core.safety.budget import check_pixels

if TYPE_CHECKING:
    import xarray as xr

_BLOCK_VALUES = 2**23
"""About so many values in a piece."""
_RATES_M_S = ("rainfall_rate", "lwe_precipitation_rate", "stratiform_rainfall_rate")
_FLUXES = ("rainfall_flux", "precipitation_flux")
_NOTES = {
    "institution": ("institution",),
    "licence": ("licence", "license"),
    "attribution": ("attribution", "credit", "references"),
}


def open_dataset(path: Path) -> xr.Dataset:
    """Open a NetCDF file or a Zarr store, values read as needed."""
    if path.is_dir():
        with reads_with("zarr"):
            import xarray as xr
            import zarr  # noqa: F401  # xarray imports it, and would not name the extra
        check_zarr(path)
        opened: xr.Dataset = xr.open_zarr(
            path.absolute(), chunks=None, consolidated=_consolidated(path)
        )
        return opened
    with reads_with("netcdf"):
        import netCDF4  # noqa: F401  # as above
        import xarray as xr
    refuse_cut_netcdf(path)
    check_netcdf(path)
    with NETCDF_LOCK:
        # What is read later is read under it too, and so is the closing, whoever drops it.
        return xr.open_dataset(path.absolute(), engine="netcdf4", lock=NETCDF_LOCK)


def _consolidated(store: Path) -> bool:
    """Whether a store keeps all metadata in one place: asking for it in vain costs a warning."""
    if (store / ".zmetadata").is_file():  # Zarr 2
        return True
    group = store / "zarr.json"  # Zarr 3
    if not group.is_file():
        return False
    return json.loads(group.read_text()).get("consolidated_metadata") is not None


def open_own(path: Path) -> xr.Dataset | None:
    """The dataset as `data convert` wrote it, values read as needed; None if it is not ours.

    Raises:
        FrameError: chunks are missing.
    """
    opened = open_dataset(path)
    if "stpl_frames" not in opened.attrs:
        opened.close()
        return None
    if path.is_dir():
        check_zarr_whole(path, opened.attrs["chunk_bytes"])
    if opened["x"].attrs.get("standard_name") != "grid_longitude":
        opened = opened.drop_vars(("lat", "lon"), errors="ignore")  # for others: see `store`
    return opened.assign_coords(time=opened["time"].astype("datetime64[ns]"))


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames in blocks."""
    return one_at_a_time(_read(path, options))


def _read(path: Path, options: ReadOptions) -> Generator[Piece, None, None]:
    own = open_own(path) if options.variable is None else None
    if own is not None:
        with own:
            yield from pieces_of_dataset(own, _BLOCK_VALUES)
        return
    with open_dataset(path) as opened:
        yield from pieces_of_foreign(opened, options.variable, path)


def pieces_of_foreign(opened: xr.Dataset, wanted: str | None, path: Path) -> Iterator[Piece]:
    """Yield the frames of somebody else's dataset in blocks.

    Args:
        opened: with coordinates as CF has them.
        wanted: the variable; None takes the only one.
        path: where it came from, for messages.
    """
    values = opened[_variable(opened, wanted, path)]
    y, x = horizontal_dims(opened, values)
    times, values = _times(opened, values, (y, x), path)
    values, channels = _with_channels(values, ("time", y, x), path)
    grid, rows, columns = grid_and_flips(opened, values, y, x, str(path))
    quantity, factor = _quantity(values.attrs, channels)
    rain = quantity.units in ("mm h-1", "mm")
    order = np.argsort(times, kind="stable")
    check_pixels(path, *values.shape[1:])
    size = max(1, _BLOCK_VALUES // max(1, int(np.prod(values.shape[1:]))))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        stored = values.isel(time=np.sort(chosen)).values[np.argsort(np.argsort(chosen))]
        frames: Array = (stored * factor if factor != 1 else stored).astype(np.float32)
        frames = np.ascontiguousarray(frames[:, :, rows, columns])  # (n, C, H, W)
        yield Piece(
            frames=frames,
            state=no_echo_at_zero(frames) if rain else state_of(frames),
            grid=grid,
            quantity=quantity,
            source=str(path),
            time=times[chosen],
            notes=_notes(opened.attrs),
        )


def _ancillary(values: xr.DataArray) -> list[str]:
    found = values.attrs.get("ancillary_variables") or values.encoding.get("ancillary_variables")
    return str(found or "").split()


def _variable(opened: xr.Dataset, wanted: str | None, path: Path) -> str:
    fields = [
        str(name)
        for name, v in opened.data_vars.items()
        if horizontal_dims(opened, v)[0] and not is_place(str(name), v)
    ]
    if wanted is not None and wanted in fields:
        return wanted
    # What speaks of another variable, such as its quality, is not what one came for.
    aside = {word for name in fields for word in _ancillary(opened[name])}
    numeric = [name for name in fields if opened[name].dtype.kind in "uif" and name not in aside]
    if wanted is None and len(numeric) == 1:
        return numeric[0]
    raise FrameError(
        f"{path} holds the fields {', '.join(numeric) or 'none'}",
        expected=wanted or "one variable over y and x",
        fix=f"--variable {numeric[0]}" if numeric else "check the file",
    )


def _times(
    opened: xr.Dataset, values: xr.DataArray, plane: tuple[str, str], path: Path
) -> tuple[Any, xr.DataArray]:
    """Times `(T,)`, and the values with a dimension `time`."""
    for dim in values.dims:
        along = opened[dim].values if dim in opened.coords and dim not in plane else None
        if along is not None and along.dtype.kind == "M":
            return along.astype("datetime64[ns]"), values.rename({dim: "time"})
    for name in ("valid_time", "time"):
        if name in opened.variables and opened[name].ndim == 0:
            stamp = opened[name].values
            if stamp.dtype.kind == "M":
                values = values.drop_vars(name, errors="ignore").expand_dims("time")
                return stamp[None].astype("datetime64[ns]"), values
    raise FrameError(
        f"{path} says no time for {values.name}",
        expected="a coordinate time, or a scalar valid_time, with units since a date",
        fix="check the file with ncdump -h",
    )


def _with_channels(
    values: xr.DataArray, known: tuple[str, str, str], path: Path
) -> tuple[xr.DataArray, tuple[str, ...]]:
    """Values (time, channel, y, x) and the channels' names."""
    others = [dim for dim in values.dims if dim not in known]
    values = values.squeeze([dim for dim in others if values.sizes[dim] == 1], drop=True)
    others = [dim for dim in others if dim in values.dims]
    time, y, x = known
    if len(others) > 1:
        raise FrameError(
            f"{path} has {values.name} over {', '.join(map(str, values.dims))}",
            expected="time, y, x and at most one more",
            fix="select a level or member first",
        )
    if not others:
        return values.expand_dims("channel").transpose(time, "channel", y, x), ("",)
    names = tuple(str(label) for label in values[others[0]].values)
    return values.transpose(time, others[0], y, x), names


def _quantity(attributes: dict[str, Any], channels: tuple[str, ...]) -> tuple[Quantity, float]:
    """What the numbers mean, and what to multiply them with to get there."""
    standard = str(attributes.get("standard_name", ""))
    text = attributes.get("units")
    units = cf_units(None if text is None else str(text))
    if standard in _RATES_M_S and units == "m s-1":
        return rain_rate(), 3.6e6
    if standard in _FLUXES and units in ("kg m-2 s-1", "kg m**-2 s**-1"):
        return rain_rate(), 3600.0
    if len(channels) == 1:
        made = {"mm h-1": rain_rate(), "mm": rain_amount(None), "dBZ": reflectivity()}.get(units)
        if made is not None:
            return made, 1.0
    name = str(attributes.get("long_name", standard or "values"))
    return Quantity(name, units, standard, channels=channels), 1.0


def _notes(attributes: dict[str, Any]) -> dict[str, str]:
    found = {
        note: next((str(attributes[key]) for key in keys if key in attributes), "")
        for note, keys in _NOTES.items()
    }
    return {note: text for note, text in found.items() if text}
