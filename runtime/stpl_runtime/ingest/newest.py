"""The newest frames of a file or folder, as a model's source reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stpl_core.bundle import Bundle, Manifest
from stpl_core.options import DomainOptions, FrameOptions
from stpl_core.reader import ReadOptions
from stpl_core.same_grid import check_same_grid
from stpl_runtime.engines.tiled import wanted_size
from stpl_runtime.ingest.archive import archive_spec, read_archive
from stpl_runtime.ingest.inputs import Context, issue_time, needs_reader, read_context
from stpl_runtime.nowcasting.window import check_cadence
from stpl_runtime.source import SourceSpec


def read_newest(
    bundle: Bundle,
    path: Path,
    reading: FrameOptions,
    domain: DomainOptions,
    at: str | None = None,
) -> tuple[Context, str]:
    """The newest T frames of a file or folder, and what is to be known about their grid.

    Args:
        bundle: of the model that will read them.
        path: a folder of frames, an array file, or what a reader reads.
        reading: how.
        domain: where they are larger than the model's.
        at: the issue time in ISO 8601: no later frame is read; None: the newest frame's.

    Returns:
        The frames; and a remark about their pixels, empty where there is none.

    Raises:
        FrameError, UsageError: see `read_context` and `read_archive`.
    """
    manifest = bundle.manifest
    check_cadence(reading.cadence)
    size, until = wanted_size(domain), issue_time(at)
    spec = source_spec(manifest, reading, domain)
    stated = reading.for_readers()
    plain = replace(stated, time_format=None, layout=None) == ReadOptions()
    if reading.reader or not plain or needs_reader(path):
        how = archive_spec(manifest.recipe, reading.reader, reading.variable, size, stated)
        context = read_archive(path, manifest.context, spec, how, until)
    else:
        context = read_context(path, manifest.context, spec, until)
    return context, grid_remark(manifest, context, domain, str(path))


def grid_remark(manifest: Manifest, context: Context, domain: DomainOptions, where: str) -> str:
    """What is to be known about the frames' pixels; empty where there is nothing.

    Raises:
        FrameError: they have another size than in training, and `any_grid` is not given.
    """
    if context.grid is None:
        return ""
    crop = None if domain.grid else manifest.recipe.get("data", {}).get("crop")
    return check_same_grid(context.grid, manifest.grids, where, any_grid=domain.any_grid, crop=crop)


def source_spec(
    manifest: Manifest,
    reading: FrameOptions,
    domain: DomainOptions,
    given: Mapping[str, str] | None = None,
) -> SourceSpec:
    """What a source must know; frames of another size are fitted as the recipe did in training.

    Args:
        manifest: of the model.
        reading: how frames are read.
        domain: where they are larger than the model's.
        given: `--source-option`.
    """
    size = wanted_size(domain)
    how = archive_spec(
        manifest.recipe, reading.reader, reading.variable, size, reading.for_readers()
    )
    return SourceSpec(
        shape=(manifest.frame[0], *(size or manifest.domain)),
        codec=manifest.codec,
        time_format=reading.time_format,
        cadence_s=reading.cadence or manifest.cadence_s,
        mtime=reading.mtime,
        reader=how.reader,
        variable=how.variable,
        reading=how.reading,
        fit=how.fit,
        grids=() if domain.any_grid else manifest.grids,
        options=given or {},
    )
