"""`stpl-deploy demo`: the whole story on a laptop CPU."""

from __future__ import annotations

import shutil
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


@dataclass(frozen=True)
class DemoCommand:
    """The options of `demo`."""

    out: Annotated[Path, Option("Directory for everything it makes.")] = Path("demo")
    settings: Annotated[
        Sequence[str],
        Option("Change a key of the recipe.", flag="--set", metavar="SECTION.KEY=VALUE"),
    ] = ()
    json: Json = False


@verb
def demo(options: DemoCommand) -> None:
    """Train a small model, export and verify it, then stream live nowcasts from a folder."""
    from stpl_deploy.cli.output import print_accuracy, print_json, say
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
    from stpl_deploy.cli.output import print_table
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
