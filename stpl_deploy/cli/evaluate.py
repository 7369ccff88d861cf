"""`stpl-deploy evaluate`: a forecaster's scores per lead time, beside those of baselines."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stpl_core.errors import UsageError
from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json, TrustModel, trust
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.library.evaluation import EvaluateOptions

if TYPE_CHECKING:
    from stpl_runtime.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class EvaluateCommand:
    """The options of `evaluate`."""

    evaluate: EvaluateOptions
    out: Annotated[
        Path | None, Option("Directory for scores.csv, scores.json and report.html.")
    ] = None
    overwrite: Annotated[
        bool, Option("Replace those three files in an existing --out.", flag="--overwrite")
    ] = False
    trust_model: TrustModel = ()
    json: Json = False


@verb
def evaluate(options: EvaluateCommand) -> None:
    """Score forecasts per lead time, beside persistence, optical flow and the day before."""
    from stpl_deploy.library.evaluation import check, run_evaluation

    out = options.out
    if out is not None:
        _check_out(out, options.overwrite)
    check(options.evaluate)
    from stpl_deploy.cli.reports.output import print_json, say, timed_bar

    trust(options.trust_model)
    if out is not None:  # known now, and not when all is done
        _check_drawing()
    with timed_bar("sequences") as progress:
        evaluation = run_evaluation(options.evaluate, say, progress)
    if out is not None:
        _save(evaluation, out)
    if options.json:
        print_json(evaluation.document())
        return
    _print(evaluation)
    if out is not None:
        print(f"{out}: scores.csv, scores.json, report.html")
    else:
        print("next: the same with --out DIRECTORY, for a report with pictures")


def _check_out(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        if overwrite or not any(out.iterdir()):
            return
    elif not (out.exists() or out.is_symlink()):
        return
    raise UsageError(
        f"{out} already exists",
        expected="a path that does not exist yet, or an empty directory",
        fix="another --out, or --overwrite" if out.is_dir() else "another --out",
    )


def _check_drawing() -> None:
    from stpl_deploy.extras import needs

    with needs("evaluate"):
        import matplotlib  # noqa: F401


def _save(evaluation: Evaluation, out: Path) -> None:
    """Write all three at once into a new directory, one after the other into an older one."""
    from stpl_core.files import atomic_directory, atomic_file
    from stpl_deploy.cli.reports.output import document_text
    from stpl_runtime.evaluation.report import html_report

    texts = {
        "scores.csv": evaluation.table(),
        "scores.json": document_text(evaluation.document()),
        "report.html": html_report(evaluation),
    }
    older = out.is_dir() and any(out.iterdir())
    with contextlib.nullcontext(out) if older else atomic_directory(out) as folder:
        for name, text in texts.items():
            with atomic_file(folder / name) as file:
                file.write(text.encode())


def _print(evaluation: Evaluation) -> None:
    """The mean of every score, then the first ones for each lead time."""
    from stpl_deploy.cli.reports.output import print_table
    from stpl_runtime.evaluation.words import beyond_chance, lead_text, number, title, verdict

    judged, ways = evaluation.judged, evaluation.scores
    print_table(
        f"{judged.name}, {judged.how}: {judged.context} in, {judged.horizon} out",
        ["all lead times", *ways],
        [
            [title(evaluation, name), *(number(scores.overall[name]) for scores in ways.values())]
            for name in evaluation.names
        ],
    )
    shown = ["mse", *(f"csi_{threshold:g}" for threshold in evaluation.thresholds[:2])]
    for name in shown:
        print_table(
            title(evaluation, name),
            ["lead", *ways],
            [
                [
                    lead_text(evaluation, k + 1),
                    *(number(float(one.per_lead[name][k])) for one in ways.values()),
                ]
                for k in range(judged.horizon)
            ],
        )
    _print_differences(evaluation)
    _print_chances(evaluation)
    _print_ensemble(evaluation)
    print(verdict(evaluation))
    print("\n".join(beyond_chance(evaluation)))
    print(f"protocol: {evaluation.protocol}")
    period = "" if evaluation.period is None else f", {' to '.join(evaluation.period)}"
    print(f"{evaluation.sequences} sequences: {evaluation.data}{period}")


def _print_differences(evaluation: Evaluation) -> None:
    """The model less the one that it is compared with, for the scores that verdicts go by."""
    if evaluation.other is None:
        return
    from stpl_deploy.cli.reports.output import print_table
    from stpl_runtime.evaluation.words import difference_rows, headline_scores, title

    print(f"other: {evaluation.other.name}, {evaluation.other.how}")
    for name in headline_scores(evaluation):
        print_table(
            f"{title(evaluation, name)}: model less other",
            ["lead", "model", "other", "difference", "low", "high", "the model is"],
            difference_rows(evaluation, name),
        )


def _print_ensemble(evaluation: Evaluation) -> None:
    """CRPS, spread and ranks for each lead time, where an ensemble was asked for."""
    scores = evaluation.ensemble
    if scores is None:
        return
    from stpl_deploy.cli.reports.output import print_table
    from stpl_runtime.evaluation.ensembles import ensemble_rows
    from stpl_runtime.evaluation.words import lead_text, number

    heads, rows = ensemble_rows(scores, lambda step: lead_text(evaluation, step), number)
    units = evaluation.judged.codec.units
    print_table(f"Ensemble of {scores.members} members, {units}", heads, rows)


def _print_chances(evaluation: Evaluation) -> None:
    """Brier skill and ROC area by lead time and threshold, where the model gives chances."""
    scores = evaluation.chances
    if scores is None:
        return
    from stpl_deploy.cli.reports.output import print_table
    from stpl_runtime.evaluation.chances import skill_over_flow
    from stpl_runtime.evaluation.words import lead_text, number

    units = evaluation.judged.codec.units
    tables = [
        ("Brier skill score of the chances, over climatology", scores.skill),
        (
            "Brier skill score of the chances, over flow's neighbourhoods",
            skill_over_flow(evaluation.chances, evaluation.flow_brier),
        ),
        ("Area below the ROC curve of the chances", scores.roc_area),
    ]
    for title, found in tables:
        if found is not None:
            print_table(
                title,
                ["lead", *(f">= {threshold:g} {units}" for threshold in scores.thresholds)],
                [
                    [lead_text(evaluation, k + 1), *(number(float(value)) for value in row)]
                    for k, row in enumerate(found)
                ],
            )
