"""CF datasets, NetCDF and Zarr alike, by xarray; ours are opened as they lie.

Of others: a variable over (time, y, x), or one frame with a scalar time or a time in its name;
masked numbers are no data; coordinates in km become metres, rows run from north to south, columns
from west to east. mlcast's conventions (time, y, x; NaN; grid_mapping with WKT) are a case of this.
Groups of NetCDF-4 and HDF5 (IMERG's `Grid`) are looked into where the root has no field.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions, States
from stpl_core.readers.cf_dims import chosen, horizontal_dims, squeezed, with_channels
from stpl_core.readers.cf_grid import grid_and_flips, is_place
from stpl_core.readers.cf_time import accumulation_s, times_and_values
from stpl_core.readers.cf_values import Unpacking, factor, unpacking
from stpl_core.readers.checked import in_stated_units, nan_as_no_echo, no_echo_of
from stpl_core.readers.completeness import refuse_cut_netcdf
from stpl_core.readers.converted import check_zarr_whole, pieces_of_dataset
from stpl_core.readers.libraries import NETCDF_LOCK, one_at_a_time, reads_with
from stpl_core.readers.netcdf_checks import check_netcdf
from stpl_core.readers.units import is_not_rain, rain_or_echo, understood
from stpl_core.readers.zarr_checks import check_zarr
from stpl_core.safety.budget import check_pixels

if TYPE_CHECKING:
    import xarray as xr

_BLOCK_VALUES = 2**23
"""About so many values in a piece."""
_USUAL = ("precipitation", "precipitationCal", "rainfall_rate", "CMI", "RRQPE")
"""Of several fields, the one that whoever takes IMERG, mlcast's or ABI files comes for."""
_NOTES = {
    "institution": ("institution",),
    "licence": ("licence", "license"),
    "attribution": ("attribution", "credit", "references"),
}


