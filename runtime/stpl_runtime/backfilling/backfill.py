"""`stpl-deploy backfill`: plan the blocks, have them made, and account for every window."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.bundle import MANIFEST, Bundle
from stpl_core.errors import SinkError, UsageError
from stpl_core.files import sha256_of
from stpl_core.machine import usable_cpus
from stpl_core.option import flat
from stpl_core.options import BackfillOptions, ReadingOptions
from stpl_core.safety.open_signed import open_trusted
from stpl_core.same_grid import check_same_grid
from stpl_core.scores.accumulator import Scores
from stpl_runtime.backfilling.block import BlockReport, open_maker
from stpl_runtime.backfilling.on_dask import made_by_dask
from stpl_runtime.backfilling.processes import made_by_processes
from stpl_runtime.backfilling.scores import scores_of
from stpl_runtime.backfilling.store import FACTS, Counts, Made, Store, create, shards
from stpl_runtime.backfilling.windows import Windows
from stpl_runtime.engine import TRITON, precision_of
from stpl_runtime.engines.tiled import seams_note, wanted_size
from stpl_runtime.ingest.decoding import datetime_of
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.make import open_backend, plan_nowcast
from stpl_runtime.nowcasting.predict import made_by

_log = logging.getLogger(__name__)

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Called with (windows made, of how many that this run makes)."""


@dataclass(frozen=True)
class BackfillReport:
    """What is in the store, and what this run did."""

    out: Path
    counts: Counts
    """Of the store: windows = written + incomplete + failed + pending."""
    made: int
    """Windows that this run made."""
    seconds: float
    reasons: list[str] = field(default_factory=list)
    """Why windows failed in this run, the first few."""
    scores: dict[str, Scores] | None = None
    """Of all that is made, with `evaluate`: of the model and of persistence."""


@dataclass(frozen=True)
class Hooks:
    """Who is told what while it runs."""

    say: Say = lambda line: None
    progress: Progress = lambda done, of: None
    on_start: Callable[[int], None] = lambda pid: None
    """Given the number of each worker process."""


_QUIET = Hooks()
_NAMED = 5


def run_backfill(options: BackfillOptions, hooks: Hooks = _QUIET) -> BackfillReport:
    """Make the nowcasts that the store does not have yet.

    Args:
        options: what is asked for.
        hooks: called while it runs.

    Raises:
        UsageError: options that do not hold, an archive that cannot be used, or a store that was
            made of something else.
        StplError: what reading, the engine or the disk raise; what is made stays.
    """
    began = time.monotonic()
    shard, threads = _shard(options.shard), _threads(options)
    _check_out(options.out)
    bundle = open_trusted(options.bundle, options.trust)
    windows = Windows(bundle, options)
    if not options.out.exists():
        _begin(bundle, windows, options, hooks)
    store = Store(options.out)
    options = _as_begun(bundle, windows, options, store, hooks)
    done = store.done()
    todo = [block for block in shards(range(store.layout.blocks), shard) if block not in done]
    made, reasons = 0, list[str]()
    if todo:
        _plan_memory(bundle, options, hooks)
        of = sum(len(store.layout.rows(block)) for block in todo)
        hooks.progress(0, of)
        for report in _made(todo, options, threads, hooks):
            made += report.windows
            for reason in report.reasons[: _NAMED - len(reasons)]:
                _log.warning("a window failed: %s", reason)
                reasons.append(reason)
            hooks.progress(made, of)
    if swept := store.sweep():
        _log.info(
            "removed %d files of %s that killed processes left half-written", swept, store.path
        )
    scores = _scores(bundle, store) if store.made.evaluate else None
    seconds = time.monotonic() - began
    return BackfillReport(options.out, store.counts(), made, seconds, reasons, scores)


def _scores(bundle: Bundle, store: Store) -> dict[str, Scores] | None:
    made = store.made
    blocks = sorted(store.done())
    return scores_of(store.path, blocks, bundle.manifest.codec, made.horizon, made.grid)


