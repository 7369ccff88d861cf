"""`stpl-deploy stream`: live nowcasts from a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpl_deploy.cli import streaming, watching

if TYPE_CHECKING:
    from stpl_runtime.streaming.report import StreamReport, StreamsReport


_LIVE_S = 86400.0
"""Frames older than a day are an archive's: how old its news are says nothing."""


def stream(
    bundle: streaming.BundlePath,
    source: streaming.SourceWords,
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
    any_grid: streaming.AnyGrid = False,
    lateness: streaming.Lateness = None,
    on_gap: streaming.OnGapWord = streaming.OnGap.reset,
    policy: streaming.PolicyWord = streaming.Policy.latest,
    state_file: streaming.StateFilePath = None,
    keep: streaming.Keep = None,
    keep_age: streaming.KeepAge = None,
    max_nowcasts: streaming.MaxNowcasts = None,
    idle_timeout: streaming.IdleTimeout = None,
    no_skill: watching.NoSkill = False,
    thresholds: watching.Thresholds = None,
    skill_window: watching.SkillWindow = watching.WINDOW,
    alarm: watching.AlarmAfter = None,
    page: watching.PageFlag = False,
    host: watching.Host = watching.HOST,
    port: watching.Port = watching.PORT,
    token_file: watching.TokenFile = None,
    stale_after: watching.StaleAfter = None,
    json: streaming.Json = False,
) -> None:
    """Watch a source and write a nowcast for each new frame; Ctrl-C ends it (exit code 0)."""
    options = streaming.StreamOptions(
        bundle=bundle,
        sources=source,
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
        any_grid=any_grid,
        lateness=lateness,
        on_gap=on_gap.value,
        policy=policy.value,
        state_file=state_file,
        keep=keep,
        keep_age=keep_age,
    )
    watching.run(
        watching.RunOptions(
            stream=options,
            no_skill=no_skill,
            thresholds=thresholds,
            skill_window=skill_window,
            alarm=alarm,
            page=page,
            host=host,
            port=port,
            token_file=token_file,
            stale_after=stale_after,
            max_nowcasts=max_nowcasts,
            idle_timeout=idle_timeout,
            json=json,
        )
    )


def print_report(report: StreamsReport) -> None:
    """Print what a stream did, or several."""
    from stpl_runtime.streaming.status import counts_text

    if report.only is not None:
        print(f"ended: {report.only.ended}")
        _print_one(report.only)
        return
    print(f"ended: {report.ended}")
    for name, one in report.streams.items():
        print(f"\n{name}")
        _print_one(one)
    print(f"\nall: {counts_text(report.counts)}; {report.nowcasts} nowcasts")
    if report.batches:
        sizes = ", ".join(map(str, reversed(report.batches)))
        print(f"forecasts of {sizes} streams were made together (faster here, with the same bits)")


def _print_one(report: StreamReport) -> None:
    from stpl_runtime.streaming.status import counts_text
    from stpl_runtime.timing import duration_text

    print(f"frames: {counts_text(report.counts)}")
    for fault in report.bad_frames:
        more = f" (and {fault.more} more)" if fault.more else ""
        print(f"bad: {fault.first}{more}")
    print(
        f"nowcasts: {report.nowcasts} made, {report.skipped} skipped, "
        f"{report.incomplete} without a whole window, {report.not_finite} not finite"
    )
    if report.stand_ins:
        again = f"; {report.again} made again when it came late" if report.again else ""
        print(f"stand-ins: {report.stand_ins} nowcasts depend on a frame that was missing{again}")
    if report.gaps:
        print(f"gaps: the window started anew {report.gaps} times")
    if report.passed_over:
        print(f"passed over: {report.passed_over:,} files or folders that are not read")
    if report.reconnects:
        print(f"source: came back {report.reconnects} times")
    median, p95 = report.latency_median_ms, report.latency_p95_ms
    if median is not None and p95 is not None:
        print(
            f"frame -> nowcast: median {duration_text(median)}, p95 {duration_text(p95)}, "
            f"{report.prewarmed} with the past run ahead"
        )
    median, p99 = report.age_median_ms, report.age_p99_ms
    if median is not None and p99 is not None:
        print(f"frame -> written: median {duration_text(median)}, p99 {duration_text(p99)}")
    if report.lag_median_s is not None and abs(report.lag_median_s) < _LIVE_S:
        print(f"time of the frame -> written: median {report.lag_median_s:.1f} s")
    for name, sink in report.sinks.items():
        if sink.failed:
            print(f"{name}: {sink.failed} nowcasts not written")
        if sink.not_deleted:
            print(f"{name}: {sink.not_deleted} times, what is too old could not be deleted")
        if sink.dropped:
            print(f"{name}: too slow for {sink.dropped} nowcasts, which were left out")
