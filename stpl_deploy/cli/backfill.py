"""`stpl-deploy backfill`: every complete window of an archive becomes a nowcast in one store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stpl_core.errors import BreachError
from stpl_core.options import BackfillOptions
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb

if TYPE_CHECKING:
    from stpl_core.scores.accumulator import Scores
    from stpl_runtime.backfilling.backfill import BackfillReport

_SHOWN = ("mse", "mae", "rmse", "mean_error", "ssim")


@dataclass(frozen=True)
class BackfillCommand:
    """The options of `backfill`."""

    backfill: BackfillOptions
    json: Json = False


@verb
def backfill(options: BackfillCommand) -> None:
    """Make a nowcast of every window of an archive; run again, it continues."""
    from stpl_core.readers.names import check_no_model
    from stpl_deploy.cli.reports.output import print_json, say, timed_bar
    from stpl_runtime.backfilling.backfill import Hooks, as_document, run_backfill

    asked = options.backfill
    check_no_model(asked.archive)
    with timed_bar("windows") as progress:
        report = run_backfill(asked, Hooks(say, progress))
    if options.json:
        print_json(as_document(report))
    else:
        _print(report)
    counts = report.counts
    if counts.failed:
        raise BreachError(
            f"{counts.failed} of {counts.windows} windows failed"
            + (f", such as: {report.reasons[0]}" if report.reasons else ""),
            expected="frames that the model can use, and numbers from the engine",
            fix=f"{asked.out} has them as status 3; correct the archive, then another --out",
        )


def _print(report: BackfillReport) -> None:
    counts = report.counts
    parts = [f"{counts.written:,} written", f"{counts.incomplete:,} incomplete"]
    parts.append(f"{counts.failed:,} failed")
    if counts.pending:
        parts.append(f"{counts.pending:,} not made yet")
    rate = f", {report.made / report.seconds:.3g} a second" if report.made else ""
    print(f"{report.out}: {counts.windows:,} windows = {' + '.join(parts)}")
    print(f"made now: {report.made:,} in {report.seconds:.1f} s{rate}")
    if report.scores is not None:
        _print_scores(report.scores)
    if counts.pending:
        print("next: the other shards, each with its own --shard I/N")


def _print_scores(scores: dict[str, Scores]) -> None:
    """A line for each forecaster; lead times are in --json."""
    from stpl_deploy.cli.reports.output import print_table

    first, *_ = scores.values()
    names = [name for name in first.overall if name in _SHOWN or name.startswith("csi_")]
    rows = [[way, *(f"{one.overall[n]:.4g}" for n in names)] for way, one in scores.items()]
    frames = int(first.overall["frames"])
    print_table(f"scores of {frames:,} frames, all lead times", ["", *names], rows)