def open_dataset(path: Path, group: str | None = None, *, decode: bool = True) -> xr.Dataset:
    """Open a NetCDF file or a Zarr store, values read as needed.

    Args:
        path: the file or store.
        group: of NetCDF-4, HDF5 and Zarr.
        decode: False leaves numbers and attributes as they are stored.
    """
    if path.is_dir():
        with reads_with("zarr"):
            import xarray as xr
            import zarr  # noqa: F401  # xarray imports it, and would not name the extra
        check_zarr(path)
        opened: xr.Dataset = xr.open_zarr(
            path.absolute(),
            group=group,
            chunks=None,
            consolidated=_consolidated(path / (group or "")),
            decode_cf=decode,
        )
        return opened
    with reads_with("netcdf"):
        import netCDF4  # noqa: F401  # as above
        import xarray as xr
    refuse_cut_netcdf(path)
    with NETCDF_LOCK:
        check_netcdf(path)
        # What is read later is read under it too, and so is the closing, whoever drops it.
        return xr.open_dataset(
            path.absolute(), engine="netcdf4", lock=NETCDF_LOCK, group=group, decode_cf=decode
        )


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
    with open_dataset(path, decode=False) as stored:
        if "stpl_frames" not in stored.attrs:
            return None
    opened = open_dataset(path)
    if path.is_dir():
        check_zarr_whole(path, opened.attrs["chunk_bytes"])
    if opened["x"].attrs.get("standard_name") != "grid_longitude":
        opened = opened.drop_vars(("lat", "lon"), errors="ignore")  # for others: see `store`
    return opened.assign_coords(time=opened["time"].astype("datetime64[ns]"))


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames in blocks."""
    return one_at_a_time(_read(path, options))


def _read(path: Path, options: ReadOptions) -> Generator[Piece, None, None]:
    inside, _, variable = (options.variable or "").strip("/").rpartition("/")
    with open_dataset(path, inside or None, decode=False) as stored:
        ours = "stpl_frames" in stored.attrs and not variable and not options.select
        found = inside or _fields(_with_coordinates(stored, str(path)))
        if not ours and found:
            yield from pieces_of_foreign(stored, variable or None, path, options)
            return
    own = open_own(path) if ours else None
    if own is not None:
        with own:
            for piece in pieces_of_dataset(own, _BLOCK_VALUES):
                piece = in_stated_units(piece, options.units) if options.units else piece
                yield nan_as_no_echo(piece) if options.nan == "no-echo" else piece
        return
    with open_dataset(path, _group_with_fields(path), decode=False) as stored:
        yield from pieces_of_foreign(stored, variable or None, path, options)


def _group_with_fields(path: Path) -> str | None:
    """The first group that holds a field; None where none does."""
    for group in _groups(path):
        with open_dataset(path, group, decode=False) as stored:
            if _fields(_with_coordinates(stored, str(path))):
                return group
    return None


def _groups(path: Path) -> list[str]:
    """Names of all groups, those further up first."""
    if path.is_dir():
        import zarr

        return _groups_below(zarr.open_group(str(path.absolute()), mode="r"), "")
    with reads_with("netcdf"):
        import netCDF4
    with NETCDF_LOCK, netCDF4.Dataset(path.absolute()) as file:
        found: list[str] = []
        waiting = list(file.groups.values())
        while waiting:
            one = waiting.pop(0)
            found.append(one.path.strip("/"))
            waiting += list(one.groups.values())
    return found


def _groups_below(group: Any, at: str) -> list[str]:
    below = [(f"{at}{name}", one) for name, one in sorted(group.groups())]
    further = [found for name, one in below for found in _groups_below(one, f"{name}/")]
    return [name for name, _ in below] + further


def _with_coordinates(stored: xr.Dataset, where: str) -> xr.Dataset:
    """The same with its coordinates as coordinates, numbers unpacked, times still numbers.

    Raises:
        FrameError: a coordinate that cannot be unpacked.
    """
    import warnings

    import xarray as xr

    stored = _with_factors(stored, where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xr.SerializationWarning)  # two fill values: both are heeded
        opened = xr.decode_cf(stored, decode_times=False, decode_timedelta=False)
    for name in opened.variables:  # xarray keeps it apart; here it tells what a number is
        if "units" in stored[name].attrs:
            opened[name].attrs["units"] = stored[name].attrs["units"]
    return opened


def _with_factors(stored: xr.Dataset, where: str) -> xr.Dataset:
    """The same with factors of packing as plain numbers; fields of others are left as they are."""
    stored = stored.copy()
    for name, variable in stored.variables.items():
        for key in ("scale_factor", "add_offset"):
            if key not in variable.attrs:
                continue
            try:
                variable.attrs[key] = factor(variable.attrs, key, f"{where}: {name}")
            except FrameError:
                if variable.ndim < 2:
                    raise
                del variable.attrs[key]  # raised where the variable is asked for
    return stored


def pieces_of_foreign(
    stored: xr.Dataset, wanted: str | None, path: Path, options: ReadOptions | None = None
) -> Iterator[Piece]:
    """Yield the frames of somebody else's dataset in blocks.

    Args:
        stored: with the conventions of CF; numbers may be as they are stored.
        wanted: the variable; None takes the only one.
        path: where it came from, for messages and, of a file, for its time.
        options: how it is read.
    """
    options = options or ReadOptions()
    opened = _with_coordinates(stored, str(path))
    name = _variable(opened, wanted, path)
    attributes = dict(stored[name].attrs)
    how = unpacking(stored[name].dtype, attributes, f"{path}: {name}", netcdf=path.is_file())
    plane = horizontal_dims(opened, opened[name])
    pair, several = chosen((opened, stored[name]), options.select, str(path))
    opened, numbers = squeezed(pair, plane)
    times, numbers, clock = times_and_values(opened, numbers, plane, path, options)
    numbers, channels = with_channels(opened, numbers, plane, several, str(path))
    grid, rows, columns = grid_and_flips(opened, opened[name], *plane, str(path))
    words = (attributes.get("standard_name"), attributes.get("long_name"), name)
    about = " ".join(str(word) for word in words if word)
    quantity, factor = _quantity(attributes, options.units, about, channels)
    if quantity.units == "mm" and quantity.no_echo is not None:
        span = accumulation_s(opened, attributes, clock, times)
        quantity = replace(quantity, accumulation_s=span)
    decode = _Decoding(how, factor, quantity, options, str(path))
    order = np.argsort(times, kind="stable")
    check_pixels(path, *numbers.shape[1:])
    size = max(1, _BLOCK_VALUES // max(1, int(np.prod(numbers.shape[1:]))))
    for start in range(0, len(order), size):
        rows_of_time = order[start : start + size]
        block = numbers.isel(time=np.sort(rows_of_time)).values
        block = block[np.argsort(np.argsort(rows_of_time))][:, :, rows, columns]  # (n, C, H, W)
        frames, state = decode.frames(block)
        yield Piece(
            frames=frames,
            state=state,
            grid=grid,
            quantity=quantity,
            source=str(path),
            time=times[rows_of_time],
            notes=_notes(stored.attrs),
        )


@dataclass(frozen=True)
class _Decoding:
    """From stored numbers to frames and states."""

    how: Unpacking
    factor: float
    quantity: Quantity
    options: ReadOptions
    source: str

    def frames(self, stored: NDArray[Any]) -> tuple[Array, States]:
        """Frames `(n, C, H, W)` and states `(n, H, W)` of stored numbers `(n, C, H, W)`."""
        values, missing, outside = self.how.values(stored)
        with np.errstate(over="ignore"):  # infinite: counted as a bad pixel
            frames = np.ascontiguousarray(values * self.factor, dtype=np.float32)
        state = np.full(frames[:, 0].shape, VALUE, np.uint8)
        if self.quantity.no_echo == 0.0:
            state[(frames == 0).all(axis=1)] = NO_ECHO
        gone = missing.any(axis=1)
        if self.options.nan == "no-echo":
            nothing = no_echo_of(self.quantity, self.source)
            frames[missing] = nothing
            state[missing.all(axis=1)] = NO_ECHO
            gone = np.zeros(gone.shape, bool)
        state[gone | outside.any(axis=1)] = NO_DATA
        frames[np.broadcast_to((state == NO_DATA)[:, None], frames.shape) | outside] = np.nan
        return frames, state


def _ancillary(values: xr.DataArray) -> list[str]:
    found = values.attrs.get("ancillary_variables") or values.encoding.get("ancillary_variables")
    return str(found or "").split()


def _fields(opened: xr.Dataset) -> list[str]:
    return [
        str(name)
        for name, v in opened.data_vars.items()
        if horizontal_dims(opened, v)[0] and not is_place(str(name), v)
    ]


def _variable(opened: xr.Dataset, wanted: str | None, path: Path) -> str:
    fields = _fields(opened)
    if wanted is not None and wanted in fields and opened[wanted].dtype.kind in "uif":
        return wanted
    # What speaks of another variable, such as its quality, is not what one came for.
    ancillary = {word for name in fields for word in _ancillary(opened[name])}
    numeric = [
        name for name in fields if opened[name].dtype.kind in "uif" and name not in ancillary
    ]
    usual = [name for name in _USUAL if name in numeric]
    if wanted is None and (len(numeric) == 1 or len(usual) == 1):
        return (usual or numeric)[0]
    raise FrameError(
        f"{path} holds "
        + (f"the fields {', '.join(numeric)}" if numeric else f"no field, but {_held(opened)}"),
        expected=wanted or "one variable over y and x",
        fix=f"--variable {numeric[0]}" if numeric else _way_to_a_field(opened),
    )


def _way_to_a_field(opened: xr.Dataset) -> str:
    dims = {str(dim).lower() for variable in opened.data_vars.values() for dim in variable.dims}
    if dims & {"range", "azimuth", "ray", "rays", "gates", "n_gates"}:
        return "grid the radar's sweeps first, for example with wradlib or xradar"
    if dims & {"ncells", "ncell", "cell", "cells", "node", "nodes", "values", "points", "npoints"}:
        return "put it on a grid first, for example with cdo remapnn,GRID IN OUT"
    for variable in opened.data_vars.values():
        if variable.ndim == 2 and variable.dtype.kind in "uif":
            rows, columns = variable.dims
            return f"ncrename -d {rows},y -d {columns},x FILE, if these are its rows and columns"
    return "name its dimensions y, x or lat, lon"


def _held(opened: xr.Dataset) -> str:
    """The variables and their dimensions, in words."""
    shown = [
        f"{name} ({', '.join(map(str, variable.dims))})"
        for name, variable in opened.data_vars.items()
        if variable.ndim
    ]
    return ", ".join(shown[:6]) or "nothing else either"


def _quantity(
    attributes: dict[str, Any], stated: str | None, about: str, channels: tuple[str, ...]
) -> tuple[Quantity, float]:
    """What the numbers mean, and what to multiply them with to get there.

    Args:
        attributes: of the variable.
        stated: the unit that the user states.
        about: the variable's names; empty where the user states the unit.
        channels: their names.
    """
    text = stated if stated is not None else attributes.get("units")
    unit = understood(None if text is None else str(text), about if stated is None else "rain")
    if len(channels) == 1 and not (stated is None and is_not_rain(about)):
        made = rain_or_echo(unit.name)
        if made is not None:
            return made, unit.factor
    standard = str(attributes.get("standard_name", ""))
    name = str(attributes.get("long_name", standard or "values"))
    return Quantity(name, unit.name, standard, channels=channels), unit.factor


def _notes(attributes: dict[str, Any]) -> dict[str, str]:
    found = {
        note: next((str(attributes[key]) for key in keys if key in attributes), "")
        for note, keys in _NOTES.items()
    }
    return {note: text for note, text in found.items() if text}