def _made(
    todo: Sequence[int], options: BackfillOptions, threads: int | None, hooks: Hooks
) -> Iterator[BlockReport]:
    if options.dask is not None:
        yield from made_by_dask(todo, options, options.dask)
        return
    if not options.backend.engine.startswith(TRITON):  # a server has its own threads
        options = replace(options, backend=replace(options.backend, threads=threads))
    if options.workers > 1:
        assert threads is not None, "shared out"
        yield from made_by_processes(
            todo, options, options.workers, threads, hooks.say, hooks.on_start
        )
        return
    with open_maker(options) as maker:
        for block in todo:
            yield maker.make(block)


def _begin(bundle: Bundle, windows: Windows, options: BackfillOptions, hooks: Hooks) -> None:
    """Look through the archive, and make the store."""
    manifest = bundle.manifest
    steps = manifest.horizon if options.horizon is None else options.horizon
    windows.place(windows.files.locate(hooks.progress))
    fitted, notes = windows.first()
    size = (fitted.grid.height, fitted.grid.width)
    crop = None if options.domain.grid else manifest.recipe.get("data", {}).get("crop")
    remark = check_same_grid(
        fitted.grid, manifest.grids, str(options.archive), any_grid=options.domain.any_grid,
        crop=crop,
    )  # fmt: skip
    for line in filter(None, (remark, seams_note(bundle, size))):
        hooks.say(line)
    _plan_memory(bundle, options, hooks)
    with open_backend(bundle, options.backend, options.horizon, say=hooks.say) as session:
        how, precision = made_by(bundle, session, "window"), precision_of(session, manifest)
    times = windows.located.time[windows.rows[:, -1]]
    frame = np.broadcast_to(np.float32(np.nan), (manifest.frame[0], *size))
    nowcast = Nowcast(
        frames=np.broadcast_to(frame, (steps, *frame.shape)),
        context=frame[None],
        units=manifest.codec.units,
        quantity=manifest.codec.quantity,
        low=manifest.codec.low,
        high=manifest.codec.high,
        issue_time=datetime_of(times[0]),
        cadence_s=windows.cadence_s,
        source_id=options.archive.name,
        made_by=how,
        grid=fitted.grid,
        standard_name=fitted.standard_name,
        notes=notes,
    )
    word = options.backend.engine
    engine = how["engine"] if word == "auto" else word
    made = _asked(bundle, windows, options, size, engine, precision)
    try:
        create(options.out, nowcast, times, windows.located, made, windows.incomplete)
    except (UsageError, SinkError):
        if not (options.out / FACTS).exists():  # else another shard was first
            raise


def _asked(
    bundle: Bundle,
    windows: Windows,
    options: BackfillOptions,
    size: tuple[int, int],
    engine: str,
    precision: str,
) -> Made:
    """What the store is, or would be, made of."""
    manifest, usual = bundle.manifest, flat(ReadingOptions())
    stated = flat(options.reading)
    return Made(
        bundle=_checksum(bundle),
        model=manifest.model.name,
        engine=engine,
        precision=precision,
        horizon=manifest.horizon if options.horizon is None else options.horizon,
        cadence_s=windows.cadence_s,
        grid=size,
        overlap=options.domain.overlap,
        reading={
            key: list(value) if isinstance(value, tuple) else value
            for key, value in stated.items()
            if value != usual[key]
        },
        evaluate=options.evaluate,
    )


_OPTIONS = {
    "horizon": "--horizon",
    "cadence_s": "--cadence",
    "grid": "--grid",
    "overlap": "--overlap",
    "engine": "--engine",
    "precision": "--allow",
}
"""Field of `Made` -> the option that decides it."""


