"""`stpl-deploy stream`: live nowcasts from a source."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_deploy.errors import StplError

if TYPE_CHECKING:
    from stpl_runtime.stream import StreamReport


class ContextMode(str, Enum):
    """What a nowcast depends on."""

    window = "window"
    carry = "carry"


def stream(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory, from `stpl-deploy export`.")],
    source: Annotated[str, typer.Argument(help="Folder to watch: a path, or folder:PATH.")],
    sink: Annotated[
        list[str] | None,
        typer.Option(help="npz:DIR, png:DIR, gif:DIR or gif:FILE.gif; may be repeated."),
    ] = None,
    context: Annotated[
        ContextMode,
        typer.Option(help="window: exactly the newest T frames; carry: never reset the state."),
    ] = ContextMode.window,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Frames to predict; default: the bundle's.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine to run.")] = "onnx",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Compute threads; default: all that this process may use."),
    ] = None,
    cadence: Annotated[
        float | None,
        typer.Option(help="Seconds between frames; default: the bundle's, else learned."),
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="strptime pattern of the time in the files' names.")
    ] = None,
    mtime: Annotated[
        bool, typer.Option("--mtime", help="Take the files' modification times.")
    ] = False,
    lateness: Annotated[
        int | None,
        typer.Option(help="Slots that a frame may be late; default: T-1, all of the window."),
    ] = None,
    max_nowcasts: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(min=0.0, help="End when nothing came for so many seconds.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Watch a source and write a nowcast for each new frame; Ctrl-C ends it (exit code 0)."""
    from stpl_deploy.bundle import open_bundle
    from stpl_runtime.engine import open_session
    from stpl_runtime.ledger import Ledger
    from stpl_runtime.nowcaster import Nowcaster
    from stpl_runtime.predict import graphs_needed
    from stpl_runtime.sink import open_sink
    from stpl_runtime.source import SourceSpec, open_source
    from stpl_runtime.stream import Stream, stop_on_signals
    from stpl_runtime.window import check_cadence

    opened = open_bundle(bundle)
    manifest = opened.manifest
    check_cadence(cadence)
    cadence = cadence or manifest.cadence_s
    spec = SourceSpec(manifest.frame, manifest.codec, time_format, cadence, mtime)
    from_source = open_source(source, spec)
    sinks = [open_sink(text) for text in sink or []]
    graphs = graphs_needed(manifest, horizon or manifest.horizon)
    ledger = Ledger()
    nowcaster = Nowcaster(
        opened,
        open_session(opened, graphs, engine=engine, threads=threads),
        horizon=horizon,
        mode=context.value,
        cadence_s=cadence,
        lateness=lateness,
        ledger=ledger,
    )
    running = Stream(nowcaster, from_source, sinks, ledger=ledger)
    try:
        with stop_on_signals(running):
            _begin(source, manifest.context, cadence, bool(sinks))
            running.run(max_nowcasts=max_nowcasts, idle_timeout_s=idle_timeout)
    except StplError:
        _print(running.report(), json)
        raise
    report = running.report()
    _print(report, json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _begin(source: str, context: int, cadence: float | None, kept: bool) -> None:
    """Say what is waited for."""
    from stpl_deploy.cli.output import say

    every = "cadence learned from the first two"
    if cadence is not None:
        every = f"every {cadence:g} s (cadence stated)"
    say(f"watching {source}: {context} frames needed, {every}; Ctrl-C ends")
    if not kept:
        say("no --sink: nowcasts are only counted; try: --sink png:out")


def _print(report: StreamReport, json: bool) -> None:
    if json:
        from stpl_deploy.cli.output import print_json

        print_json(report.as_json())
        return
    from stpl_runtime.status import counts_text

    print(f"ended: {report.ended}")
    print(f"frames: {counts_text(report.counts)}")
    for fault in report.bad_frames:
        more = f" (and {fault.more} more)" if fault.more else ""
        print(f"bad: {fault.first}{more}")
    print(
        f"nowcasts: {report.nowcasts} made, {report.skipped} skipped, "
        f"{report.incomplete} without a whole window, {report.not_finite} not finite"
    )
    if report.latency_median_ms is not None:
        print(
            f"frame -> nowcast: median {report.latency_median_ms:.1f} ms, "
            f"p95 {report.latency_p95_ms:.1f} ms, {report.prewarmed} with the past run ahead"
        )
    for name, failures in report.sink_failures.items():
        if failures:
            print(f"{name}: {failures} nowcasts not written")
