"""From options to a member of a group, ready to run; what is opened is closed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_core.options import StreamOptions
from stpl_runtime.engines.tiled import on_domain, seams_note, wanted_size
from stpl_runtime.groups.consumer import KafkaGroup
from stpl_runtime.groups.worker import GroupWorker
from stpl_runtime.ingest.newest import source_spec
from stpl_runtime.ledger import Ledger
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.nowcasting.make import open_backend, plan_nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.window import check_cadence
from stpl_runtime.options import pairs
from stpl_runtime.sink import open_sinks
from stpl_runtime.source import scheme_of
from stpl_runtime.streaming.opening import nowcaster_of, sink_spec
from stpl_runtime.streaming.status import Status


@dataclass
class OpenGroup:
    """A member of a group."""

    worker: GroupWorker
    notes: list[str] = field(default_factory=list)
    """Lines for the person who starts it."""


@contextmanager
def open_group(
    bundle: Bundle, options: StreamOptions, status: Status | None = None
) -> Iterator[OpenGroup]:
    """Open the consumer, the sinks and the session.

    Args:
        bundle: an opened bundle.
        options: with `group`.
        status: shows nowcasts and problems; None writes to stderr.

    Raises:
        UsageError: an option that does not hold, or not in a group; names it.
        StplError: what opening the parts raises.
    """
    rest, name = _checked(options)
    manifest, reading, shown = bundle.manifest, options.reading, status or Status()
    check_cadence(reading.cadence)
    size = wanted_size(options.domain)
    given = pairs("--source-option", options.source_options)
    spec = source_spec(manifest, reading, options.domain, given)
    chances = options.probabilities
    planned = plan_nowcast(
        bundle, options.backend, options.horizon, options.domain, chances=chances
    )
    workers: list[GroupWorker] = []

    def release(partitions: set[int]) -> None:
        for worker in workers:
            worker.release(partitions)

    group = KafkaGroup(rest, spec, name, manifest.context, release, shown.line)
    sinks = open_sinks(options.sinks, sink_spec(options))
    try:
        with open_backend(
            bundle, options.backend, options.horizon, chances=chances, say=shown.line
        ) as session:
            whole, wide = on_domain(
                bundle, session, size or manifest.domain, options.domain.overlap
            )

            def make(stream: str, ledger: Ledger) -> Nowcaster:
                return nowcaster_of(options, whole, wide, ledger, stream)

            workers.append(GroupWorker(group, name, make, sinks, shown))
            needed = f"{manifest.context} frames needed of each stream; Ctrl-C ends"
            notes = [
                f"{group.name}: a worker of the group {name}; {needed}",
                *filter(None, (seams_note(bundle, size or manifest.domain), planned)),
            ]
            yield OpenGroup(workers[0], notes)
    finally:
        for sink in sinks:
            sink.close()


def _checked(options: StreamOptions) -> tuple[str, str]:
    """What follows `kafka:`, and the group's name.

    Raises:
        UsageError: something that has no meaning in a group.
    """
    name = options.group or ""
    word = options.sources[0] if len(options.sources) == 1 else ""
    scheme, rest = scheme_of(word) if word else ("", "")
    if scheme != "kafka" or not name:
        raise UsageError(
            f"--group {name} with {without_credentials(' '.join(options.sources))}",
            expected="one source, kafka://HOST:9092/TOPIC, and the name of a group",
            fix=f"kafka://HOST:9092/TOPIC --group {name or 'nowcasts'}; the keys name the streams",
        )
    if options.context == "carry":
        raise UsageError(
            f"--context carry with --group {name}",
            expected="--context window: a carried state is not in the log, which others read on",
            fix="leave --context out",
        )
    if options.state_file is not None:
        raise UsageError(
            f"--state-file with --group {name}",
            expected="no state file: windows are filled from the log again",
            fix="leave --state-file out",
        )
    if options.batch_wait is not None:
        raise UsageError(
            f"--batch-wait {options.batch_wait:g} with --group {name}",
            expected="several sources of one process: streams of a group come and go by partition",
            fix="leave --batch-wait out",
        )
    return rest, name
