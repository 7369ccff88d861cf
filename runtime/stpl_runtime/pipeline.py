"""From options to forecasts, wired once: bundle, session, tiles, frames, nowcaster, stream.

`predict`, `stream`, `serve`, the demo and the library all come through here. What is opened is
closed again, however it ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stpl_core.baselines import flow, persistence
from stpl_core.bundle import Bundle, Manifest
from stpl_core.codec import Array
from stpl_core.errors import UsageError
from stpl_core.options import (
    DomainOptions,
    EngineOptions,
    FrameOptions,
    PredictOptions,
    StreamOptions,
)
from stpl_core.reader import ReadOptions
from stpl_core.same_grid import check_same_grid
from stpl_runtime.chances import Chances
from stpl_runtime.engine import Session, open_session
from stpl_runtime.engines.auto.candidates import Asked
from stpl_runtime.engines.auto.choose import open_best
from stpl_runtime.engines.tiled import Size, domain_size, on_domain, seams_note
from stpl_runtime.forecast_memory import plan_memory
from stpl_runtime.ingest.archive import archive_spec, read_archive
from stpl_runtime.ingest.inputs import Context, issue_time, needs_reader, read_context
from stpl_runtime.ledger import Ledger
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.predict import (
    graphs_needed,
    made_by,
    predict_sequences,
    predict_with_chances,
)
from stpl_runtime.nowcasting.window import check_cadence
from stpl_runtime.sink import Sink, SinkSpec, open_sinks
from stpl_runtime.source import Source, SourceSpec, open_source
from stpl_runtime.streaming.state_file import StateFile
from stpl_runtime.streaming.status import Status
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from stpl_runtime.watching.watcher import Watcher


@contextmanager
def open_backend(
    bundle: Bundle,
    backend: EngineOptions,
    horizon: int | None = None,
    *,
    chances: bool = False,
    say: Callable[[str], None] | None = None,
    measure: bool = False,
) -> Iterator[Session]:
    """A session with the graphs that a nowcast of `horizon` frames runs through.

    Args:
        bundle: an opened bundle.
        backend: what it is to run on.
        horizon: frames to predict; None takes the bundle's.
        chances: those of events are wanted too.
        say: given a line on what `--engine auto` takes.
        measure: let `--engine auto` time what this machine has, where it did not before.

    Raises:
        StplError: see `open_session`.
    """
    manifest = bundle.manifest
    steps = manifest.horizon if horizon is None else horizon
    graphs = graphs_needed(manifest, steps, chances=chances)
    if backend.engine == "auto":
        asked = Asked(graphs, backend.threads, backend.forecast, backend.allow)
        session = open_best(
            bundle, asked, say, measure=measure, require_provider=backend.require_provider
        )
    else:
        session = open_session(bundle, graphs, **vars(backend))
    try:
        yield session
    finally:
        session.close()


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


def plan_nowcast(
    bundle: Bundle,
    backend: EngineOptions,
    horizon: int | None,
    domain: DomainOptions,
    context: Context | None = None,
    streams: int = 1,
    *,
    chances: bool = False,
) -> str:
    """One line on the memory of nowcasts, before the engine is opened; empty where it is little.

    Args:
        bundle: an opened bundle.
        backend: what it is to run on.
        horizon: frames to predict; None takes the bundle's.
        domain: where frames are larger than the model's.
        context: what was read; None: one sequence at a time.
        streams: that share the engine.
        chances: those of events are wanted too.

    Raises:
        EnvironmentFault: more is needed than there is; names the setting that fits.
    """
    return plan_memory(
        bundle,
        backend.engine,
        horizon,
        wanted_size(domain),
        domain.overlap,
        sequences=1 if context is None else len(context.frames),
        streams=streams,
        chances=chances,
    )


def make_nowcast(
    bundle: Bundle,
    session: Session,
    context: Context,
    horizon: int | None = None,
    domain: DomainOptions | None = None,
    *,
    chances: bool = False,
) -> Nowcast:
    """A nowcast of what was read; of several sequences one with an axis more in front.

    Args:
        bundle: an opened bundle.
        session: of it, with the graphs of `open_backend` open.
        context: what was read.
        horizon: frames to predict; None takes the bundle's.
        domain: where frames are larger than the model's.
        chances: those of events are wanted too.

    Raises:
        AccuracyError: the engine gave NaN or infinity.
        UsageError: an overlap that does not hold, or a model that gives no chances.
    """
    domain = domain or DomainOptions()
    size = wanted_size(domain) or bundle.manifest.domain
    bundle, session = on_domain(bundle, session, size, domain.overlap)
    manifest, one = bundle.manifest, len(context.frames) == 1
    steps = manifest.horizon if horizon is None else horizon
    likely: Chances | None = None
    if chances:
        frames, likely = predict_with_chances(bundle, session, context.frames, steps)
        likely = replace(likely, values=likely.values[0]) if one else likely
    else:
        frames = predict_sequences(bundle, session, context.frames, steps)  # (N, K, C, H, W)
    return _nowcast(manifest, context, frames, made_by(bundle, session, "window"), likely)


def make_baseline(bundle: Bundle, context: Context, asked: PredictOptions) -> Nowcast:
    """What `asked.baseline` forecasts of the same frames, in the place of the model.

    Args:
        bundle: an opened bundle, for its horizon and units.
        context: what was read.
        asked: which baseline, and how far.

    Returns:
        As `make_nowcast`, but not clipped to the codec's range: what was observed is moved as it
        is.

    Raises:
        MissingExtraError: `flow` without OpenCV.
        UsageError: chances, which only a model gives.
    """
    if asked.probabilities:
        raise UsageError(
            f"--probabilities with --baseline {asked.baseline}",
            expected="the model, which alone gives chances",
            fix="leave one out",
        )
    manifest, past = bundle.manifest, context.frames  # (N, T, C, H, W)
    steps = manifest.horizon if asked.horizon is None else asked.horizon
    if asked.baseline == "flow":
        frames = flow(past, steps, manifest.codec.units)  # (N, K, C, H, W)
    else:
        frames = np.array(persistence(past, steps))
    return _nowcast(manifest, context, frames, {"baseline": asked.baseline or ""})


def _nowcast(
    manifest: Manifest,
    context: Context,
    frames: Array,
    made: dict[str, str],
    likely: Chances | None = None,
) -> Nowcast:
    """Of frames `(N, K, C, H, W)` that were forecast."""
    one = len(context.frames) == 1
    return Nowcast(
        frames=frames[0] if one else frames,
        context=context.frames[0] if one else context.frames,
        units=manifest.codec.units,
        quantity=manifest.codec.quantity,
        low=manifest.codec.low,
        high=manifest.codec.high,
        issue_time=context.times[-1] if context.times else None,
        cadence_s=context.cadence_s,
        context_times=context.times,
        source_id=context.source_id,
        made_by=made,
        grid=context.grid,
        observed=context.observed,
        context_observed=context.context_observed,
        standard_name=context.standard_name,
        notes=context.notes,
        chances=likely,
    )


@dataclass
class OpenStream:
    """One stream or several over one session, ready to run."""

    streams: Streams
    """One, or several."""
    each: tuple[Stream, ...]
    bundle: Bundle
    cadence_s: float | None
    """Stated or the bundle's; None: it is to be learned."""
    notes: list[str] = field(default_factory=list)
    """Lines for the person who starts it."""


