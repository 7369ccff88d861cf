"""`stpl-deploy export`: run directory -> bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_core.errors import UsageError
from stpl_deploy.cli.trust import TrustModel, trust

if TYPE_CHECKING:
    from stpl_core.bundle import GraphName
    from stpl_export.builders.plans import PlanRequest

ENGINES = ("onnx", "trt", "trt-rtx")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


def export(
    run: Annotated[
        Path, typer.Argument(help="Run directory, from `stpl-deploy train`; or pretrained:NAME.")
    ],
    out: Annotated[Path, typer.Option(help="Bundle directory to make.")],
    engine: Annotated[str, typer.Option(help="What to build: onnx, trt or trt-rtx.")] = "onnx",
    data: Annotated[
        Path | None,
        typer.Option(help="Sequences for the check, .npy or .npz; default: the run's own."),
    ] = None,
    sequences: Annotated[
        int,
        typer.Option(
            min=1, help="Sequences that the bundle keeps to prove itself, if 16 MB hold them."
        ),
    ] = 16,
    grid: Annotated[
        str | None,
        typer.Option(help="HxW: the same weights on other frames; norm gn1 or none."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, or convolutions in fp16, bf16 or int8 (docs/tensorrt.md).")
    ] = "fp32",
    keep_slower: Annotated[
        bool,
        typer.Option(
            help="int8: keep the bundle though it is no faster than fp32 on this machine."
        ),
    ] = False,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE",
            help="A node to leave in fp32, as verify --bisect names it; may repeat.",
        ),
    ] = None,
    gpu: Annotated[
        str,
        typer.Option(help="trt-rtx: compute capabilities, as 8.6,12.0; default: 8.0 to 12.0."),
    ] = "",
    batch: Annotated[str, typer.Option(help="trt: a plan for each batch size, as 1,4.")] = "1",
    graphs: Annotated[
        str,
        typer.Option(help="trt: of step,forecast,rollout; default: step, and forecast if quick."),
    ] = "",
    compatible: Annotated[
        str, typer.Option(help="trt: version, ampere+ or same-capability, with commas.")
    ] = "",
    trust_model: TrustModel = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export a run to a bundle and check it against PyTorch over the closed loop."""
    if engine not in ENGINES:
        raise UsageError(
            f"unknown engine {engine}",
            expected=f"one of {', '.join(ENGINES)}",
            fix=f"--engine {'trt' if engine in ('tensorrt', 'engine') else 'onnx'}",
        )
    if precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision}",
            expected=f"one of {', '.join(PRECISIONS)}",
            fix="--precision fp16",
        )
    _refuse_idle(engine != "onnx", f"--engine {engine}", "--engine trt-rtx", {
        "--gpu": gpu, "--batch": "" if batch == "1" else batch, "--graphs": graphs,
        "--compatible": compatible,
    })  # fmt: skip
    low = f"--precision {precision}"
    half = {"--keep-fp32": " ".join(keep_fp32 or ())}
    _refuse_idle(precision != "fp32", low, "--precision fp16", half)
    _refuse_idle(precision == "int8", low, "--precision int8", {"--keep-slower": keep_slower})
    from stpl_deploy.cli.extras import needs
    from stpl_deploy.cli.output import print_accuracy, print_json, say

    trust(trust_model)
    with needs("export"):
        from stpl_export.export import export_run
    from stpl_runtime.engines.tiled import domain_size

    plans = None if engine == "onnx" else _request(engine, gpu, batch, graphs, compatible)
    bundle = export_run(
        run,
        out,
        data=data,
        sequences=sequences,
        grid=None if grid is None else domain_size(grid),
        precision=precision,
        keep_fp32=keep_fp32 or (),
        keep_slower=keep_slower,
        plans=plans,
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
    if manifest.int8 is not None:
        speed = manifest.int8.speed
        print(
            "  int8: speed not measured; accuracy measured by ONNX Runtime on the same graphs"
            if speed is None
            else f"  int8 is {speed.times:.2f} times as fast as fp32 here"
        )
    for spec in manifest.engines:
        took = f"{spec.details['build_seconds']:.1f} s, built, not run"
        print(f"  {spec.file}: {spec.engine} {spec.details['version']}, {took}")
    print(f"next: stpl-deploy bench {out}")
    print(f"      stpl-deploy predict {out} FRAMES --out nowcast.npz")


def _refuse_idle(heard: bool, found: str, fix: str, options: Mapping[str, str | bool]) -> None:
    """Refuse options that would do nothing beside the others."""
    for option, value in options.items():
        if value and not heard:
            given = option if value is True else f"{option} {value}"
            raise UsageError(
                f"{given} with {found}, which does not hear it",
                expected=f"it with {fix}",
                fix=f"{fix}, or leave {option} out",
            )


def _request(engine: str, gpu: str, batch: str, graphs: str, compatible: str) -> PlanRequest:
    from stpl_export.builders.plans import PlanRequest

    try:
        batches = tuple(int(word) for word in _words(batch))
    except ValueError as error:
        raise UsageError(f"--batch {batch}", expected="numbers such as 1,4", fix="--batch 1") from (
            error
        )
    chosen = [name for name in GRAPHS if name in _words(graphs)]
    if unknown := set(_words(graphs)).difference(GRAPHS):
        raise UsageError(
            f"unknown graph {min(unknown)}",
            expected=f"of {', '.join(GRAPHS)}",
            fix="--graphs step,forecast",
        )
    return PlanRequest(engine, _words(gpu), batches, tuple(chosen), _words(compatible))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
