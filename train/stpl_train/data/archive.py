"""Frames of any format that `stpl_core.readers` knows, fitted to the model's grid, as windows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError, RecipeError
from stpl_core.frames import FrameShape
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, Quantity, ReadOptions, States, Times
from stpl_core.readers.converted import grid_of, quantity_of
from stpl_core.readers.fit import Fit
from stpl_core.readers.in_units import convertible, in_units
from stpl_core.readers.opening import open_frames
from stpl_train.data.fitting import check_there
from stpl_train.data.sequences import DataSplit, Indices, Mask, masked_batch
from stpl_train.data.tiles import Tiles, find_places
from stpl_train.data.windows import Layout, as_published, breaks, by_time
from stpl_train.recipe import ArchiveSection

if TYPE_CHECKING:
    import xarray as xr

_IN_MEMORY = 2**31
"""Bytes of fitted frames that are kept; larger archives are read window by window."""
_BLOCK_VALUES = 2**24
"""Values that the check at opening reads at a time."""
_NAMED = 5

_log = logging.getLogger(__name__)


class ArchiveFrames:
    """The frames of an archive on the model's grid."""

    def __init__(self, dataset: xr.Dataset, fit: Fit, codec: FrameCodec, where: str) -> None:
        """Read and check every frame once.

        Raises:
            FrameError: values that the codec does not take, by file; or sizes that do not fit.
        """
        self.dataset, self._fit, self._codec = dataset, fit, codec
        self._quantity: Quantity = quantity_of(dataset)
        self.grid: Grid = fit.grid(grid_of(dataset), where)
        """Of the fitted frames."""
        self._files = str(dataset.attrs["files"]).split("\n")
        self._source = dataset["source"].values
        shape = dataset["frames"].shape
        self.frame = (int(shape[1]), self.grid.height, self.grid.width)
        """(C, H, W)"""
        self.usable = np.ones(shape[0], bool)
        """`(T,)`, False where a frame is no data all over."""
        self._kept: tuple[Array, States] | None = None
        keep = shape[0] * int(np.prod(self.frame)) * 5 <= _IN_MEMORY
        kept: list[tuple[Array, States]] = []
        block = max(1, _BLOCK_VALUES // int(np.prod(shape[1:])))
        for start in range(0, shape[0], block):
            rows = slice(start, min(start + block, shape[0]))
            part = self._read(rows)
            self._check(rows, *part)
            if keep:
                kept.append(part)
        if keep:
            frames, states = zip(*kept, strict=True)
            self._kept = np.concatenate(frames), np.concatenate(states)

    def read(self, rows: slice) -> tuple[Array, States]:
        """Frames `(n, C, H, W)`, NaN where there is no data, and states `(n, H, W)`."""
        if self._kept is not None:
            return self._kept[0][rows], self._kept[1][rows]
        return self._read(rows)

    def file(self, row: int) -> str:
        """Where a frame came from, with its time."""
        time = np.datetime_as_string(self.dataset["time"].values[row], unit="s")
        return f"{self._files[int(self._source[row])]} ({time}Z)"

    def _read(self, rows: slice) -> tuple[Array, States]:
        part = self.dataset.isel(time=rows)
        frames, state = self._fit.apply(part["frames"].values, part["state"].values, self._quantity)
        frames = in_units(frames, state, self._quantity, self._codec.units, self._codec.zr)
        nothing = np.broadcast_to((state == NO_ECHO)[:, None], frames.shape)
        return np.where(nothing, np.float32(self._codec.no_rain_value), frames), state

    def _check(self, rows: slice, frames: Array, state: States) -> None:
        for n, row in enumerate(range(rows.start, rows.stop)):
            observed = state[n] != NO_DATA
            self.usable[row] = observed.any()
            try:
                self._codec.check(frames[n], self.file(row), observed)
            except FrameError as error:
                raise FrameError(
                    error.found,
                    expected=error.expected,
                    fix="another data.codec.low and high, or --set data.codec.clip=true",
                ) from error


@dataclass(frozen=True)
class ArchiveWindows:
    """Contiguous windows of an archive."""

    frames: ArchiveFrames
    starts: Indices
    """`(count,)`, first frame of each window."""
    layout: Layout
    codec: FrameCodec

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self.starts)

    def batch(self, indices: Indices) -> Array:
        """Windows `(B, T + K, C, H, W)` float32 in model units; no data is `no_data_value`."""
        return self.codec.model_from_physical(self.physical(indices))

    def masked(self, indices: Indices) -> tuple[Array, Mask]:
        """`batch` and `observed`, read once."""
        frames, states = zip(*map(self.frames.read, self._rows(indices)), strict=True)
        return self.codec.model_from_physical(np.stack(frames)), np.stack(states) != NO_DATA

    def physical(self, indices: Indices) -> Array:
        """Windows `(B, T + K, C, H, W)` in physical units, NaN where there is no data."""
        return np.stack([self.frames.read(rows)[0] for rows in self._rows(indices)])

    def observed(self, indices: Indices) -> Mask:
        """`(B, T + K, H, W)`, True where a pixel was observed: what a score may count."""
        states = np.stack([self.frames.read(rows)[1] for rows in self._rows(indices)])
        return np.asarray(states != NO_DATA)

    def times(self, indices: Indices) -> Times:
        """`(B, T + K)`."""
        time = self.frames.dataset["time"].values.astype("datetime64[ns]")
        return np.stack([time[rows] for rows in self._rows(indices)])

    def _rows(self, indices: Indices) -> list[slice]:
        span, every = self.layout.span, self.layout.every
        return [slice(start, start + span, every) for start in self.starts[indices].tolist()]


