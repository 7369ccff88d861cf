"""What `stream` and `serve` share: their options, and how a running stream is put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stpl_core.errors import UsageError
from stpl_deploy.cli import engines

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle, Manifest
    from stpl_runtime.engine import Session
    from stpl_runtime.sink import Sink, SinkSpec
    from stpl_runtime.source import Source, SourceSpec
    from stpl_runtime.streaming.status import Status
    from stpl_runtime.streaming.stream import Stream
    from stpl_runtime.streaming.streams import Streams
    from stpl_runtime.watching.watcher import Watcher


class ContextMode(str, Enum):
    """What a nowcast depends on."""

    window = "window"
    carry = "carry"


class OnGap(str, Enum):
    """What is done about missing frames."""

    reset = "reset"
    hold = "hold"
    bridge = "bridge"


class Policy(str, Enum):
    """What is done when frames come faster than nowcasts can be made."""

    latest = "latest"
    queue = "queue"
    pace = "pace"


# Help texts have about 45 columns on a terminal of 80.
BundlePath = Annotated[Path, typer.Argument(help="Bundle directory, from `stpl-deploy export`.")]
SourceWords = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="A folder, video or archive; - (standard input); camera:0; or a URL: http, s3, rtsp, "
        "mqtt, kafka, zmq. Several as NAME=SOURCE. docs/live-sources.md has them all.",
    ),
]
OnGapWord = Annotated[
    OnGap,
    typer.Option(
        help="Missing frames: reset waits for T in a row; hold repeats the frame before; bridge "
        "takes the model's forecast. At most half of the T frames; flagged in every output."
    ),
]
PolicyWord = Annotated[
    Policy,
    typer.Option(
        help="Too many frames: latest skips nowcasts, queue makes each in order, pace lets the "
        "source wait (replays, files)."
    ),
]
StateFilePath = Annotated[
    Path | None,
    typer.Option("--state-file", help="Go on from here after a restart, kill -9 included."),
]
Sinks = Annotated[
    list[str] | None,
    typer.Option(
        "--sink",
        metavar="WORD:PATH",
        help="Where nowcasts go: nc, zarr, tif, png, gif, mp4 or npz with a directory, jsonl with "
        "a file, webhook and mqtt with a URL; repeatable.",
    ),
]
Context = Annotated[
    ContextMode,
    typer.Option(help="window: exactly the newest T frames; carry: never reset the state."),
]
Horizon = Annotated[
    int | None, typer.Option(min=1, help="Frames to predict.", show_default="the bundle's")
]
Engine = engines.Engine
Forecast = engines.Forecast
RequireProvider = engines.RequireProvider
Threads = Annotated[
    int | None, typer.Option(min=1, help="Compute threads.", show_default="all CPUs it may use")
]
Cadence = Annotated[
    float | None,
    typer.Option(help="Seconds between frames.", show_default="the bundle's, or learned"),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(help="strptime pattern of the time in the names.", show_default="12 or 14 digits"),
]
Mtime = Annotated[bool, typer.Option("--mtime", help="Take the files' modification times.")]
Reader = Annotated[
    str | None,
    typer.Option(
        help="Reader of the files, as in `data inspect`.", show_default="by what they are"
    ),
]
Variable = Annotated[
    str | None,
    typer.Option(
        help="Variable to read, where a file holds several.", show_default="as in training"
    ),
]
SourceOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--source-option",
        metavar="NAME=VALUE",
        help="An option of the source; repeatable. docs/live-sources.md has them all.",
    ),
]
GridSize = Annotated[
    str | None,
    typer.Option(
        "--grid", help="HxW of larger frames: covered by tiles.", show_default="the model's"
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(min=0, help="Pixels that tiles share.", show_default="a quarter of the tile"),
]
AnyGrid = Annotated[
    bool,
    typer.Option("--any-grid", help="Take frames whose pixels have another size than trained."),
]
Lateness = Annotated[
    int | None, typer.Option(help="Slots that a frame may be late.", show_default="T-1")
]
Keep = Annotated[
    int | None, typer.Option(min=1, help="Nowcasts to keep, the newest.", show_default="all")
]
KeepAge = Annotated[
    str | None,
    typer.Option(help="Keep nowcasts so long: 90s, 30m, 12h, 7d.", show_default="for ever"),
]
MaxNowcasts = Annotated[
    int | None, typer.Option(min=1, help="End after so many.", show_default="no end")
]
IdleTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="End when nothing came for so many seconds.", show_default="wait for ever"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@dataclass(frozen=True)
class StreamOptions:
    """What the command line says of a stream; each field is the option of its name."""

    bundle: Path
    sources: Sequence[str]
    """Each a source's word, or NAME=SOURCE."""
    sinks: Sequence[str] = ()
    context: str = "window"
    horizon: int | None = None
    engine: str = "onnx"
    threads: int | None = None
    forecast: str = "auto"
    require_provider: str | None = None
    cadence: float | None = None
    time_format: str | None = None
    mtime: bool = False
    reader: str | None = None
    variable: str | None = None
    source_options: Sequence[str] = ()
    grid: str | None = None
    overlap: int | None = None
    any_grid: bool = False
    lateness: int | None = None
    on_gap: Literal["reset", "hold", "bridge"] = "reset"
    policy: Literal["latest", "queue", "pace"] = "latest"
    state_file: Path | None = None
    keep: int | None = None
    keep_age: str | None = None


