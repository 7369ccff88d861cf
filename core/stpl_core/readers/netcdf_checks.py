"""NetCDF-4 files that say two things of a size, or what the NetCDF library does not expect.

They are HDF5, and the library trusts that it wrote them itself: it reads other types as addresses,
and makes room for other sizes than it reads, which ends the process. All that is refused before
the library sees the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.readers.hdf5_checks import MOST_OBJECTS, is_hdf5, open_hdf5
from stpl_core.safety.budget import check_pixels

if TYPE_CHECKING:
    import h5py


def check_netcdf(path: Path) -> None:
    """Refuse a NetCDF-4 file that reaches out, claims too much, or says two things of a size.

    Call it with the lock of the NetCDF library held.

    Raises:
        FrameError: it does.
        MissingExtraError: h5py is not installed.
    """
    if not is_hdf5(path):
        return
    import h5py

    shapes: dict[str, tuple[int, ...]] = {}
    with open_hdf5(path) as file:

        def check(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset):
                shapes[name] = found.shape or ()
                check_pixels(f"{path}: {name}", *shapes[name][-2:])
                _check_type(found.id.get_type(), f"{path}: {name}")
                _check_dimensions(found, path)
            for attribute in found.attrs:
                kind = found.attrs.get_id(attribute).get_type()
                _check_type(kind, f"{path}: {attribute} of {name}")

        check("", file)
        file.visititems(check)
    import netCDF4

    with netCDF4.Dataset(path.absolute()) as opened:
        _check_shapes(opened, shapes, path)


def _check_type(kind: Any, where: str) -> None:
    """Refuse numbers of a width that NetCDF has not: its library reads them beyond its room."""
    import h5py

    if isinstance(kind, h5py.h5t.TypeCompoundID):
        for index in range(kind.get_nmembers()):
            _check_type(kind.get_member_type(index), where)
    elif isinstance(kind, (h5py.h5t.TypeVlenID, h5py.h5t.TypeArrayID, h5py.h5t.TypeEnumID)):
        _check_type(kind.get_super(), where)
    elif isinstance(kind, (h5py.h5t.TypeFloatID, h5py.h5t.TypeIntegerID)):
        widths = (4, 8) if isinstance(kind, h5py.h5t.TypeFloatID) else (1, 2, 4, 8)
        if kind.get_size() not in widths:
            raise FrameError(
                f"{where} holds numbers of {8 * kind.get_size()} bits",
                expected="a type of NetCDF: floats of 32 or 64 bits, integers of 8 to 64",
                fix="write it again with another type, for example astype(numpy.float32)",
            )


def _check_dimensions(dataset: h5py.Dataset, path: Path) -> None:
    """Hold what ties a variable to its dimensions against the form that the library trusts in.

    Of another type it reads them as addresses, which ends the process
    (NetCDF-4 format specification, "Dimensions").
    """
    axes = len(dataset.shape or ())
    for name, (fits, expected) in _DIMENSION_ATTRIBUTES.items():
        if name not in dataset.attrs:
            continue
        try:
            attribute = dataset.attrs.get_id(name)
            right = fits(attribute.dtype, attribute.shape, axes)
            if right and name in _NUMBERS:
                numbers = np.asarray(dataset.attrs[name])
                right = bool(((numbers >= 0) & (numbers < MOST_OBJECTS)).all())
        except (TypeError, ValueError):  # a type that NumPy has no word for
            right = False
        if not right:
            raise FrameError(
                f"{path}: {name} of {dataset.name} is not what NetCDF writes",
                expected=expected,
                fix="get the file again: it is damaged",
            )


def _is_reference(dtype: Any) -> bool:
    import h5py

    return dtype is not None and h5py.check_ref_dtype(dtype) is h5py.Reference


def _is_list(dtype: Any, shape: tuple[int, ...], axes: int) -> bool:
    import h5py

    return _is_reference(h5py.check_vlen_dtype(dtype)) and shape == (axes,)


def _is_back_list(dtype: Any, shape: tuple[int, ...], axes: int) -> bool:
    return (
        dtype.names is not None
        and len(dtype.names) == 2
        and _is_reference(dtype[0])
        and dtype[1].kind in "iu"
        and len(shape) == 1
    )


def _is_text(dtype: Any, shape: tuple[int, ...], axes: int) -> bool:
    import h5py

    return h5py.check_string_dtype(dtype) is not None and shape in ((), (1,))


_DIMENSION_ATTRIBUTES: dict[str, tuple[Callable[[Any, tuple[int, ...], int], bool], str]] = {
    "DIMENSION_LIST": (_is_list, "a list of references for each axis"),
    "REFERENCE_LIST": (_is_back_list, "pairs of a reference and an axis"),
    "CLASS": (_is_text, "text"),
    "NAME": (_is_text, "text"),
    "_Netcdf4Dimid": (
        lambda dtype, shape, _: dtype.kind in "iu" and shape in ((), (1,)),
        "a number",
    ),
    "_Netcdf4Coordinates": (
        lambda dtype, shape, axes: dtype.kind in "iu" and shape in ((axes,), ()),
        "a number for each axis",
    ),
}
"""Attribute -> whether a type and shape fit a dataset of so many axes, and what would."""
_NUMBERS = ("_Netcdf4Dimid", "_Netcdf4Coordinates")
"""Of dimensions: the library makes a list that is as long."""

_NO_COORDINATE = "_nc4_non_coord_"
"""Before the name, in the file, of a variable that is called as a dimension and is none."""


def _check_shapes(group: Any, shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Hold the sizes of dimensions against those of the values.

    The library makes room by the dimensions and reads by the values: where they differ it writes
    beyond its room, which ends the process. Only an unlimited dimension may be longer.
    """
    inside = group.path.strip("/")
    for name, variable in group.variables.items():
        where = f"{inside}/{name}".strip("/")
        plain = f"{inside}/{_NO_COORDINATE}{name}".strip("/")
        stored = shapes.get(plain, shapes.get(where))  # `where` may be the dimension alone
        sizes = tuple(
            (dimension.size, dimension.isunlimited()) for dimension in variable.get_dims()
        )
        if stored is None or (not stored and not sizes):
            continue
        fits = len(stored) == len(sizes) and all(
            size == length or (endless and size > length)
            for length, (size, endless) in zip(stored, sizes, strict=True)
        )
        if not fits:
            raise FrameError(
                f"{path}: {where} has dimensions of {tuple(size for size, _ in sizes)} and values "
                f"of {stored}",
                expected="the same sizes",
                fix="get the file again: it is damaged",
            )
    for below in group.groups.values():
        _check_shapes(below, shapes, path)
