"""What `stream` and `serve` share: their options, and how a running stream is put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_deploy.cli import engines
from stpl_deploy.errors import UsageError

if TYPE_CHECKING:
    from stpl_deploy.bundle import Bundle, Manifest
    from stpl_runtime.sink import SinkSpec
    from stpl_runtime.source import SourceSpec
    from stpl_runtime.stream import Stream
    from stpl_runtime.watcher import Watcher


class ContextMode(str, Enum):
    """What a nowcast depends on."""

    window = "window"
    carry = "carry"


# Help texts have about 45 columns on a terminal of 80.
BundlePath = Annotated[Path, typer.Argument(help="Bundle directory, from `stpl-deploy export`.")]
SourceWord = Annotated[str, typer.Argument(help="A folder, or SCHEME:REST, such as folder:PATH.")]
Sinks = Annotated[
    list[str] | None, typer.Option("--sink", help="WORD:PATH, such as npz:DIR; repeatable.")
]
Context = Annotated[
    ContextMode,
    typer.Option(help="window: exactly the newest T frames; carry: never reset the state."),
]
Horizon = Annotated[int | None, typer.Option(min=1, help="Frames to predict [bundle's].")]
Engine = engines.Engine
Forecast = engines.Forecast
RequireProvider = engines.RequireProvider
Threads = Annotated[int | None, typer.Option(min=1, help="Compute threads [all CPUs it may use].")]
Cadence = Annotated[
    float | None, typer.Option(help="Seconds between frames [bundle's, or learned].")
]
TimeFormat = Annotated[str | None, typer.Option(help="strptime pattern of the time in the names.")]
Mtime = Annotated[bool, typer.Option("--mtime", help="Take the files' modification times.")]
Reader = Annotated[str | None, typer.Option(help="Reader of the files, as in `data inspect`.")]
Variable = Annotated[str | None, typer.Option(help="Variable to read, where a file holds several.")]
SourceOptions = Annotated[
    list[str] | None,
    typer.Option("--source-option", help="NAME=VALUE for the source; repeatable."),
]
GridSize = Annotated[
    str | None, typer.Option("--grid", help="HxW of larger frames: covered by tiles.")
]
Overlap = Annotated[int | None, typer.Option(min=0, help="Pixels that tiles share [a quarter].")]
Lateness = Annotated[int | None, typer.Option(help="Slots that a frame may be late [T-1].")]
Keep = Annotated[int | None, typer.Option(min=1, help="Nowcasts to keep, the newest [all].")]
KeepAge = Annotated[
    str | None, typer.Option(help="Keep nowcasts so long: 90s, 30m, 12h, 7d [for ever].")
]
MaxNowcasts = Annotated[int | None, typer.Option(min=1, help="End after so many.")]
IdleTimeout = Annotated[
    float | None, typer.Option(min=0.0, help="End when nothing came for so many seconds.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@dataclass(frozen=True)
class StreamOptions:
    """What the command line says of a stream; each field is the option of its name."""

    bundle: Path
    source: str
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
    lateness: int | None = None
    keep: int | None = None
    keep_age: str | None = None


@dataclass
class OpenStream:
    """A stream that is ready to run."""

    stream: Stream
    bundle: Bundle
    cadence_s: float | None
    """Stated or the bundle's; None: it is to be learned."""
    notes: list[str] = field(default_factory=list)
    """Lines for the person who starts it."""


def open_stream(options: StreamOptions, watchers: Sequence[Watcher] = ()) -> OpenStream:
    """Open the bundle, the source, the sinks and the session, and put them together.

    Args:
        options: what the command line says.
        watchers: told of every frame, nowcast and problem.

    Raises:
        UsageError: an option that does not hold; names it.
        StplError: what opening the parts raises.
    """
    from stpl_deploy.bundle import open_bundle
    from stpl_runtime.engine import open_session
    from stpl_runtime.ledger import Ledger
    from stpl_runtime.nowcaster import Nowcaster
    from stpl_runtime.predict import graphs_needed
    from stpl_runtime.sink import open_sink
    from stpl_runtime.source import open_source
    from stpl_runtime.stream import Stream
    from stpl_runtime.tiles import domain_size, on_domain
    from stpl_runtime.window import check_cadence

    bundle = open_bundle(options.bundle)
    manifest = bundle.manifest
    check_cadence(options.cadence)
    cadence = options.cadence or manifest.cadence_s
    domain = None if options.grid is None else domain_size(options.grid)
    source = open_source(options.source, source_spec(options, manifest, cadence, domain))
    kept = sink_spec(options)
    sinks = [open_sink(text, kept) for text in options.sinks]
    graphs = graphs_needed(manifest, options.horizon or manifest.horizon)
    session = open_session(
        bundle,
        graphs,
        engine=options.engine,
        threads=options.threads,
        forecast=options.forecast,
        require_provider=options.require_provider,
    )
    bundle, session = on_domain(bundle, session, domain or manifest.domain, options.overlap)
    ledger = Ledger()
    nowcaster = Nowcaster(
        bundle,
        session,
        horizon=options.horizon,
        mode="carry" if options.context == "carry" else "window",
        cadence_s=cadence,
        lateness=options.lateness,
        ledger=ledger,
    )
    stream = Stream(nowcaster, source, sinks, ledger=ledger, watchers=watchers)
    every = "cadence learned from the first frames"
    if cadence is not None:
        every = f"every {cadence:g} s (cadence stated)"
    notes = [f"watching {source.name}: {manifest.context} frames needed, {every}; Ctrl-C ends"]
    return OpenStream(stream, bundle, cadence, notes)


def source_spec(
    options: StreamOptions,
    manifest: Manifest,
    cadence_s: float | None,
    domain: tuple[int, int] | None = None,
) -> SourceSpec:
    """What a source must know; frames of another size are fitted as the recipe did in training."""
    from stpl_runtime.archive import archive_spec
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
