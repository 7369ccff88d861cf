"""`stpl-deploy demo`: the whole story on a laptop CPU."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stpl_core.errors import AccuracyError, UsageError
from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb

if TYPE_CHECKING:
    from stpl_deploy.demo.skill import Skill
    from stpl_runtime.streaming.report import StreamReport

MARK = ".stpl-deploy-demo"
"""Lies in a directory that an earlier demo made, which the next one may therefore replace."""

FRAMES = 90
PERIOD_S = 0.2
RADAR_SPEED = "speed=300"
"""Of `--radar`: a frame each second for one in five minutes."""


@dataclass(frozen=True)
class DemoCommand:
    """The options of `demo`."""

    out: Annotated[Path, Option("Directory for everything it makes.")] = Path("demo")
    settings: Annotated[
        Sequence[str],
        Option("Change a key of the recipe.", flag="--set", metavar="SECTION.KEY=VALUE"),
    ] = ()
    radar: Annotated[
        bool,
        Option("Train nothing: real rain, the shipped model, and its page.", flag="--radar"),
    ] = False
    port: Annotated[
        int, Option("With --radar: port of the page; 0 takes a free one.", least=0, most=65535)
    ] = 8765
    browser: Annotated[
        bool, Option("With --radar: open the page.", flag="--browser/--no-browser")
    ] = True
    json: Json = False


@verb
def demo(options: DemoCommand) -> None:
    """Train a small model, export and verify it, then stream live nowcasts from a folder.

    With --radar: replay an hour and a half of real rain through the model that comes trained, on a
    page that stays up until Ctrl-C.
    """
    if options.radar:
        _radar(options)
        return
    from stpl_deploy.cli.reports.output import print_accuracy, print_json, say
    from stpl_deploy.demo.skill import save_skill, score
    from stpl_deploy.extras import needs

    with needs("export"):
        from stpl_deploy.demo.film import save_film
        from stpl_deploy.demo.live import stream_live, with_truth
        from stpl_export.export import export_run
        from stpl_train.data import unseen_sequence
        from stpl_train.progress import make_reporter
        from stpl_train.recipe import load_recipe
        from stpl_train.training import train

    out, json = options.out, options.json
    recipe = load_recipe("modernn-mini", options.settings)
    begin = time.monotonic()
    _make_room(out)
    say(f"1/4 train {recipe.model.name} for {recipe.training.iterations} iterations")
    result = train(recipe, out / "run", reporter=make_reporter())
    if result.stopped_by is not None:
        raise typer.Exit(128 + result.stopped_by)
    say("2/4 export to ONNX and 3/4 verify against PyTorch over the closed loop")
    bundle = export_run(out / "run", out / "bundle", progress=lambda line: say(f"    {line}"))
    assert bundle.manifest.accuracy is not None
    if not json:
        print_accuracy(bundle.manifest.accuracy)
    say(f"4/4 stream: another process writes a frame into {out / 'frames'} every {PERIOD_S} s")
    frames = unseen_sequence(recipe.data, FRAMES)  # (T, C, H, W)
    nowcasts, report = stream_live(
        bundle, frames, out / "frames", f"png:{out / 'nowcasts'}", PERIOD_S
    )
    rows = with_truth(nowcasts, frames, bundle.manifest.context)
    skill = score([row[2] for row in rows], [row[0] for row in rows], [row[1] for row in rows])
    save_skill(out / "skill.csv", skill)
    save_film(out / "demo.gif", rows[:: max(1, len(rows) // 3)][:3])
    seconds = time.monotonic() - begin
    if json:
        print_json(_document(skill, report, seconds))
    else:
        _print(out, skill, report, seconds)
    if not skill.beats_persistence:
        raise AccuracyError(
            "the nowcast did not beat persistence at every lead time",
            expected="a lower MSE at each",
            fix="stpl-deploy demo --set training.iterations=600",
        )


def _radar(options: DemoCommand) -> None:
    """Write the rain, export the shipped model, and serve both."""
    from stpl_core.log import LogOptions
    from stpl_core.options import RunLimits, StreamOptions
    from stpl_deploy.cli.live.live import Live
    from stpl_deploy.cli.live.options import PageOptions, SkillOptions
    from stpl_deploy.cli.live.run import run_live
    from stpl_deploy.cli.reports.output import say
    from stpl_deploy.extras import needs

    if options.settings:
        raise UsageError(
            f"--set {options.settings[0]} with --radar, which trains nothing",
            expected="one of them",
            fix="stpl-deploy demo --radar",
        )
    with needs("export"):
        from stpl_deploy.demo import radar
        from stpl_deploy.library.exporting import ExportOptions, run_export
    out = options.out
    frames, bundle = out / "radar", out / "rain.bundle"
    _make_room(out)
    written = radar.write_rain(frames)
    say(f"1/3 {len(written)} frames of rain, five minutes apart, in {frames} (KNMI, CC BY 4.0)")
    say(f"2/3 export {radar.MODEL} to {bundle}, checked against PyTorch")
    size = "x".join(map(str, radar.rain()[0].shape[2:]))
    asked = ExportOptions(Path(radar.MODEL), bundle, sequences=1, grid=size)
    run_export(asked, progress=lambda line: say(f"    {line}"))
    say(f"3/3 stpl-deploy serve {bundle} replay:{frames} --source-option {RADAR_SPEED}")
    run_live(
        Live(
            bundle,
            StreamOptions(
                sources=[f"replay:{frames}"],
                sinks=[f"gif:{out / 'nowcast.gif'}"],
                source_options=[RADAR_SPEED],
                policy="pace",
            ),
            RunLimits(),
            SkillOptions(),
            PageOptions(port=options.port),
            log=LogOptions(),
            json=options.json,
            stays=True,
            on_page=radar.show if options.browser and _has_screen() else lambda url: None,
        )
    )


def _has_screen() -> bool:
    """Whether a browser can open here: not one that takes the terminal."""
    windows = sys.platform in ("win32", "darwin")
    return windows or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _document(skill: Skill, report: StreamReport, seconds: float) -> dict[str, Any]:
    columns = ("lead_time", "mse_nowcast", "mse_persistence")
    values = zip(range(1, 1 + len(skill.nowcast)), skill.nowcast, skill.persistence, strict=True)
    return {
        "skill": [dict(zip(columns, map(float, row), strict=True)) for row in values],
        "beats_persistence": skill.beats_persistence,
        "seconds": round(seconds, 1),
        "stream": report.as_json(),
    }


def _print(out: Path, skill: Skill, report: StreamReport, seconds: float) -> None:
    from stpl_deploy.cli.reports.output import print_table
    from stpl_deploy.demo.skill import COLUMNS

    print_table(f"{skill.nowcasts} live nowcasts against what came", COLUMNS, skill.rows())
    if report.latency_median_ms is not None:
        print(f"frame -> nowcast: median {report.latency_median_ms:.1f} ms")
    print(f"{seconds:.0f} s in all. Look at {out / 'demo.gif'}")
    print(f"next: stpl-deploy bench {out / 'bundle'}")
    print(f"      stpl-deploy stream {out / 'bundle'} FOLDER --sink png:nowcasts")


def _make_room(out: Path) -> None:
    """Remove an earlier demo; refuse anything else."""
    if (out / MARK).is_file():
        shutil.rmtree(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} already exists and is not a demo",
            expected="a path that does not exist yet",
            fix="stpl-deploy demo --out my-demo",
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
