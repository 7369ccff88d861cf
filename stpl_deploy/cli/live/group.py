"""How `stream --group` runs: a member of a consumer group, and its summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stpl_core.errors import AccuracyError, StplError, UsageError
from stpl_core.log import set_log
from stpl_deploy.cli.live.live import Live, summary_place
from stpl_deploy.cli.options.trust import open_trusted

if TYPE_CHECKING:
    from stpl_runtime.groups.worker import GroupReport


def run_group(live: Live) -> None:
    """Run a member of a group until it ends; print the summary.

    Raises:
        UsageError: a page, or scores, which follow streams that stay.
        StplError: what opening the parts and running them raises; the summary is printed first.
    """
    from stpl_deploy.cli.reports.output import say
    from stpl_runtime.groups.opening import open_group
    from stpl_runtime.streaming.signals import stop_on_signals

    _check(live)
    set_log(live.log)
    with open_group(open_trusted(live.bundle, live.trust), live.stream) as opened:
        for line in opened.notes:
            say(line)
        if not live.stream.sinks:
            say("no --sink: nowcasts are only counted; try: --sink nc:out")
        worker, limits = opened.worker, live.limits
        try:
            with stop_on_signals(worker):
                worker.run(max_nowcasts=limits.max_nowcasts, idle_timeout_s=limits.idle_timeout)
        except StplError:
            _summarise(live, worker.report())
            raise
    report = worker.report()
    _summarise(live, report)
    if report.not_finite:
        raise typer.Exit(AccuracyError.exit_code)


def _check(live: Live) -> None:
    for what, given, fix in (
        ("a page", live.page is not None, "stream in place of serve"),
        ("--alarm", live.skill.alarm is not None, "leave --alarm out"),
        ("--flow", live.skill.flow, "leave --flow out"),
    ):
        if given:
            raise UsageError(
                f"{what} with --group {live.stream.group}",
                expected="streams that stay with this process",
                fix=fix,
            )


def _summarise(live: Live, report: GroupReport) -> None:
    from stpl_deploy.cli.reports.output import print_json
    from stpl_runtime.streaming.status import counts_text

    with summary_place(live):
        if live.json:
            print_json(report.as_json())
            return
        print(f"ended: {report.ended}")
        for name, counts in report.frames.items():
            made = report.nowcasts.get(name, 0)
            print(f"{name}: {made} nowcasts; {counts_text(counts)}")
        group = report.counts
        print(
            f"group {report.group}: {sum(report.nowcasts.values())} nowcasts; "
            f"{group['rebalances']} rebalances, {group['refilled']} records read again, "
            f"{group['lag']} not done"
        )
