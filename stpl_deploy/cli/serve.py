"""`stpl-deploy serve`: live nowcasts from a source, and a page where they are watched."""

from __future__ import annotations

from stpl_deploy.cli import streaming, watching


def serve(
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
    host: watching.Host = watching.HOST,
    port: watching.Port = watching.PORT,
    token_file: watching.TokenFile = None,
    stale_after: watching.StaleAfter = None,
    json: streaming.Json = False,
) -> None:
    """Stream as `stpl-deploy stream` does, and show it on a page; Ctrl-C ends both.

    When the source ends, the page goes on.
    """
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
            page=True,
            stays=True,
            host=host,
            port=port,
            token_file=token_file,
            stale_after=stale_after,
            max_nowcasts=max_nowcasts,
            idle_timeout=idle_timeout,
            json=json,
        )
    )
