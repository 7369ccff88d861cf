"""What a stream did, or several, and how good their nowcasts were."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stpl_runtime.page.watch import Watch
    from stpl_runtime.streaming.report import StreamReport, StreamsReport
    from stpl_runtime.watching.skill import SkillNow

_LIVE_S = 86400.0
"""Frames older than a day are an archive's: how long ago that was means nothing."""


def summarise(report: StreamsReport, watch: Watch, json: bool) -> None:
    """Print what a stream did, and how good its nowcasts were."""
    from stpl_deploy.cli.reports.output import print_json

    skills = {} if watch.skill is None else watch.skill.all()
    if json:
        document = report.as_json()
        if watch.skill is not None:
            every = {name: skill.as_json() for name, skill in skills.items()}
            document["skill"] = every.get("") if set(every) <= {""} else every
        print_json(document)
        return
    print_report(report)
    for name, skill in skills.items():
        line = skill_line(skill)
        if line:
            print(f"{name}: {line}" if name else line)


def print_report(report: StreamsReport) -> None:
    """Print what a stream did, or several."""
    from stpl_runtime.streaming.batching import exactness
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
        print(
            f"forecasts of {sizes} streams were made together "
            f"(faster here, with {exactness(report.batch_gap)})"
        )


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
    if report.standing_in:
        again = f"; {report.again} made again when it came late" if report.again else ""
        print(f"stand-ins: {report.standing_in} nowcasts depend on a frame that was missing{again}")
    if report.gaps:
        print(f"gaps: the window started anew {report.gaps} times")
    if report.unread_files:
        print(f"passed over: {report.unread_files:,} files or folders that are not read")
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


def skill_line(skill: SkillNow) -> str:
    """A stream's skill in one line; empty where nothing was compared."""
    scores = skill.total
    pairs = int(scores.frames.sum())
    if not pairs:
        return ""
    ours = scores.overall["nowcast"]["mse"]
    text = f"skill: MSE {ours:.4g}"
    for way, found in scores.overall.items():
        if way == "nowcast":
            continue
        theirs = found["mse"]
        text += f", {way} {theirs:.4g}"
        if theirs > 0:
            text += f" ({_beside(ours / theirs)})"
    text += f", {pairs:,} forecast{'' if pairs == 1 else 's'} compared with what came"
    apart = int(skill.flagged.frames.sum())
    if apart:
        text += f"; {apart:,} that stood on stand-ins are left out"
    if skill.alarm is not None and skill.alarm.raised:
        state = "stands" if skill.alarm.standing else "is over"
        text += f"; alarm raised {skill.alarm.raised} times, and {state}"
    return f"{text}; MSE: squared error in the model's units (0 to 1), summed over a frame's pixels"


def _beside(ratio: float) -> str:
    """An error beside a baseline's, in words."""
    if ratio > 10:
        return f"{ratio:.0f} times as much"
    return f"{abs(1 - ratio):.0%} {'less' if ratio <= 1 else 'more'}"
