"""HDF5 files that would read other files, or claim more than they may.

A dataset may lie in another file (external storage), be put together from others (virtual), and a
group may link to another file: each would carry a file of this machine into a nowcast. All are
refused before a value is read. NetCDF-4 files are HDF5 too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpl_core.errors import FrameError
from stpl_core.readers.libraries import reads_with
from stpl_core.safety.budget import check_bytes, check_pixels

if TYPE_CHECKING:
    import h5py

_MOST_OBJECTS = 20_000
_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does (after a user block, too)."""
    with path.open("rb") as file:
        place = 0
        while place < 2**20:
            file.seek(place)
            found = file.read(len(_MAGIC))
            if found == _MAGIC:
                return True
            if len(found) < len(_MAGIC):
                return False
            place = place * 2 or 512
    return False


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file that keeps to itself.

    Raises:
        FrameError: something in it lies in another file.
        MissingExtraError: h5py is not installed.
        OSError: it is damaged.
    """
    with reads_with("hdf5"):
        import h5py
    file = h5py.File(path.absolute(), "r")
    try:
        _refuse_elsewhere(file, path)
    except BaseException:
        file.close()
        raise
    return file


def whole(dataset: Any, path: Path) -> Any:
    """Every value of a dataset that is one frame, `(H, W)`, or several of them.

    Raises:
        FrameError: it claims more than a frame may have, or than a file may bring.
    """
    check_pixels(f"{path}: {dataset.name}", *dataset.shape[-2:])
    check_bytes(f"{path}: {dataset.name}", int(dataset.size) * dataset.dtype.itemsize)
    return dataset[...]


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

        file.visititems(check)
    import netCDF4

    with netCDF4.Dataset(path.absolute()) as opened:
        _check_shapes(opened, shapes, path)


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


def _refuse_elsewhere(file: h5py.File, path: Path) -> None:
    """Look at every link and dataset once; groups may hold one another in circles."""
    import h5py

    seen: set[int] = set()
    waiting: list[Any] = [file]
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                inside = f"{group.name.rstrip('/')}/{name}"
                copy = f"h5copy -f ext -i {path.name} -o OUT -s {inside} -d {inside}"
                raise _elsewhere(path, name, f"a link to {link.filename!r}", copy)
            if isinstance(link, h5py.SoftLink):
                continue  # its target is met where it hangs
            found = group.get(name)
            if found is None:
                continue
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _MOST_OBJECTS:
                raise FrameError(
                    f"{path} holds more than {_MOST_OBJECTS} objects",
                    expected="a file of frames",
                    fix="keep what is needed, for example with h5copy",
                )
            if isinstance(found, h5py.Group):
                waiting.append(found)
            elif isinstance(found, h5py.Dataset):
                _refuse_dataset(found, path)


def _refuse_dataset(dataset: h5py.Dataset, path: Path) -> None:
    if dataset.external:
        raise _elsewhere(path, dataset.name, f"values in {dataset.external[0][0]!r}")
    if dataset.is_virtual:
        raise _elsewhere(path, dataset.name, "values put together from other datasets")


def _elsewhere(path: Path, name: str, what: str, copy: str = "") -> FrameError:
    return FrameError(
        f"{path}: {name} has {what}",
        expected="a file that holds its own values",
        fix=copy or f"h5repack -l CONTI {path.name} OUT, which copies the values into it",
    )
