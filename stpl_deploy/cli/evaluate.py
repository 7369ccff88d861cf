"""`stpl-deploy evaluate`: a forecaster's scores per lead time, beside those of baselines."""

from __future__ import annotations

import contextlib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_core.errors import UsageError
from stpl_deploy.cli.engines import Engine, Forecast, RequireProvider
from stpl_deploy.cli.numbers import finite_numbers
from stpl_deploy.cli.trust import TrustModel, trust

if TYPE_CHECKING:
    from stpl_runtime.evaluation.evaluate import Evaluation
    from stpl_runtime.evaluation.subject import Judged, Material


class Part(str, Enum):
    """A part of an archive that is not for training."""

    validation = "validation"
    test = "test"


def evaluate(
    path: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="Run directory, or bundle directory.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Sequences, .npy or .npz of (N,S,C,H,W), or any archive; "
            "default: those that it carries along."
        ),
    ] = None,
    part: Annotated[
        Part | None,
        typer.Option(help="This part of the archive it was trained on, in place of --data."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for scores.csv, scores.json and report.html."),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(help="Events are values at or above these, such as 0.1,1,5; physical units."),
    ] = None,
    scales: Annotated[str, typer.Option(help="Sides of FSS's squares, in pixels.")] = "5,15,31",
    baseline: Annotated[
        str | None,
        typer.Option(help="Of persistence,flow,day,week; default: all that the data allow."),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            min=1, help="Frames to predict, with --data or --part; default: as trained or tested."
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Frames between the windows of an archive; default: as many as it predicts.",
        ),
    ] = None,
    engine: Engine = "onnx",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Compute threads; default: all that this process may use."),
    ] = None,
    forecast: Forecast = "auto",
    require_provider: RequireProvider = None,
    grid: Annotated[
        str | None,
        typer.Option(help="HxW of larger frames of --data or --part: a bundle covers in tiles."),
    ] = None,
    any_grid: Annotated[
        bool, typer.Option("--any-grid", help="Go on where pixels have another size than trained.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace those three files in an existing --out.")
    ] = False,
    trust_model: TrustModel = None,
    json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
) -> None:
    """Score forecasts per lead time, beside persistence, optical flow and the day before."""
    if out is not None:
        _check_out(out, overwrite)
    given = data is not None or part is not None
    if horizon is not None and not given:
        raise UsageError(
            f"--horizon {horizon} for the sequences that it carries, which have their own",
            expected="--horizon with --data or --part",
            fix="--part test, or --data D",
        )
    if grid is not None and not given:
        raise UsageError(
            f"--grid {grid} for the sequences that it carries, which are of its own size",
            expected="--grid with --data or --part",
            fix="--data D",
        )
    limits = (
        None
        if thresholds is None
        else finite_numbers("--thresholds", thresholds, "1,5", blanks=True)
    )
    sides = [round(side) for side in finite_numbers("--scales", scales, "5,15", blanks=True)]
    if min(sides, default=1) < 1:
        raise UsageError(f"--scales {scales}", expected="pixels, 1 or more", fix="--scales 5,15")
    words = None if baseline is None else [word.strip() for word in baseline.split(",")]
    import importlib.util

    from stpl_deploy.cli.output import print_json, progress_bar, say
    from stpl_deploy.judging import open_judged
    from stpl_runtime.engines.tiled import domain_size
    from stpl_runtime.evaluation.evaluate import evaluate as scored
    from stpl_runtime.evaluation.subject import Backend

    trust(trust_model)

    judged = open_judged(
        path,
        backend=Backend(engine, threads, forecast, require_provider),
        horizon=horizon,
        testing=given,
        domain=None if grid is None else domain_size(grid),
    )
    if out is not None:  # told now, and not when all is done
        _drawing()
    if words is None and importlib.util.find_spec("cv2") is None:
        say("no optical flow: OpenCV is not installed; pip install 'stpl-deploy[evaluate]'")
    material = _material(judged, data, part, stride, any_grid)
    for remark in material.remarks:
        say(remark)
    with progress_bar("sequences") as progress:
        evaluation = scored(
            judged, material, thresholds=limits, scales=sides, baselines=words, progress=progress
        )
    if out is not None:
        _save(evaluation, out)
    if json:
        print_json(evaluation.document())
        return
    _print(evaluation)
    if out is not None:
        print(f"{out}: scores.csv, scores.json, report.html")
    else:
        print("next: the same with --out DIRECTORY, for a report with pictures")


def _material(
    judged: Judged, data: Path | None, part: Part | None, stride: int | None, any_grid: bool
) -> Material:
    from stpl_runtime.evaluation.archives import archive_material, is_archive
    from stpl_runtime.evaluation.subject import read_material

    if data is not None and part is not None:
        raise UsageError(
            f"--data {data} and --part {part.value}", expected="one of them", fix="leave one out"
        )
    if data is not None and not is_archive(data):
        return read_material(data, judged)
    if data is None and part is None:
        return judged.own()
    return archive_material(
        judged,
        path=data,
        part=part.value if part else "test",
        stride=stride,
        any_grid=any_grid,
    )


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


def _drawing() -> None:
    from stpl_deploy.cli.extras import needs

    with needs("evaluate"):
        import matplotlib  # noqa: F401


def _save(evaluation: Evaluation, out: Path) -> None:
    """Write all three at once into a new directory, one after the other into an older one."""
    from stpl_core.files import atomic_directory, atomic_file
    from stpl_deploy.cli.output import document_text
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
    from stpl_deploy.cli.output import print_table
    from stpl_runtime.evaluation.report import number, title

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
                [str(k + 1), *(number(float(one.per_lead[name][k])) for one in ways.values())]
                for k in range(judged.horizon)
            ],
        )
    print(f"{evaluation.sequences} sequences: {evaluation.data}")
