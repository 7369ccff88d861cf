"""Opens archives: reads, checks, fits and splits them into windows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError, RecipeError
from stpl_core.frames import FrameShape
from stpl_core.readers.converted import files_of, quantity_of
from stpl_core.readers.in_units import convertible, unit_fix
from stpl_core.readers.opening import open_frames
from stpl_core.readers.units import cf_units
from stpl_core.windows.cut import Windows, whole_places
from stpl_core.windows.frames import ArchiveFrames, Values
from stpl_core.windows.placing import Indices, Layout, as_published, breaks, by_time
from stpl_core.windows.settings import ArchiveSettings
from stpl_core.windows.tiles import find_places

if TYPE_CHECKING:
    import xarray as xr

_NAMED = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """One or several opened archives."""

    frames: tuple[ArchiveFrames, ...]
    shape: FrameShape
    """(C, H, W) of the windows."""
    parts: dict[str, Windows]
    """training, validation and test; any of them may be empty."""
    cadence_s: float | None
    """Seconds between the frames of a window; None where times are counted."""
    starts: dict[str, Indices] = field(default_factory=dict)
    """First frame of each window of a part, counted over all archives."""
    layout: Layout = field(default_factory=lambda: Layout(1))

    def whole(self, part: str) -> Windows:
        """The windows of a part as whole fields, where `parts` has tiles of them.

        Raises:
            FrameError: they lie in archives of several sizes.
        """
        own = _of_each(self.frames, self.starts[part])
        used = [number for number, first in enumerate(own) if len(first)]
        sizes = sorted({self.frames[number].frame[1:] for number in used})
        if len(sizes) > 1:
            raise FrameError(
                f"the {part} part has fields of {' and '.join(f'{h}x{w}' for h, w in sizes)}",
                expected="fields of one size",
                fix="--data with one of the archives, or --windows",
            )
        places = [whole_places(own[number], number) for number in used]
        empty = np.zeros((0, 4), np.int64)
        size = sizes[0] if sizes else self.frames[0].frame[1:]
        return Windows(self.frames, np.concatenate([empty, *places]), size, self.layout)


def open_archive(settings: ArchiveSettings, keep: Values) -> Archive:
    """Open, check, fit and split what settings name.

    Args:
        settings: which archives, and how they are cut.
        keep: the values that will be read most; see `ArchiveFrames`.

    Raises:
        FrameError: files that cannot be read or used; names the file.
        RecipeError: a cadence or a split that the data does not have.
        MissingExtraError: the reader's library is not installed.
        UsageError: no such reader.
    """
    opened = tuple(_open_one(path, settings, keep) for path in settings.paths)
    cadence_s = _cadences(opened, settings)
    broken = [_breaks(*pair) for pair in zip(opened, cadence_s, strict=True)]
    starts = _split(settings, opened, np.concatenate(broken))
    first = opened[0]
    parts: dict[str, Windows] = {}
    for part, at in starts.items():
        if settings.tiles or len(opened) > 1:
            parts[part] = _tiles(settings, opened, at, training=part == "training")
        else:
            parts[part] = Windows(opened, whole_places(at), first.frame[1:], settings.window_layout)
    every = cadence_s[-1] if first.dataset.attrs["time_is"] == "observed" else None
    shape = settings.frame if settings.tiles and settings.frame else first.frame
    cadence = every * settings.every if every else None
    return Archive(opened, shape, parts, cadence, starts, settings.window_layout)


def check_there(path: Path, settings: ArchiveSettings) -> None:
    """Refuse a path where nothing is.

    Raises:
        FrameError: says what data it is for.
    """
    if path.expanduser().exists():
        return
    words = f"stpl-deploy data fetch {settings.fetch}, then " if settings.fetch else ""
    raise FrameError(
        f"no data at {path}",
        expected=settings.expects or "a file or folder that a reader reads (docs/data.md)",
        fix=f"{words}--set data.path=PATH; stpl-deploy data inspect PATH checks the data",
    )


def _open_one(path: Path, settings: ArchiveSettings, keep: Values) -> ArchiveFrames:
    where, codec, wanted = str(path), settings.codec, settings.frame
    check_there(path, settings)
    options = settings.reading
    dataset = open_frames(Path(where).expanduser(), settings.reader, options)
    _check_units(dataset, codec)
    frames = ArchiveFrames(dataset, settings.fit, codec, where, keep)
    found, coloured = frames.frame, "colours" in dataset.attrs
    if wanted is not None and wanted[0] != found[0]:
        raise FrameError(
            f"{where} has {found[0]} channel{'' if found[0] == 1 else 's'}"
            + (", since its colours were turned to grey" if coloured else ""),
            expected=f"{wanted[0]}, as data.frame says",
            fix="--set data.variable=rgb"
            if coloured and wanted[0] == 3
            else f"--set data.frame='[{', '.join(map(str, found))}]'",
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
    _warn(frames, broken, sequence)
    return broken


def _split(
    settings: ArchiveSettings, opened: tuple[ArchiveFrames, ...], broken: NDArray[np.bool_]
) -> dict[str, Indices]:
    """Starts of the windows, counted over all archives, in training, validation and test."""
    usable = np.concatenate([frames.usable for frames in opened])
    published = all("split" in frames.dataset.variables for frames in opened)
    if settings.split == "published" and not published:
        raise RecipeError(
            f'data.split = "published", but {settings.where} has none',
            expected="data with a published split, such as TaxiBJ",
            fix="--set data.split=time",
        )
    layout, validation = settings.window_layout, settings.validation_fraction
    if published and settings.split != "time":
        split = np.concatenate([frames.dataset["split"].values for frames in opened])
        return as_published(broken, usable, layout, split, validation)
    return by_time(broken, usable, layout, validation, settings.test_fraction)


def _tiles(
    settings: ArchiveSettings, opened: tuple[ArchiveFrames, ...], starts: Indices, *, training: bool
) -> Windows:
    own = _of_each(opened, starts)
    size = opened[0].frame[1:] if settings.frame is None else settings.frame[1:]
    least_echo = settings.least_echo if training else 0.0
    places = find_places(
        opened, own, size, settings.window_layout, overlap=training, least_echo=least_echo
    )
    return Windows(opened, places, size, settings.window_layout)


def _of_each(opened: tuple[ArchiveFrames, ...], starts: Indices) -> list[Indices]:
    """Starts that are counted over all archives, of each archive by itself."""
    edges = np.cumsum([0, *(len(frames.usable) for frames in opened)])
    return [starts[(starts >= low) & (starts < high)] - low for low, high in pairwise(edges)]


def _check_units(dataset: xr.Dataset, codec: FrameCodec) -> None:
    quantity = quantity_of(dataset)
    if convertible(quantity, cf_units(codec.units)):
        return
    raise FrameError(
        f"{files_of(dataset)[0]} is in {quantity.units}",
        expected=f"{codec.units}, as data.codec.units says",
        fix=unit_fix(quantity, cf_units(codec.units), "--set data.units=")
        + ("" if quantity.units == "unknown" else ", whose data.codec.units is that"),
    )


def _cadences(opened: tuple[ArchiveFrames, ...], settings: ArchiveSettings) -> list[float | None]:
    """Seconds from frame to frame of each archive; what is stated is that of the last one."""
    if settings.cadences == "any":
        free = settings.model_copy(update={"cadence_s": None})
        others = [_cadence(frames.dataset, free) for frames in opened[:-1]]
        return [*others, _cadence(opened[-1].dataset, settings)]
    found = [_cadence(frames.dataset, settings) for frames in opened]
    _same_cadence(settings, found)
    return found


def _cadence(dataset: xr.Dataset, settings: ArchiveSettings) -> float | None:
    """Seconds from frame to frame of the archive."""
    found = dataset.attrs.get("cadence_s")
    cadence_s = None if found is None else float(found)
    stated = settings.cadence_s
    if stated is None or cadence_s is None or dataset.attrs["time_is"] != "observed":
        return cadence_s
    if abs(stated - settings.every * cadence_s) > 0.01 * stated:
        ratio = max(1, round(stated / cadence_s))
        raise RecipeError(
            f"data.cadence_s = {stated:g}, but {settings.where} has a frame every {cadence_s:g} s "
            f"and data.every is {settings.every}",
            expected=f"{settings.every * cadence_s:g}",
            fix=f"--set data.every={ratio} --set data.cadence_s={ratio * cadence_s:g}",
        )
    return cadence_s


def _same_cadence(settings: ArchiveSettings, cadence_s: list[float | None]) -> None:
    for path, found in zip(settings.paths, cadence_s, strict=True):
        if found != cadence_s[0]:
            raise RecipeError(
                f"{path} has a frame every {found or 0:g} s",
                expected=f"{cadence_s[0] or 0:g} s, as {settings.paths[0]}",
                fix="archives of one cadence in data.path, or --set data.cadences=any",
            )


def _warn(frames: ArchiveFrames, broken: NDArray[np.bool_], sequence: NDArray[np.int32]) -> None:
    """Log which frames are left out, and where windows may not go on."""
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
