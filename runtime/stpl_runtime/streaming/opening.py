"""From options to a stream or several over one session, wired once; closed again, however it ends.

`stream`, `serve`, the demo and the library all come through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_core.options import StreamOptions
from stpl_runtime.engine import KeepsStates, Session
from stpl_runtime.engines.tiled import on_domain, seams_note, wanted_size
from stpl_runtime.ingest.newest import source_spec
from stpl_runtime.ledger import Ledger
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.nowcasting.make import open_backend, plan_nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.window import check_cadence
from stpl_runtime.options import pairs, seconds
from stpl_runtime.sink import Sink, SinkSpec, open_sinks
from stpl_runtime.source import Source, open_source
from stpl_runtime.streaming.continuous.batcher import LARGEST
from stpl_runtime.streaming.continuous.streams import put_together, session_for
from stpl_runtime.streaming.state_file import StateFile
from stpl_runtime.streaming.status import Status
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from stpl_runtime.watching.watcher import Watcher


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
        batch=1 if options.batch_wait is None else min(len(words), LARGEST),
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
            domain = size or manifest.domain
            whole = on_domain(bundle, session, domain, options.domain.overlap)
            parts = _Parts(*whole, (*sinks, *opened), shown, tuple(watchers), bundle)
            found = _put_together(options, parts, sources)
            seams = seams_note(bundle, domain)
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
    exported: Bundle
    """The bundle for the model's own grid."""


def _put_together(
    options: StreamOptions, parts: _Parts, sources: Mapping[str, Source]
) -> OpenStream:
    parts = replace(parts, session=session_for(options, parts.session, len(sources)))
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
    if options.batch_wait is not None and len(streams) == 1:
        notes.append("--batch-wait holds nothing: there is one stream")
    several = put_together(options, streams, parts.session, parts.exported)
    return OpenStream(several, tuple(streams), parts.bundle, cadence_s, notes)


def _one(
    options: StreamOptions, name: str, parts: _Parts, source: Source
) -> tuple[Stream, list[str]]:
    """One stream, and what its state file reported."""
    ledger = Ledger()
    nowcaster = nowcaster_of(options, parts.bundle, parts.session, ledger, name)
    state_file = None
    if options.state_file is not None:
        if options.context == "carry" and isinstance(parts.session, KeepsStates):
            raise UsageError(
                f"--state-file with --context carry and --engine {options.backend.engine}",
                expected="a state that is on this machine",
                fix="leave --state-file out, or --context window",
            )
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
