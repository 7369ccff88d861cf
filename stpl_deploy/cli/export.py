"""`stpl-deploy export`: run directory -> bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpl_deploy.errors import UsageError

ENGINES = ("onnx",)
PRECISIONS = ("fp32", "fp16", "bf16")


def export(
    run: Annotated[Path, typer.Argument(help="Run directory, from `stpl-deploy train`.")],
    out: Annotated[Path, typer.Option(help="Bundle directory to make.")],
    engine: Annotated[str, typer.Option(help="What to build: onnx.")] = "onnx",
    data: Annotated[
        Path | None,
        typer.Option(help="Sequences for the check, .npy or .npz; default: the run's own."),
    ] = None,
    sequences: Annotated[
        int, typer.Option(min=1, help="Sequences that the bundle keeps to prove itself.")
    ] = 16,
    precision: Annotated[
        str, typer.Option(help="fp32, or convolutions in fp16 or bf16 (docs/tensorrt.md).")
    ] = "fp32",
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(help="A node to leave in fp32, as verify --bisect names it; may repeat."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export a run to a bundle and check it against PyTorch over the closed loop."""
    if engine not in ENGINES:
        raise UsageError(
            f"unknown engine {engine}", expected=f"one of {', '.join(ENGINES)}", fix="--engine onnx"
        )
    if precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision}",
            expected=f"one of {', '.join(PRECISIONS)}",
            fix="--precision fp16",
        )
    from stpl_deploy.cli.extras import needs
    from stpl_deploy.cli.output import print_accuracy, print_json, say

    with needs("export"):
        from stpl_export.export import export_run

    bundle = export_run(
        run,
        out,
        data=data,
        sequences=sequences,
        precision=precision,
        keep_fp32=keep_fp32 or (),
        progress=say,
    )
    manifest = bundle.manifest
    if json:
        print_json({"bundle": str(out), **manifest.model_dump(mode="json")})
        return
    assert manifest.accuracy is not None
    print_accuracy(manifest.accuracy)
    size = sum(spec.bytes for spec in manifest.files.values()) / 1e6
    print(f"{out}: {manifest.model.name}, {manifest.model.parameters:,} parameters, {size:.1f} MB")
    print(f"next: stpl-deploy bench {out}")
    print(f"      stpl-deploy predict {out} FRAMES --out nowcast.npz")