def _as_begun(
    bundle: Bundle, windows: Windows, options: BackfillOptions, store: Store, hooks: Hooks
) -> BackfillOptions:
    """The options with the store's engine; refuses a store that was made of something else.

    Raises:
        UsageError: names what differs.
    """
    theirs, located = store.made, store.located()
    bundle_now = _checksum(bundle)
    if bundle_now != theirs.bundle:
        raise _another(store, "bundle", bundle_now, f"{theirs.bundle} ({theirs.model})", "")
    windows.files.check_same(located)
    windows.place(located)
    engine = theirs.engine if options.backend.engine == "auto" else options.backend.engine
    size = wanted_size(options.domain) or bundle.manifest.domain
    ours = _asked(bundle, windows, options, size, engine, theirs.precision)
    differs = ours.differs(theirs)
    if differs is not None:
        name, mine, other = differs
        if name == "evaluate":
            raise UsageError(
                f"{store.path} was made {'with' if other else 'without'} --evaluate",
                expected="the same as when it was begun: scores are of every window",
                fix=f"{'add' if other else 'leave out'} --evaluate, or another --out",
            )
        raise _another(
            store, name.removesuffix("_s"), _text(mine), _text(other), _OPTIONS.get(name, "")
        )
    added = windows.files.added_since(located)
    if added:
        hooks.say(
            f"{options.archive} has grown by {added} since the store was begun: they are not in it"
        )
    if located.unreadable:
        hooks.say(f"{len(located.unreadable)} files could not be read, and are left out")
    return replace(options, backend=replace(options.backend, engine=engine))


def _another(store: Store, what: str, ours: str, theirs: str, option: str) -> UsageError:
    """The error of a store that was made of something else."""
    return UsageError(
        f"{store.path} was made with another {what}: {theirs}",
        expected=f"{ours}, as asked for now",
        fix=f"{option} {theirs}, or another --out" if option else "another --out",
    )


def _text(value: Any) -> str:
    """As a person types it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _checksum(bundle: Bundle) -> str:
    return sha256_of(bundle.file(MANIFEST))[:16]


def _plan_memory(bundle: Bundle, options: BackfillOptions, hooks: Hooks) -> None:
    """Refuse what cannot fit, before anything is opened."""
    line = plan_nowcast(
        bundle, options.backend, options.horizon, options.domain, streams=options.workers
    )
    if line:
        hooks.say(line)


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".zarr":
        raise UsageError(
            f"--out {out} ends in {out.suffix or 'nothing'}",
            expected=".zarr, which blocks can be written into",
            fix=f"--out {out.with_suffix('.zarr')}",
        )


def _shard(text: str | None) -> tuple[int, int]:
    """(I, N) of `--shard I/N`.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return 1, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise UsageError(
            f"--shard {text}",
            expected=f"1/{parts} to {parts}/{parts}" if parts else "I/N, such as 1/4 to 4/4",
            fix=f"--shard {min(max(part, 1), parts)}/{parts}" if parts else "--shard 1/4",
        )
    return part, parts


def _threads(options: BackfillOptions) -> int | None:
    """Compute threads of each worker: together never more than there are CPUs.

    Raises:
        UsageError: more were asked for.
    """
    asked, workers, cpus = options.backend.threads, options.workers, usable_cpus()
    if options.dask is not None:
        if workers > 1:
            raise UsageError(
                f"--workers {workers} with --dask",
                expected="one of them: Dask has workers of its own",
                fix="leave --workers out",
            )
        return asked
    if workers > cpus or (asked is not None and workers > 1 and workers * asked > cpus):
        each = "" if asked is None else f" with {asked} threads each"
        fits = f"--workers {cpus}" if workers > cpus else f"--threads {cpus // workers}"
        raise UsageError(
            f"--workers {workers}{each}",
            expected=f"at most {cpus} threads together, one for each CPU that it may use",
            fix=fits,
        )
    return asked if asked is not None or workers == 1 else cpus // workers


def as_document(report: BackfillReport) -> dict[str, Any]:
    """The report as plain values."""
    scores = report.scores
    return {
        "out": str(report.out),
        **vars(report.counts),
        "made": report.made,
        "seconds": round(report.seconds, 3),
        "reasons": report.reasons,
        **({} if scores is None else {"scores": {way: s.document() for way, s in scores.items()}}),
    }
