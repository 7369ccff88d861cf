"""`stpl-deploy verify`: a bundle proves itself on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_core.errors import AccuracyError
from stpl_deploy.cli.engines import Engine, Forecast, RequireProvider

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    engine: Engine = "onnx",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Compute threads; default: all that this process may use."),
    ] = None,
    forecast: Forecast = "auto",
    require_provider: RequireProvider = None,
    bisect: Annotated[
        bool,
        typer.Option(help="On a breach in half precision: search the operation (needs [export])."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a bundle's bytes and its closed-loop accuracy on this machine, without PyTorch."""
    from stpl_core.bundle import open_bundle
    from stpl_deploy.cli.output import print_accuracy, print_json, say
    from stpl_runtime.proof.verify import first_breach, verify_bundle

    opened = open_bundle(bundle)
    report = verify_bundle(
        opened,
        engine=engine,
        threads=threads,
        forecast=forecast,
        require_provider=require_provider,
        progress=say,
    )
    if json:
        print_json({"passed": report.passed, **report.model_dump(mode="json")})
    else:
        print_accuracy(report)
        if report.passed:
            print(f"{bundle}: checksums match, accuracy within tolerance")
            print(f"next: stpl-deploy stream {bundle} SOURCE --sink png:out")
    breach = first_breach(report)
    if breach is not None:
        raise AccuracyError(
            breach,
            expected="PyTorch's results within the tolerance",
            fix=_culprits(opened)
            if bisect
            else "do not use this bundle on this machine; stpl-deploy doctor",
        )


def _culprits(bundle: Bundle) -> str:
    """Search what breaks in half precision and say what to type."""
    precision = bundle.manifest.precision
    if precision not in ("fp16", "bf16"):
        return (
            f"leave --bisect out: it searches what half precision breaks, and this is {precision}"
        )
    from stpl_deploy.cli.extras import needs
    from stpl_deploy.cli.output import say

    with needs("export"):
        from stpl_export.precision.bisect import bisect_bundle
    found = bisect_bundle(bundle, progress=say)
    if found.first is None:
        return "another device or driver: with rounding emulated on this CPU the graph passes"
    say(
        f"first to break, rounding emulated on this CPU: {found.first} ({found.kinds[found.first]})"
    )
    if not found.passes:
        return "export with --precision fp32: no few operations are to blame"
    kept = " ".join(f"--keep-fp32 {name}" for name in found.keep)
    return f"export with --precision {precision} {kept}"