@contextmanager
def open_stream(
    bundle: Bundle,
    options: StreamOptions,
    *,
    watchers: Sequence[Watcher] = (),
    sinks: Sequence[Sink] = (),
    status: Status | None = None,
) -> Iterator[OpenStream]:
    """Open the sources, the sinks and the session, and put them together; closed at the end.

    Args:
        bundle: an opened bundle.
        options: what is asked for.
        watchers: notified of every frame, nowcast and problem.
        sinks: of the program's own, beside those of the options.
        status: shows nowcasts and problems; None writes to stderr.

    Raises:
        UsageError: an option that does not hold; names it.
        StplError: what opening the parts raises.
    """
    manifest, reading = bundle.manifest, options.reading
    check_cadence(reading.cadence)
    size = wanted_size(options.domain)
    given = pairs("--source-option", options.source_options)
    spec = source_spec(manifest, reading, options.domain, given)
    kept = sink_spec(options)
    words = named_sources(options.sources)
    planned = plan_nowcast(
        bundle,
        options.backend,
        options.horizon,
        options.domain,
        streams=len(words),
        chances=options.probabilities,
    )
    sources = {name: open_source(word, spec) for name, word in words.items()}
    opened, found = open_sinks(options.sinks, kept), None  # which keep several streams apart
    try:
        shown = status or Status()
        with open_backend(
            bundle,
            options.backend,
            options.horizon,
            chances=options.probabilities,
            say=shown.line,
            measure=True,
        ) as session:
            whole = on_domain(bundle, session, size or manifest.domain, options.domain.overlap)
            parts = _Parts(*whole, (*sinks, *opened), shown, tuple(watchers))
            found = _put_together(options, parts, sources)
            seams = seams_note(bundle, size or manifest.domain)
            found.notes.extend(filter(None, (seams, planned)))
            yield found
    finally:
        if found is None or all(one.ended == "not started" for one in found.each):
            for sink in opened:  # those of a stream that ran were closed by its threads
                sink.close()


@dataclass(frozen=True)
class _Parts:
    """What several streams share."""

    bundle: Bundle
    session: Session
    sinks: tuple[Sink, ...]
    status: Status
    watchers: tuple[Watcher, ...]


