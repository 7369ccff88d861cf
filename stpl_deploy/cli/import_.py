"""`stpl-deploy import`: another project's checkpoint -> run directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from stpl_core.errors import UsageError


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint file, as its project saved it.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Its project: modernn, cms-lstm, predrnn, openstl or sa-convlstm."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="OpenSTL only, where the file does not say it: convlstm, predrnn, predrnnpp, "
            "predrnnv2 or mim."
        ),
    ] = None,
    frame: Annotated[
        str | None, typer.Option(help="C,H,W, where the weights do not tell it.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Frames read; default: the checkpoint's own, else 10.")
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(min=1, help="Frames predicted; default: the checkpoint's own, else 10."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Sequences for the export's check, .npy or .npz; default: synthetic."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="A key of model or data, over what is inferred.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Turn a checkpoint of the authors' own code into a run, without running anything in it."""
    from stpl_deploy.cli.extras import needs
    from stpl_deploy.cli.output import print_json

    with needs("train"):
        from stpl_train.importers.run_from_checkpoint import ImportRequest, run_from_checkpoint

    request = ImportRequest(
        checkpoint=checkpoint,
        project=source,
        method=method,
        frame=None if frame is None else frame_shape(frame),
        context=context,
        horizon=horizon,
        data=data,
        settings=tuple(settings or ()),
    )
    report = dataclasses.asdict(run_from_checkpoint(request, out))
    if json:
        print_json(report)
        return
    _print(report)


def frame_shape(text: str) -> tuple[int, int, int]:
    """Read `C,H,W`.

    Raises:
        UsageError: it is something else.
    """
    parts = text.replace("x", ",").split(",")
    try:
        channels, height, width = (int(part) for part in parts)
    except ValueError:
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise UsageError(
            f"--frame {text}",
            expected="channels, height and width",
            fix="--frame 1,64,64",
        )
    return channels, height, width


def _print(report: dict[str, Any]) -> None:
    keys = ", ".join(f"{key} {value}" for key, value in report["keys"].items())
    unused = report["unused"]
    size = "x".join(str(side) for side in report["frame"])
    print(f"{report['checkpoint']}: {report['container']}, {report['tensors']} tensors")
    print(f"  model    {report['model']}, {report['parameters']:,} parameters")
    print(f"  keys     {keys}")
    print(f"  frames   {report['context']} in, {report['horizon']} out, {size}")
    print(f"  unused   {', '.join(unused) if unused else 'none: every tensor has its place'}")
    for note in report["notes"]:
        print(f"  note     {note}")
    print(f"{report['run']}: weights, recipe, validation sequences ({report['data']})")
    print(f"next: stpl-deploy export {report['run']} --out {report['run']}.bundle")
