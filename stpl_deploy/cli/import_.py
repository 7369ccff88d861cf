"""`stpl-deploy import`: another project's checkpoint -> run directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from stpl_core.errors import UsageError
from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb


@dataclass(frozen=True)
class ImportCommand:
    """The options of `import`."""

    checkpoint: Annotated[Path, Option("Checkpoint file, as its project saved it.", argument=True)]
    source: Annotated[
        str,
        Option("Its project: modernn, cms-lstm, predrnn, openstl or sa-convlstm.", flag="--from"),
    ]
    out: Annotated[Path, Option("Run directory to make.")]
    method: Annotated[
        str | None,
        Option(
            "OpenSTL only, where the file does not say it: convlstm, predrnn, predrnnpp, "
            "predrnnv2 or mim."
        ),
    ] = None
    frame: Annotated[str | None, Option("C,H,W, where it does not follow from the weights.")] = None
    context: Annotated[
        int | None, Option("Frames read; default: the checkpoint's own, else 10.", least=1)
    ] = None
    horizon: Annotated[
        int | None, Option("Frames predicted; default: the checkpoint's own, else 10.", least=1)
    ] = None
    data: Annotated[
        Path | None,
        Option("Sequences for the export's check, .npy or .npz; default: synthetic."),
    ] = None
    settings: Annotated[
        Sequence[str],
        Option(
            "A key of model or data, over what is inferred.",
            flag="--set",
            metavar="SECTION.KEY=VALUE",
        ),
    ] = ()
    json: Json = False


@verb
def import_(options: ImportCommand) -> None:
    """Turn a checkpoint of the authors' own code into a run, without running anything in it."""
    from stpl_deploy.cli.reports.output import print_json
    from stpl_deploy.extras import needs

    with needs("train"):
        from stpl_train.importers.run_from_checkpoint import ImportRequest, run_from_checkpoint

    request = ImportRequest(
        checkpoint=options.checkpoint,
        project=options.source,
        method=options.method,
        frame=None if options.frame is None else frame_shape(options.frame),
        context=options.context,
        horizon=options.horizon,
        data=options.data,
        settings=tuple(options.settings),
    )
    report = dataclasses.asdict(run_from_checkpoint(request, options.out))
    if options.json:
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
