"""`stpl-deploy verify`: a bundle proves itself on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpl_deploy.errors import AccuracyError


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    engine: Annotated[str, typer.Option(help="Engine to run.")] = "onnx",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Compute threads; default: all that this process may use."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a bundle's bytes and its closed-loop accuracy on this machine, without PyTorch."""
    from stpl_deploy.bundle import open_bundle
    from stpl_deploy.cli.output import print_accuracy, print_json, say
    from stpl_runtime.verify import first_breach, verify_bundle

    report = verify_bundle(open_bundle(bundle), engine=engine, threads=threads, progress=say)
    if json:
        print_json({"passed": report.passed, **report.model_dump(mode="json")})
    else:
        print_accuracy(report)
    breach = first_breach(report)
    if breach is not None:
        raise AccuracyError(
            breach,
            expected="PyTorch's results within the tolerance",
            fix="do not use this bundle on this machine; stpl-deploy doctor",
        )