Part = ArchiveWindows | Tiles


@dataclass(frozen=True)
class Archive:
    """One or several opened archives."""

    frames: tuple[ArchiveFrames, ...]
    shape: FrameShape
    """(C, H, W) of the windows."""
    parts: dict[str, Part]
    """training, validation and test; any of them may be empty."""
    cadence_s: float | None
    """Seconds between the frames of a window; None where times are counted."""


def open_archive(section: ArchiveSection) -> Archive:
    """Open, check, fit and split what a recipe's `[data]` names.

    Raises:
        FrameError: files that cannot be read or used; names the file.
        RecipeError: a cadence or a split that the data does not have.
        MissingExtraError: the reader's library is not installed.
        UsageError: no such reader.
    """
    opened = tuple(_open_one(path, section) for path in section.paths)
    cadence_s = [_cadence(frames.dataset, section) for frames in opened]
    _same_cadence(section, cadence_s)
    broken = [_breaks(*pair) for pair in zip(opened, cadence_s, strict=True)]
    starts = _split(section, opened, np.concatenate(broken))
    first = opened[0]
    parts: dict[str, Part] = {}
    for part, at in starts.items():
        if section.tiles or len(opened) > 1:
            parts[part] = _tiles(section, opened, at, training=part == "training")
        else:
            parts[part] = ArchiveWindows(first, at, _layout(section), section.codec)
    every = cadence_s[0] if first.dataset.attrs["time_is"] == "observed" else None
    shape = section.frame if section.tiles and section.frame else first.frame
    return Archive(opened, shape, parts, every * section.every if every else None)


def _open_one(path: Path, section: ArchiveSection) -> ArchiveFrames:
    where, codec = str(path), section.codec
    check_there(path, section)
    options = ReadOptions(variable=section.variable)
    dataset = open_frames(Path(where).expanduser(), section.reader, options)
    _check_units(dataset, codec)
    wanted = section.frame
    size = None if wanted is None or section.tiles else wanted[1:]
    fit = Fit(section.crop, size, section.resize == "bilinear", codec.zr)
    frames = ArchiveFrames(dataset, fit, codec, where)
    found = frames.frame
    if wanted is not None and wanted[0] != found[0]:
        raise FrameError(
            f"{where} has {found[0]} channel(s)",
            expected=f"{wanted[0]}, as data.frame says",
            fix=f"--set data.frame='[{', '.join(map(str, found))}]'",
        )
    if wanted is not None and (found[1] < wanted[1] or found[2] < wanted[2]):
        raise FrameError(
            f"{where} has {found[1]}x{found[2]} pixels",
            expected=f"at least tiles of {wanted[1]}x{wanted[2]}",
            fix=f"--set data.frame='[{', '.join(map(str, found))}]'",
        )
    return frames


def _breaks(frames: ArchiveFrames, cadence_s: float | None) -> NDArray[np.bool_]:
    time, sequence = frames.dataset["time"].values, frames.dataset["sequence"].values
    broken = breaks(time, sequence, frames.usable, cadence_s)
    _tell(frames, broken, sequence)
    return broken


def _split(
    section: ArchiveSection, opened: tuple[ArchiveFrames, ...], broken: NDArray[np.bool_]
) -> dict[str, Indices]:
    """Starts of the windows, counted over all archives, in training, validation and test."""
    usable = np.concatenate([frames.usable for frames in opened])
    published = all("split" in frames.dataset.variables for frames in opened)
    if section.split == "published" and not published:
        raise RecipeError(
            f'data.split = "published", but {section.where} has none',
            expected="data with a published split, such as TaxiBJ",
            fix="--set data.split=time",
        )
    layout, validation = _layout(section), section.validation_fraction
    if published and section.split != "time":
        split = np.concatenate([frames.dataset["split"].values for frames in opened])
        return as_published(broken, usable, layout, split, validation)
    return by_time(broken, usable, layout, validation, section.test_fraction)


