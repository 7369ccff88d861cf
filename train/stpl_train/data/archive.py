"""Frames of any format that `stpl_deploy.readers` knows, fitted to the model's grid, as windows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpl_deploy.codec import Array, FrameCodec
from stpl_deploy.errors import FrameError, RecipeError
from stpl_deploy.grid import Grid
from stpl_deploy.reader import NO_DATA, NO_ECHO, Quantity, ReadOptions, States
from stpl_deploy.readers.fit import Fit
from stpl_deploy.readers.opening import open_frames
from stpl_deploy.readers.own import grid_of, quantity_of
from stpl_train.data.sequences import DataSplit, Indices
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
    def count(self) -> int | None:
        """How many windows there are."""
        return len(self.starts)

    def batch(self, indices: Indices) -> Array:
        """Windows `(B, T + K, C, H, W)` float32 in model units; no data is `no_data_value`."""
        windows = [self.frames.read(rows)[0] for rows in self._rows(indices)]
        return self.codec.model_from_physical(np.stack(windows))

    def physical(self, indices: Indices) -> Array:
        """Windows `(B, T + K, C, H, W)` in physical units, NaN where there is no data."""
        return np.stack([self.frames.read(rows)[0] for rows in self._rows(indices)])

    def observed(self, indices: Indices) -> NDArray[np.bool_]:
        """`(B, T + K, H, W)`, True where a pixel was observed: what a score may count."""
        states = np.stack([self.frames.read(rows)[1] for rows in self._rows(indices)])
        return np.asarray(states != NO_DATA)

    def _rows(self, indices: Indices) -> list[slice]:
        span, every = self.layout.span, self.layout.every
        return [slice(start, start + span, every) for start in self.starts[indices].tolist()]


@dataclass(frozen=True)
class Archive:
    """An opened archive."""

    frames: ArchiveFrames
    parts: dict[str, ArchiveWindows]
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
    where = str(section.path)
    options = ReadOptions(variable=section.variable)
    dataset = open_frames(Path(where).expanduser(), section.reader, options)
    codec, layout = section.codec, _layout(section)
    _check_units(dataset, codec)
    size = None if section.frame is None else section.frame[1:]
    frames = ArchiveFrames(dataset, Fit(section.crop, size, codec.zr), codec, where)
    if section.frame is not None and section.frame[0] != frames.frame[0]:
        raise FrameError(
            f"{where} has {frames.frame[0]} channel(s)",
            expected=f"{section.frame[0]}, as data.frame says",
            fix=f"--set data.frame='[{', '.join(map(str, frames.frame))}]'",
        )
    cadence_s = _cadence(dataset, section)
    time, sequence = dataset["time"].values, dataset["sequence"].values
    broken = breaks(time, sequence, frames.usable, cadence_s)
    _tell(frames, broken, sequence)
    published = "split" in dataset.variables
    if section.split == "published" and not published:
        raise RecipeError(
            f'data.split = "published", but {where} has none',
            expected="data with a published split, such as TaxiBJ",
            fix="--set data.split=time",
        )
    if published and section.split != "time":
        starts = as_published(
            broken,
            frames.usable,
            layout,
            dataset["split"].values,
            section.validation_fraction,
        )
    else:
        starts = by_time(
            broken, frames.usable, layout, section.validation_fraction, section.test_fraction
        )
    parts = {part: ArchiveWindows(frames, at, layout, codec) for part, at in starts.items()}
    observed = dataset.attrs["time_is"] == "observed" and cadence_s is not None
    return Archive(frames, parts, cadence_s * section.every if observed and cadence_s else None)


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
    keep = min(len(held_out.starts), section.validation_sequences)
    chosen = np.linspace(0, len(held_out.starts) - 1, keep).round().astype(np.int64)
    return DataSplit(
        training=archive.parts["training"],
        validation=held_out.batch(chosen),
        frame=archive.frames.frame,
        cadence_s=archive.cadence_s,
        validation_observed=held_out.observed(chosen),
    )


def _layout(section: ArchiveSection) -> Layout:
    return Layout(section.context + section.horizon, section.every, section.stride)


def _check_units(dataset: xr.Dataset, codec: FrameCodec) -> None:
    attributes = dataset["frames"].attrs
    if attributes["units"] == codec.units:
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
            f"data.cadence_s = {stated:g}, but {section.path} has a frame every {cadence_s:g} s "
            f"and data.every is {section.every}",
            expected=f"{section.every * cadence_s:g}",
            fix=f"--set data.every={ratio} --set data.cadence_s={ratio * cadence_s:g}",
        )
    return cadence_s


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
    return FrameError(
        f"{section.path} leaves no window of {span} contiguous frames for {part}",
        expected=f"{span} in a row in each part of its {len(archive.frames.usable)} frames",
        fix="more frames, another data.validation_fraction or test_fraction, or a shorter "
        "data.horizon",
    )
