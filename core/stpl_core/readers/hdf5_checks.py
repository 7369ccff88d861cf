"""HDF5 files that would read other files, or claim more than they may.

A dataset may lie in another file (external storage), be put together from others (virtual), and a
group may link to another file: each would carry a file of this machine into a nowcast. All are
refused before a value is read. What is asked of NetCDF-4 besides: `netcdf_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

from stpl_core.errors import FrameError
from stpl_core.readers.hdf5_attributes import Heaps, check_attributes
from stpl_core.readers.libraries import reads_with
from stpl_core.safety.budget import check_bytes, check_pixels

if TYPE_CHECKING:
    import h5py

MOST_OBJECTS = 20_000
_USUAL_SIZES = (8, 8)
"""Bytes of an address and of a length; nobody writes others."""
_HEAP = b"GCOL\x01\0\0\0"
_OBJECT = Struct("<HHIQ")
"""Of a heap's objects: index (0: what is free), references, nothing, size in bytes."""
_MOST_IN_HEAPS = 2**22
_MOST_SCANNED = 2**30
"""Larger files are not looked through: they take longer than to read a frame of them."""
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
    heaps = _checked_heaps(path)
    file = h5py.File(path.absolute(), "r")
    try:
        _refuse_elsewhere(file, path)
        if heaps is not None and file.id.get_create_plist().get_sizes() == _USUAL_SIZES:
            _check_attributes(file, path, heaps)
    except BaseException:
        file.close()
        raise
    return file


def _checked_heaps(path: Path) -> Heaps | None:
    """Refuse a heap with an object of no size: HDF5 looks at it without end.

    HDF5 file format specification 3.0, III.E, "Disk Format: Level 1E - Global Heap".

    Returns:
        All that are in the file; None where it is too large to be looked through.
    """
    if not 0 < path.stat().st_size <= _MOST_SCANNED:
        return None
    heaps: dict[int, dict[int, int]] = {}
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        seen = 0
        for place in _places(content, _HEAP):
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            objects: dict[int, int] = {}
            at, end = place + 16, min(place + size, len(content)) - _OBJECT.size
            while at <= end:
                index, _, _, length = _OBJECT.unpack_from(content, at)
                step = length if index == 0 else _OBJECT.size + (length + 7) // 8 * 8
                seen += 1
                if step == 0 or seen > _MOST_IN_HEAPS:
                    raise FrameError(
                        f"{path}: the heap at byte {place} has no end",
                        expected="heaps as HDF5 writes them",
                        fix="get the file again: it is damaged",
                    )
                if index:
                    objects[index] = length
                at += step
            if place + size <= len(content):  # else the library would ask for all of it
                heaps[place] = objects
    return heaps


def _check_attributes(file: h5py.File, path: Path, heaps: Heaps) -> None:
    with path.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
        base = int(file.userblock_size)
        check_attributes(file, content, heaps, base, path)
        file.visititems(lambda _, found: check_attributes(found, content, heaps, base, path))


def _places(content: mmap, found: bytes) -> Iterator[int]:
    place = content.find(found)
    while place >= 0:
        yield place
        place = content.find(found, place + 1)


def whole(dataset: Any, path: Path) -> Any:
    """Every value of a dataset that is one frame, `(H, W)`, or several of them.

    Raises:
        FrameError: it claims more than a frame may have, or than a file may bring.
    """
    check_pixels(f"{path}: {dataset.name}", *dataset.shape[-2:])
    check_bytes(f"{path}: {dataset.name}", int(dataset.size) * dataset.dtype.itemsize)
    return dataset[...]


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
            if len(seen) > MOST_OBJECTS:
                raise FrameError(
                    f"{path} holds more than {MOST_OBJECTS} objects",
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