@dataclass
class OpenStream:
    """One stream or several, ready to run."""

    streams: Streams
    """One, or several over one session."""
    each: tuple[Stream, ...]
    bundle: Bundle
    cadence_s: float | None
    """Stated or the bundle's; None: it is to be learned."""
    notes: list[str] = field(default_factory=list)
    """Lines for the person who starts it."""


def open_stream(options: StreamOptions, watchers: Sequence[Watcher] = ()) -> OpenStream:
    """Open the bundle, the sources, the sinks and the session, and put them together.

    Args:
        options: what the command line says.
        watchers: told of every frame, nowcast and problem.

    Raises:
        UsageError: an option that does not hold; names it.
        StplError: what opening the parts raises.
    """
    from stpl_core.bundle import open_bundle
    from stpl_runtime.engine import open_session
    from stpl_runtime.engines.tiled import domain_size, on_domain
    from stpl_runtime.nowcasting.predict import graphs_needed
    from stpl_runtime.nowcasting.window import check_cadence
    from stpl_runtime.sink import open_sinks
    from stpl_runtime.source import open_source
    from stpl_runtime.streaming.status import Status
    from stpl_runtime.streaming.streams import Streams

    bundle = open_bundle(options.bundle)
    manifest = bundle.manifest
    check_cadence(options.cadence)
    cadence = options.cadence or manifest.cadence_s
    domain = None if options.grid is None else domain_size(options.grid)
    spec, kept = source_spec(options, manifest, cadence, domain), sink_spec(options)
    words = named_sources(options.sources)
    sources = {name: open_source(word, spec) for name, word in words.items()}
    sinks = open_sinks(options.sinks, kept)  # which keep several streams apart
    graphs = graphs_needed(manifest, options.horizon or manifest.horizon)
    session = open_session(
        bundle,
        graphs,
        engine=options.engine,
        threads=options.threads,
        forecast=options.forecast,
        require_provider=options.require_provider,
    )
    if domain is not None:
        bundle, session = on_domain(bundle, session, domain, options.overlap)
    status, notes = Status(), []
    every = "cadence learned from the first frames"
    if cadence is not None:
        whose = "the bundle's cadence" if options.cadence is None else "cadence stated"
        every = f"every {cadence:g} s ({whose})"
    streams = []
    for name, source in sources.items():
        stream, said = _one(options, name, bundle, session, source, sinks, status, watchers)
        streams.append(stream)
        start = f"{name}: watching" if name else "watching"
        notes.append(f"{start} {source.name}: {manifest.context} frames needed, {every}")
        notes.extend(f"{name}: {line}" if name else line for line in said)
    notes[0] += "; Ctrl-C ends"
    return OpenStream(Streams(streams), tuple(streams), bundle, cadence, notes)


def _one(
    options: StreamOptions,
    name: str,
    bundle: Bundle,
    session: Session,
    source: Source,
    sinks: Sequence[Sink],
    status: Status,
    watchers: Sequence[Watcher],
) -> tuple[Stream, list[str]]:
    """One stream, and what its state file said."""
    from stpl_runtime.ledger import Ledger
    from stpl_runtime.nowcasting.nowcaster import Nowcaster
    from stpl_runtime.streaming.state_file import StateFile
    from stpl_runtime.streaming.stream import Stream

    ledger = Ledger()
    nowcaster = Nowcaster(
        bundle,
        session,
        horizon=options.horizon,
        mode="carry" if options.context == "carry" else "window",
        cadence_s=options.cadence or bundle.manifest.cadence_s,
        lateness=options.lateness,
        on_gap=options.on_gap,
        ledger=ledger,
        stream=name,
    )
    state_file = None
    if options.state_file is not None:
        path = options.state_file
        path = path.with_name(f"{path.stem}-{name}{path.suffix}") if name else path
        state_file = StateFile(path, nowcaster)
    said = [] if state_file is None else [state_file.restore()]
    stream = Stream(
        nowcaster,
        source,
        sinks,
        ledger=ledger,
        status=status,
        watchers=watchers,
        policy=options.policy,
        state_file=state_file,
    )
    return stream, said


def named_sources(words: Sequence[str]) -> dict[str, str]:
    """Stream -> source; one source without a name has the stream of no name.

    Raises:
        UsageError: two streams have the same name.
    """
    from stpl_runtime.links.reconnect import without_credentials

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


def source_spec(
    options: StreamOptions,
    manifest: Manifest,
    cadence_s: float | None,
    domain: tuple[int, int] | None = None,
) -> SourceSpec:
    """What a source must know; frames of another size are fitted as the recipe did in training."""
    from stpl_runtime.ingest.archive import archive_spec
    from stpl_runtime.source import SourceSpec

    how = archive_spec(manifest.recipe, options.reader, options.variable, domain)
    return SourceSpec(
        shape=(manifest.frame[0], *(domain or manifest.domain)),
        codec=manifest.codec,
        time_format=options.time_format,
        cadence_s=cadence_s,
        mtime=options.mtime,
        reader=how.reader,
        variable=how.variable,
        fit=how.fit,
        grids=() if options.any_grid else manifest.grids,
        options=pairs("--source-option", options.source_options),
    )


def sink_spec(options: StreamOptions) -> SinkSpec:
    """How long nowcasts are kept."""
    from stpl_runtime.sink import SinkSpec

    age = options.keep_age
    return SinkSpec(keep=options.keep, keep_s=None if age is None else seconds("--keep-age", age))


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