def _put_together(
    options: StreamOptions, parts: _Parts, sources: Mapping[str, Source]
) -> OpenStream:
    manifest = parts.bundle.manifest
    stated = options.reading.cadence
    cadence_s = stated or manifest.cadence_s
    every = "cadence learned from the first frames"
    if cadence_s is not None:
        whose = "the bundle's cadence" if stated is None else "cadence stated"
        every = f"every {cadence_s:g} s ({whose})"
    streams, notes = [], []
    for name, source in sources.items():
        stream, restored = _one(options, name, parts, source)
        streams.append(stream)
        start = f"{name}: watching" if name else "watching"
        notes.append(f"{start} {source.name}: {manifest.context} frames needed, {every}")
        notes.extend(f"{name}: {line}" if name else line for line in restored)
    notes[0] += "; Ctrl-C ends"
    return OpenStream(Streams(streams), tuple(streams), parts.bundle, cadence_s, notes)


def _one(
    options: StreamOptions, name: str, parts: _Parts, source: Source
) -> tuple[Stream, list[str]]:
    """One stream, and what its state file reported."""
    ledger = Ledger()
    nowcaster = nowcaster_of(options, parts.bundle, parts.session, ledger, name)
    state_file = None
    if options.state_file is not None:
        path = options.state_file
        path = path.with_name(f"{path.stem}-{name}{path.suffix}") if name else path
        state_file = StateFile(path, nowcaster)
    restored = [] if state_file is None else [state_file.restore()]
    stream = Stream(
        nowcaster,
        source,
        parts.sinks,
        ledger=ledger,
        status=parts.status,
        watchers=parts.watchers,
        policy=options.policy,
        state_file=state_file,
    )
    return stream, restored


def nowcaster_of(
    options: StreamOptions, bundle: Bundle, session: Session, ledger: Ledger, name: str
) -> Nowcaster:
    """The nowcaster of one stream.

    Args:
        options: of all of them.
        bundle: on the domain of the frames.
        session: the same.
        ledger: where its frames are counted.
        name: of the stream; empty where there is one.
    """
    nowcaster = Nowcaster(
        bundle,
        session,
        horizon=options.horizon,
        mode=options.context,
        cadence_s=options.reading.cadence or bundle.manifest.cadence_s,
        lateness=options.lateness,
        on_gap=options.on_gap,
        ledger=ledger,
        stream=name,
    )
    if options.probabilities:
        nowcaster.add_chances()
    return nowcaster


def wanted_size(domain: DomainOptions) -> Size | None:
    """(H, W) that `grid` asks for; None where it is not given."""
    return None if domain.grid is None else domain_size(domain.grid)


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


def sink_spec(options: StreamOptions) -> SinkSpec:
    """How long nowcasts are kept."""
    age = options.keep_age
    return SinkSpec(keep=options.keep, keep_s=None if age is None else seconds("--keep-age", age))


def named_sources(words: Sequence[str]) -> dict[str, str]:
    """Stream -> source; one source without a name has the stream of no name.

    Raises:
        UsageError: two streams have the same name.
    """
    found: dict[str, str] = {}
    for word in words:
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)=(.+)", word)
        given = match is not None and not Path(word).exists()
        name, source = (match[1], match[2]) if match is not None and given else ("", word)
        if not given and len(words) > 1:
            plain = re.sub(r"[?#].*", "", re.sub("(?<=//)[^/]*@", "", word))  # no credentials
            end = re.split(r"[/:]", plain.rstrip("/:"))[-1]
            name = re.sub(r"[^\w.-]+", "-", end).strip("-.") or "stream"
        if name in found:
            raise UsageError(
                f"two sources have the name {name}",
                expected="a name for each",
                fix=without_credentials(f"{name}-1={found[name]} {name}-2={source}"),
            )
        found[name] = source
    return found


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(option: str, text: str) -> float:
    """A length of time such as `90s`, `30m`, `12h` or `7d`, in seconds.

    Raises:
        UsageError: it is not one; names `option`.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip().lower())
    if found is None or float(found[1]) <= 0:
        raise UsageError(
            f"{option} {text}",
            expected="a number above 0 with s, m, h or d after it",
            fix=f"{option} 7d",
        )
    return float(found[1]) * _SECONDS[found[2]]


def pairs(option: str, texts: Sequence[str]) -> Mapping[str, str]:
    """Read `NAME=VALUE` words.

    Raises:
        UsageError: one has no name or no `=`, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(
                f"{option} {text}", expected="NAME=VALUE", fix=f"{option} {name or 'NAME'}=VALUE"
            )
        if name in found:
            raise UsageError(
                f"{option} {name} is given twice", expected="each name once", fix="leave one out"
            )
        found[name] = value
    return found
