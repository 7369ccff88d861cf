"""What `predict` reads by a reader: the newest frames of any format, on the model's grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.frames import masks_of
from stpl_core.reader import CREDITS, ReadOptions
from stpl_core.readers.converted import files_of, grid_of, quantity_of
from stpl_core.readers.fit import Fit, fit_for
from stpl_core.readers.model_input import model_input
from stpl_core.readers.opening import open_frames
from stpl_core.windows.settings import ArchiveSettings
from stpl_runtime.ingest.decoding import datetime_of
from stpl_runtime.ingest.inputs import Context, check_issue, without_times
from stpl_runtime.source import SourceSpec
from stpl_runtime.timing import EPOCH, TOLERANCE, naive_utc, time_text

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class ArchiveSpec:
    """How an archive becomes the frames that a model was trained on."""

    reader: str | None = None
    """Word of the reader; None finds it."""
    variable: str | None = None
    """Which one, where a file holds several."""
    reading: ReadOptions = field(default_factory=ReadOptions)
    """What else is said about reading: units, missing values, levels, times in names."""
    fit: Fit | None = None
    """For frames of another size than the model's; None refuses them."""
    every: int = 1
    """The model was trained on every n-th frame."""


def archive_spec(
    recipe: Mapping[str, Any],
    reader: str | None,
    variable: str | None,
    domain: tuple[int, int] | None = None,
    reading: ReadOptions | None = None,
) -> ArchiveSpec:
    """How the recipe in a manifest read its archive; what the user says comes first.

    Args:
        recipe: of the manifest.
        reader: the user's word; None finds one.
        variable: the user's; None takes the recipe's.
        domain: (H, W) of a field that the model covers in tiles: all of it, nothing cropped.
        reading: the user's; what it leaves open is the recipe's.
    """
    reading = reading or ReadOptions()
    settings = ArchiveSettings.of_recipe(recipe.get("data", {}))
    if settings is None:
        return ArchiveSpec(reader, variable, reading)
    variable, reading = variable or settings.variable, _completed(reading, settings.reading)
    if settings.tiles:  # whose frames were never averaged
        return ArchiveSpec(reader, variable, reading, every=settings.every)
    fit = settings.fit if domain is None else replace(settings.fit, crop=None, size=domain)
    return ArchiveSpec(reader, variable, reading, fit, settings.every)


def _completed(stated: ReadOptions, trained: ReadOptions) -> ReadOptions:
    """What the user says about reading, and for the rest what the recipe does."""
    default = ReadOptions()
    left_open = {
        key: getattr(trained, key)
        for key in ("units", "nan", "select", "time_format", "bad_pixels")
        if getattr(stated, key) == getattr(default, key)
    }
    return replace(stated, **left_open)


def read_archive(
    path: Path,
    context: int,
    spec: SourceSpec,
    how: ArchiveSpec,
    until: datetime | None = None,
) -> Context:
    """Read the newest `context` frames.

    Args:
        path: what a reader reads.
        context: T.
        spec: the frames that are expected; a stated cadence is the step between them.
        how: which reader, and how its frames come to the model's grid.
        until: the issue time: no later frame is read; None: the newest frame's.

    Raises:
        FrameError: it cannot be read, is in other units, has too few frames, a hole between them
            or a frame without any data. Names the file.
        MissingExtraError: the reader's library is not installed.
        UsageError: no such reader.
    """
    options = replace(how.reading, variable=how.variable)
    if spec.time_format is not None:
        options = replace(options, time_format=spec.time_format)
    reach = None if until is not None else (context - 1) * how.every + 1
    dataset = open_frames(path, how.reader, options, units=spec.codec.units, newest=reach)
    if until is not None:
        dataset = _until(dataset, until, str(path))
    return context_of(dataset, context, spec, how, str(path))


def _until(dataset: xr.Dataset, until: datetime, where: str) -> xr.Dataset:
    """The frames up to an issue time."""
    if dataset.attrs["time_is"] != "observed":
        raise without_times(where, until)
    times = dataset["time"].values.astype("datetime64[ns]")
    count = int((times <= np.datetime64(naive_utc(until), "ns")).sum())
    newest = datetime_of(times[count - 1]) if count else None
    check_issue(newest, until, dataset.attrs.get("cadence_s"))
    return dataset.isel(time=slice(0, count))


