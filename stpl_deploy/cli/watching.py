"""What `stream` and `serve` share of watching: scores, alarm and page; and how both run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_core.errors import AccuracyError, StplError, UsageError
from stpl_deploy.cli import streaming
from stpl_deploy.cli.numbers import finite_numbers

if TYPE_CHECKING:
    from stpl_runtime.page.watch import Watch, WatchOptions
    from stpl_runtime.streaming.report import StreamsReport
    from stpl_runtime.watching.skill import SkillNow

# Help texts have about 45 columns on a terminal of 80.
NoSkill = Annotated[bool, typer.Option("--no-skill", help="Do not score nowcasts as truth comes.")]
Thresholds = Annotated[
    str | None,
    typer.Option(
        help="CSI at these values, such as 0.1,1,5, in the frames' unit.",
        show_default="by the unit",
    ),
]
SkillWindow = Annotated[
    int, typer.Option(min=1, help="Newest forecasts of each lead time in the rolling scores.")
]
AlarmAfter = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tell when so many frames in a row were forecast worse than by persistence; exit "
        "code 3 where that holds when the source ends.",
    ),
]
PageFlag = Annotated[bool, typer.Option("--page", help="Show a page, as `stpl-deploy serve` does.")]
Host = Annotated[str, typer.Option(help="Address of the page; other than loopback needs a token.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the page's token.", show_default="$STPL_TOKEN, or one is made and printed"
    ),
]
StaleAfter = Annotated[
    str | None,
    typer.Option(
        help="Without a frame for so long, /healthz says stale: 90s, 15m.",
        show_default="3 cadences",
    ),
]

HOST, PORT, WINDOW = "127.0.0.1", 8765, 288


@dataclass(frozen=True)
class RunOptions:
    """How a stream is run; each field is the option of its name."""

    stream: streaming.StreamOptions
    no_skill: bool = False
    thresholds: str | None = None
    skill_window: int = WINDOW
    alarm: int | None = None
    page: bool = False
    host: str = HOST
    port: int = PORT
    token_file: Path | None = None
    stale_after: str | None = None
    max_nowcasts: int | None = None
    idle_timeout: float | None = None
    json: bool = False
    stays: bool = False
    """Whether the page goes on when the source has ended."""


def run(options: RunOptions) -> None:
    """Run a stream, with all that watches it, until it ends; print the summary.

    Raises:
        StplError: what opening the parts and running them raises; the summary is printed first.
    """
    from stpl_deploy.cli.output import say
    from stpl_runtime.page.watch import Watch
    from stpl_runtime.streaming.signals import stop_on_signals

    watch = Watch(watch_options(options))
    try:
        opened = streaming.open_stream(options.stream, watch.watchers)
        watch.attach(opened.each, opened.bundle.manifest, opened.cadence_s)
    except BaseException:
        watch.close()
        raise
    running = opened.streams
    try:
        with watch, stop_on_signals(running):
            for line in [*watch.notes, *opened.notes]:
                say(line)
            if not options.stream.sinks and not options.page:
                say("no --sink: nowcasts are only counted; try: --sink png:out")
            running.run(max_nowcasts=options.max_nowcasts, idle_timeout_s=options.idle_timeout)
            by_itself = running.ended != "stopped"
            if by_itself:
                watch.ended(running.ended)
            if options.stays and running.ended == "the source ended":
                say("the source ended; the page goes on: Ctrl-C ends it")
                running.wait_for_stop()
    except StplError:
        summarise(running.report(), watch, options.json)
        raise
    report = running.report()
    summarise(report, watch, options.json)
    standing = watch.skill is not None and any(a.standing for a in watch.skill.alarms.values())
    if report.exit_code:
        raise typer.Exit(report.exit_code)
    if by_itself and standing:
        raise typer.Exit(AccuracyError.exit_code)


def watch_options(options: RunOptions) -> WatchOptions:
    """What the command line says of watching.

    Raises:
        UsageError: options that do not hold, or that exclude one another.
    """
    from stpl_runtime.page.watch import WatchOptions

    if options.no_skill and options.alarm is not None:
        raise UsageError(
            "--alarm with --no-skill", expected="scores to raise it on", fix="leave --no-skill out"
        )
    stale, limits = options.stale_after, None
    if options.thresholds is not None:
        limits = finite_numbers("--thresholds", options.thresholds, "0.1,1,5")
    return WatchOptions(
        skill=not options.no_skill,
        thresholds=None if limits is None else tuple(sorted(set(limits))),
        window=options.skill_window,
        alarm=options.alarm,
        page=options.page,
        host=options.host,
        port=options.port,
        token_file=options.token_file,
        waits=options.stream.policy != "latest",
        stale_s=None if stale is None else streaming.seconds("--stale-after", stale),
    )


def summarise(report: StreamsReport, watch: Watch, json: bool) -> None:
    """Print what a stream did, and how good its nowcasts were."""
    from stpl_deploy.cli.output import print_json
    from stpl_deploy.cli.stream import print_report

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


def skill_line(skill: SkillNow) -> str:
    """A stream's skill in one line; empty where nothing was compared."""
    scores = skill.total
    pairs = int(scores.frames.sum())
    if not pairs:
        return ""
    ours, theirs = (scores.overall[way]["mse"] for way in ("nowcast", "persistence"))
    text = f"skill: MSE {ours:.4g}, persistence {theirs:.4g}"
    if theirs > 0:
        less = 1 - ours / theirs
        text += f" ({abs(less):.0%} {'less' if less >= 0 else 'more'})"
    text += f", {pairs:,} forecasts compared with what came"
    apart = int(skill.stand_ins.frames.sum())
    if apart:
        text += f"; {apart:,} that stood on stand-ins are left out"
    if skill.alarm is not None and skill.alarm.raised:
        state = "stands" if skill.alarm.standing else "is over"
        text += f"; alarm raised {skill.alarm.raised} times, and {state}"
    return text
