"""How `stream` and `serve` run: a stream with its scores, its alarm and its page."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stpl_core.errors import AccuracyError, StplError, UsageError
from stpl_core.log import set_log
from stpl_deploy.cli.live.live import Live, summary_place
from stpl_deploy.cli.live.options import PageOptions
from stpl_deploy.cli.options.trust import open_trusted
from stpl_deploy.library.numbers import finite_numbers

if TYPE_CHECKING:
    from stpl_runtime.page.watch import Watch, WatchOptions
    from stpl_runtime.streaming.opening import OpenStream


def run_live(live: Live) -> None:
    """Run a stream, with all that watches it, until it ends; print the summary.

    Raises:
        StplError: what opening the parts and running them raises; the summary is printed first.
    """
    _check_bundle_is_first(live)
    if live.stream.group is not None:
        from stpl_deploy.cli.live.group import run_group

        run_group(live)
        return
    from stpl_deploy.cli.reports.stream import summarise
    from stpl_runtime.page.watch import Watch
    from stpl_runtime.streaming.opening import open_stream
    from stpl_runtime.streaming.signals import stop_on_signals

    set_log(live.log)
    watch = Watch(watch_options(live))
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(
                open_stream(
                    open_trusted(live.bundle, live.trust), live.stream, watchers=watch.watchers
                )
            )
            watch.attach(opened.each, opened.bundle.manifest, opened.cadence_s)
        except BaseException:
            watch.close()
            raise
        running = opened.streams
        try:
            with watch, stop_on_signals(running):
                _run(live, watch, opened)
        except StplError:
            with summary_place(live):
                summarise(running.report(), watch, live.json)
            raise
    report = running.report()
    with summary_place(live):
        summarise(report, watch, live.json)
    standing = watch.skill is not None and any(a.standing for a in watch.skill.alarms.values())
    if report.exit_code:
        raise typer.Exit(report.exit_code)
    if running.ended != "stopped" and standing:
        raise typer.Exit(AccuracyError.exit_code)


def _check_bundle_is_first(live: Live) -> None:
    """Refuse a source in the bundle's place, as where the settings hold the bundle."""
    from stpl_runtime.source import SOURCES

    word, colon, _ = str(live.bundle).partition(":")
    if colon and word.lower() in SOURCES and not live.bundle.exists():
        raise UsageError(
            f"{word}: begins a source, and stands where the bundle is expected",
            expected="the bundle, then the source",
            fix="put the bundle before it, also where --config has one",
        )


def _run(live: Live, watch: Watch, opened: OpenStream) -> None:
    from stpl_deploy.cli.reports.output import say

    for line in [*watch.notes, *opened.notes]:
        say(line)
    if not live.stream.sinks and live.page is None:
        say("no --sink: nowcasts are only counted; try: --sink png:out")
    if watch.server is not None:
        live.on_page(watch.server.url)
    running, limits = opened.streams, live.limits
    running.run(max_nowcasts=limits.max_nowcasts, idle_timeout_s=limits.idle_timeout)
    if running.ended != "stopped":
        watch.ended(running.ended)
    if live.stays and running.ended == "the source ended":
        say("the source ended; the page stays up: Ctrl-C ends it")
        running.wait_for_stop()


def watch_options(live: Live) -> WatchOptions:
    """What is asked for of watching.

    Raises:
        UsageError: options that do not hold, or that exclude one another.
    """
    from stpl_runtime.options import seconds
    from stpl_runtime.page.watch import WatchOptions

    skill, page = live.skill, live.page or PageOptions()
    if skill.no_skill and skill.alarm is not None:
        raise UsageError(
            "--alarm with --no-skill", expected="scores to raise it on", fix="leave --no-skill out"
        )
    if skill.no_skill and skill.flow:
        raise UsageError(
            "--flow with --no-skill", expected="scores to set it beside", fix="leave one out"
        )
    limits = None
    if skill.thresholds is not None:
        limits = finite_numbers("--thresholds", skill.thresholds, "0.1,1,5")
    stale = page.stale_after
    return WatchOptions(
        skill=not skill.no_skill,
        thresholds=None if limits is None else tuple(sorted(set(limits))),
        window=skill.skill_window,
        alarm=skill.alarm,
        flow=skill.flow,
        page=live.page is not None,
        host=page.host,
        port=page.port,
        token_file=page.token_file,
        overlays=tuple(map(Path, page.overlays)),
        waits=live.stream.policy != "latest",
        stale_s=None if stale is None else seconds("--stale-after", stale),
        max_age_s=_max_age_s(page.max_age),
    )


def _max_age_s(text: str | None) -> float | None:
    """As `WatchOptions` has it."""
    from stpl_runtime.options import seconds

    if text is None:
        return 0.0
    return None if text.strip().lower() == "none" else seconds("--max-age", text)
