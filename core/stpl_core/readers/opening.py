"""From a path to frames, in three steps: each is made of the one before it.

read_pieces     the pieces of one file, as its reader gives them: live sources
joined_pieces   the pieces of all files of a path, checked against each other, in the order of
their names: archives larger than memory
open_frames     one dataset in the order of time: training, `predict`, `evaluate`
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stpl_core.errors import FrameError
from stpl_core.reader import Piece, Quantity, ReadOptions
from stpl_core.readers.checked import checked
from stpl_core.readers.converted import quantity_of
from stpl_core.readers.dataset import dataset_from_joined
from stpl_core.readers.in_units import convertible, unit_fix
from stpl_core.readers.join import Joined, Joiner
from stpl_core.readers.libraries import decoding, refuse_empty
from stpl_core.readers.names import in_time_order, is_utf8, times_of, utf8_path
from stpl_core.readers.packed import is_archive, path_inside, unpacked
from stpl_core.readers.registry import Choice, choose, needs_unpacking, reads_name
from stpl_core.readers.units import cf_units

if TYPE_CHECKING:
    import xarray as xr


def open_frames(
    path: Path,
    reader: str | None = None,
    options: ReadOptions | None = None,
    units: str | None = None,
    newest: int | None = None,
) -> xr.Dataset:
    """Read a file or a folder into one dataset (`stpl_core.readers.dataset`), in time order.

    What `stpl-deploy data convert` wrote (.zarr, .nc) is opened as it lies, values read as needed.

    Args:
        path: a file, or a folder whose files belong together.
        reader: word of a reader; None finds it.
        options: what to read, where there is a choice.
        units: the unit that it must have, or be `in_units.convertible` to; None takes any.
        newest: of a folder whose files all have times in their names, read so many of the last.

    Raises:
        FrameError: it cannot be read or used; names the file.
        MissingExtraError: the reader's library is not installed.
        UsageError: no such reader.
    """
    options = options or ReadOptions()
    choice = _newest(choose(path, reader), options, newest)
    plain = replace(options, broken=None, bad_pixels=ReadOptions.bad_pixels) == ReadOptions()
    opened = open_as_it_lies(choice) if plain else None
    if opened is None:
        parts, files = [], list[str]()
        for part, names in _joined(path, choice, options, units):
            parts.append(part)
            files = names
        return dataset_from_joined(parts, files)
    _check_units(str(path), quantity_of(opened), units)
    return opened


def as_frames(
    dataset: xr.Dataset, variable: str | None = None, units: str | None = None, where: str = ""
) -> xr.Dataset:
    """A dataset in memory as `open_frames` gives it.

    Args:
        dataset: one that `open_frames` gave, a part of it, or one with coordinates as CF has them.
        variable: which one, where it holds several.
        units: see `open_frames`.
        where: what it is, for messages.

    Raises:
        FrameError: it cannot be used.
    """
    from stpl_core.readers import cf

    if not ({"frames", "state"} <= set(dataset.data_vars) and "stpl_frames" in dataset.attrs):
        joiner = Joiner()
        pieces = cf.pieces_of_foreign(dataset, variable, Path(where))
        dataset = dataset_from_joined([joiner.add(piece) for piece in pieces], joiner.files)
    _check_units(where, quantity_of(dataset), units)
    return dataset


def joined_pieces(
    path: Path, reader: str | None = None, options: ReadOptions | None = None
) -> Generator[tuple[Joined, list[str]], None, None]:
    """Yield what `open_frames` would join, piece by piece, with the names of the files so far.

    For archives larger than memory. Files come in the order of the times in their names, else of
    their names; errors are those of `open_frames`.
    """
    yield from _joined(path, choose(path, reader), options or ReadOptions(), None)


def open_as_it_lies(choice: Choice) -> xr.Dataset | None:
    """What `stpl-deploy data convert` wrote (.zarr, .nc), its values read as needed; else None.

    Raises:
        FrameError: it cannot be read.
    """
    if choice.word not in ("netcdf", "zarr") or len(choice.paths) != 1:
        return None
    if needs_unpacking(choice.paths[0], choice.reader):
        return None
    from stpl_core.readers import cf

    path = choice.paths[0]
    if not is_utf8(path):
        return None
    refuse_empty(path)
    with decoding(path, choice.word):
        return cf.open_own(path)


def read_pieces(choice: Choice, path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Pieces of one file of a choice; what the decoder raises becomes a FrameError that names it.

    Raises:
        FrameError: it cannot be decoded.
        MissingExtraError: its reader's library is not installed.
    """
    refuse_empty(path)
    if needs_unpacking(path, choice.reader):
        yield from _unpacked_pieces(choice, path, options)
        return
    with utf8_path(path) as clean, decoding(clean, choice.word):
        yield from checked(choice.reader.read(clean, options), clean, choice.word, options)


def _unpacked_pieces(choice: Choice, path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Pieces of the files in a packed one; others, such as a README, are passed over."""
    found = False
    with unpacked(path) as files:
        for file in files:
            if file.is_file() and is_archive(path.name) and not reads_name(choice.reader, file):
                continue
            found = True
            inside = choose(file, choice.word)
            for one in in_time_order(inside.paths, options):
                for piece in read_pieces(inside, one, options):
                    yield replace(piece, source=path_inside(piece.source, path))
        if not found:
            raise FrameError(
                f"{path} holds no file for the reader {choice.word}",
                expected=f"names that end in {', '.join(choice.reader.SUFFIXES)}",
                fix="check the path, or name another --reader",
            )


def _joined(
    where: Path, choice: Choice, options: ReadOptions, units: str | None
) -> Generator[tuple[Joined, list[str]], None, None]:
    joiner = Joiner()
    for path in in_time_order(choice.paths, options):
        for piece in read_pieces(choice, path, options):
            _check_units(piece.source, piece.quantity, units)
            if len(piece.frames):
                yield joiner.add(piece), joiner.files
    if joiner.first is None:
        raise FrameError(f"{where} holds no frame", expected="at least one", fix="check the path")


def _check_units(source: str, found: Quantity, expected: str | None) -> None:
    if expected is not None and not convertible(found, cf_units(expected)):
        raise FrameError(
            f"{source} is in {found.units}",
            expected=cf_units(expected),
            fix=unit_fix(found, cf_units(expected)),
        )


def _newest(choice: Choice, options: ReadOptions, count: int | None) -> Choice:
    if count is None or times_of(choice.paths, options) is None:
        return choice
    return replace(choice, paths=in_time_order(choice.paths, options)[-count:])