def _tiles(
    section: ArchiveSection, opened: tuple[ArchiveFrames, ...], starts: Indices, *, training: bool
) -> Tiles:
    edges = np.cumsum([0, *(len(frames.usable) for frames in opened)])
    own = [starts[(starts >= low) & (starts < high)] - low for low, high in pairwise(edges)]
    size = opened[0].frame[1:] if section.frame is None else section.frame[1:]
    layout, codec = _layout(section), section.codec
    places = find_places(
        opened,
        own,
        size,
        layout,
        overlap=training,
        least_echo=section.least_echo if training else 0.0,
        codec=codec,
    )
    return Tiles(opened, places, size, layout, codec)


def open_archive_split(section: ArchiveSection) -> DataSplit:
    """What the training loop needs of an archive.

    Raises:
        FrameError: see `open_archive`; or too few contiguous frames for training or validation.
    """
    archive = open_archive(section)
    for part in ("training", "validation"):
        if archive.parts[part].count == 0:
            raise _no_window(section, archive, part)
    held_out = archive.parts["validation"]
    keep = min(held_out.count, section.validation_sequences)
    chosen = np.linspace(0, held_out.count - 1, keep).round().astype(np.int64)
    validation, observed = masked_batch(held_out, chosen)
    return DataSplit(
        training=archive.parts["training"],
        validation=validation,
        frame=archive.shape,
        cadence_s=archive.cadence_s,
        validation_observed=observed,
        grids=tuple(frames.grid for frames in archive.frames if frames.grid.crs_wkt),
    )


def _layout(section: ArchiveSection) -> Layout:
    return Layout(section.context + section.horizon, section.every, section.stride)


def _check_units(dataset: xr.Dataset, codec: FrameCodec) -> None:
    attributes = dataset["frames"].attrs
    if convertible(quantity_of(dataset), codec.units):
        return
    first = str(dataset.attrs["files"]).partition("\n")[0]
    raise FrameError(
        f"{first} is in {attributes['units']}",
        expected=f"{codec.units}, as data.codec.units says",
        fix=f"--set data.codec.units={attributes['units']!r}, with its low and high",
    )


def _cadence(dataset: xr.Dataset, section: ArchiveSection) -> float | None:
    """Seconds from frame to frame of the archive."""
    found = dataset.attrs.get("cadence_s")
    cadence_s = None if found is None else float(found)
    stated = section.cadence_s
    if stated is None or cadence_s is None or dataset.attrs["time_is"] != "observed":
        return cadence_s
    if abs(stated - section.every * cadence_s) > 0.01 * stated:
        ratio = max(1, round(stated / cadence_s))
        raise RecipeError(
            f"data.cadence_s = {stated:g}, but {section.where} has a frame every {cadence_s:g} s "
            f"and data.every is {section.every}",
            expected=f"{section.every * cadence_s:g}",
            fix=f"--set data.every={ratio} --set data.cadence_s={ratio * cadence_s:g}",
        )
    return cadence_s


def _same_cadence(section: ArchiveSection, cadence_s: list[float | None]) -> None:
    for path, found in zip(section.paths, cadence_s, strict=True):
        if found != cadence_s[0]:
            raise RecipeError(
                f"{path} has a frame every {found or 0:g} s",
                expected=f"{cadence_s[0] or 0:g} s, as {section.paths[0]}",
                fix="archives of one cadence in data.path",
            )


def _tell(frames: ArchiveFrames, broken: NDArray[np.bool_], sequence: NDArray[np.int32]) -> None:
    """Say which frames are left out, and where windows may not go on."""
    empty = np.flatnonzero(~frames.usable)
    for row in empty[:_NAMED].tolist():
        _log.warning("%s has no data all over: left out", frames.file(row))
    if len(empty) > _NAMED:
        _log.warning("%d more frames have no data all over: left out", len(empty) - _NAMED)
    gaps = np.flatnonzero(broken[1:] & (np.diff(sequence) == 0)) + 1
    gaps = gaps[frames.usable[gaps] & frames.usable[gaps - 1]]
    if len(gaps):
        _log.warning(
            "%d gap(s) or uneven steps, the first before %s: no window crosses them",
            len(gaps),
            frames.file(int(gaps[0])),
        )


def _no_window(section: ArchiveSection, archive: Archive, part: str) -> FrameError:
    span = _layout(section).span
    count = sum(len(frames.usable) for frames in archive.frames)
    return FrameError(
        f"{section.where} leaves no window of {span} contiguous frames for {part}",
        expected=f"{span} in a row in each part of its {count} frames",
        fix="more frames, another data.validation_fraction or test_fraction, or a shorter "
        "data.horizon",
    )
