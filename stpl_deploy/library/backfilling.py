"""Nowcasts of a whole archive, in one store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stpl_core.option import fill
from stpl_core.options import BackfillOptions
from stpl_deploy.library.numbers import sized
from stpl_runtime.backfilling.backfill import BackfillReport, Hooks, run_backfill


def backfill(
    bundle: Path | str,
    archive: Path | str,
    out: Path | str,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
    **options: Any,
) -> BackfillReport:
    """Make a nowcast of every complete window of an archive that the store does not have yet.

    Args:
        bundle: a bundle's directory.
        archive: a file or folder of frames with times.
        out: a Zarr store, `xarray.open_zarr(out).nowcast` (issue_time, lead_time, [channel], y, x):
            a new one, or one that an earlier call began.
        progress: called with (windows made, windows that this call makes).
        **options: of `stpl_core.options.BackfillOptions`, by name: `workers`, `shard`, `dask`,
            `horizon`, `engine`, `threads`, `cadence`, `grid` ...

    Returns:
        The report; `counts` has windows = written + incomplete + failed + pending.

    Raises:
        UsageError: options that do not hold, or a store that was made of something else.
        FrameError: an archive that cannot be used.
        StplError: what the engine or the disk raise. What is made stays: call it again.
    """
    given = {"bundle": bundle, "archive": archive, "out": out, **sized(options)}
    asked = fill(BackfillOptions, given, "backfill")
    return run_backfill(asked, Hooks(progress=progress))