def context_of(
    dataset: xr.Dataset, context: int, spec: SourceSpec, how: ArchiveSpec, where: str
) -> Context:
    """The newest `context` frames of a dataset of ours; see `read_archive`.

    Args:
        dataset: see `stpl_core.readers.dataset`; in the unit of `spec`, or one it converts from.
        context: T.
        spec: the frames that are expected.
        how: how they come to the model's grid.
        where: what has them, for messages.
    """
    timed = dataset.attrs["time_is"] == "observed"
    found = dataset.attrs.get("cadence_s")
    cadence_s = spec.cadence_s
    if cadence_s is None and timed and found is not None:
        cadence_s = float(found) * how.every
    rows = _by_time(dataset, context, cadence_s) if timed else _counted(dataset, context, how)
    _one_sequence(dataset, rows)
    part = dataset.isel(time=rows)
    channels, height, width = part["frames"].shape[1:]
    fit = fit_for((channels, height, width), spec.shape, how.fit, "none", where)
    fitted = model_input(
        part["frames"].values,
        part["state"].values,
        quantity_of(dataset),
        grid_of(dataset),
        spec.codec,
        fit,
        where,
    )
    files, times = files_of(dataset), [datetime_of(time) for time in part["time"].values]
    given = [fitted.frame(n, f"{files[row]} ({time_text(times[n])})") for n, row in enumerate(rows)]
    return Context(
        frames=np.stack([frame for frame, _ in given])[None],  # (1, T, C, H, W)
        times=tuple(times) if timed else (),
        cadence_s=cadence_s,
        source_id=Path(files[rows[-1]]).name,
        grid=fitted.grid,
        observed=given[-1][1],
        context_observed=masks_of([mask for _, mask in given], spec.shape),
        standard_name=fitted.standard_name,
        notes={key: str(dataset.attrs[key]) for key in CREDITS if key in dataset.attrs},
    )


def _by_time(dataset: xr.Dataset, context: int, cadence_s: float | None) -> list[int]:
    """The rows at the newest time and each cadence before it."""
    times = dataset["time"].values.astype("datetime64[ns]").astype(np.int64)
    if cadence_s is None:
        _enough(dataset, context, 1)
        cadence_s = 1.0
    rows = []
    for back in range(context - 1, -1, -1):
        wanted = int(times[-1]) - round(back * cadence_s * 1e9)
        row = int(np.argmin(np.abs(times - wanted)))
        if abs(int(times[row]) - wanted) > TOLERANCE * cadence_s * 1e9 or row in rows:
            due = time_text(EPOCH + timedelta(microseconds=wanted // 1000))
            raise FrameError(
                f"no frame of {due} before {files_of(dataset)[-1]} "
                f"({time_text(datetime_of(dataset['time'].values[-1]))})",
                expected=f"{context} frames, one every {cadence_s:g} s",
                fix="fill the hole; --cadence SECONDS if that is not it",
            )
        rows.append(row)
    return rows


def _counted(dataset: xr.Dataset, context: int, how: ArchiveSpec) -> list[int]:
    _enough(dataset, context, how.every)
    last = dataset.sizes["time"] - 1
    return [last - back * how.every for back in range(context - 1, -1, -1)]


def _enough(dataset: xr.Dataset, context: int, every: int) -> None:
    count, wanted = dataset.sizes["time"], (context - 1) * every + 1
    if count < wanted:
        raise FrameError(
            f"{files_of(dataset)[-1]} and what comes before it: {count} frame(s)",
            expected=f"at least {wanted}, which this model reads",
            fix=f"give {wanted} consecutive frames",
        )


def _one_sequence(dataset: xr.Dataset, rows: list[int]) -> None:
    if len(set(dataset["sequence"].values[rows].tolist())) > 1:
        raise FrameError(
            f"{files_of(dataset)[rows[-1]]} ends a sequence that is too short",
            expected=f"{len(rows)} frames of one sequence",
            fix="give a longer sequence",
        )
