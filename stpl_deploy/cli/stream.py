"""`stpl-deploy stream`: live nowcasts from a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stpl_deploy.cli import streaming
from stpl_deploy.errors import StplError

if TYPE_CHECKING:
    from stpl_runtime.stream import StreamReport


def stream(
    bundle: streaming.BundlePath,
    source: streaming.SourceWord,
    sink: streaming.Sinks = None,
    context: streaming.Context = streaming.ContextMode.window,
    horizon: streaming.Horizon = None,
    engine: streaming.Engine = "onnx",
    threads: streaming.Threads = None,
    forecast: streaming.Forecast = "auto",
    require_provider: streaming.RequireProvider = None,
    cadence: streaming.Cadence = None,
    time_format: streaming.TimeFormat = None,
    mtime: streaming.Mtime = False,
    reader: streaming.Reader = None,
    variable: streaming.Variable = None,
    source_option: streaming.SourceOptions = None,
    grid: streaming.GridSize = None,
    overlap: streaming.Overlap = None,
    lateness: streaming.Lateness = None,
    keep: streaming.Keep = None,
    keep_age: streaming.KeepAge = None,
    max_nowcasts: streaming.MaxNowcasts = None,
    idle_timeout: streaming.IdleTimeout = None,
    json: streaming.Json = False,
) -> None:
    """Watch a source and write a nowcast for each new frame; Ctrl-C ends it (exit code 0)."""
    options = streaming.StreamOptions(
        bundle=bundle,
        source=source,
        sinks=sink or (),
        context=context.value,
        horizon=horizon,
        engine=engine,
        threads=threads,
        forecast=forecast,
        require_provider=require_provider,
        cadence=cadence,
        time_format=time_format,
        mtime=mtime,
        reader=reader,
        variable=variable,
        source_options=source_option or (),
        grid=grid,
        overlap=overlap,
        lateness=lateness,
        keep=keep,
        keep_age=keep_age,
    )
    from stpl_deploy.cli.output import say
    from stpl_runtime.stream import stop_on_signals

    opened = streaming.open_stream(options)
    running = opened.stream
    try:
        with stop_on_signals(running):
            for line in opened.notes:
                say(line)
            if not options.sinks:
                say("no --sink: nowcasts are only counted; try: --sink png:out")
            running.run(max_nowcasts=max_nowcasts, idle_timeout_s=idle_timeout)
    except StplError:
        _print(running.report(), json)
        raise
    report = running.report()
    _print(report, json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


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
