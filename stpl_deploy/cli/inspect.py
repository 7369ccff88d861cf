"""`stpl-deploy inspect`: what a run or a bundle is."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stpl_core.errors import UsageError
from stpl_core.option import Option
from stpl_core.options import SignatureOptions
from stpl_core.safety.printable import printable
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb

if TYPE_CHECKING:
    from stpl_core.bundle import Int8Facts, Manifest


@dataclass(frozen=True)
class InspectCommand:
    """The options of `inspect`."""

    path: Annotated[Path, Option("Run or bundle directory, or an .engine file.", argument=True)]
    signature: SignatureOptions = field(default_factory=SignatureOptions)
    json: Json = False


@verb
def inspect(options: InspectCommand) -> None:
    """Say what a run, a bundle or an engine is: model, frames, state, files, accuracy."""
    from stpl_deploy.cli.reports.output import print_json

    path, json = options.path, options.json
    if (path / "manifest.json").is_file():
        _bundle(path, options)
    elif path.suffix == ".engine":
        _plan(path, options)
    elif options.signature.trusted_keys is not None:
        raise UsageError(
            f"{path} is not a bundle, and only bundles are signed",
            expected="a directory with manifest.json",
            fix="leave --trusted-keys out",
        )
    elif (path / "recipe.toml").is_file() or str(path).startswith("pretrained:"):
        from stpl_deploy.extras import needs

        with needs("train"):
            from stpl_train.describe import describe_run

        document = describe_run(path)
        if json:
            print_json(document)
        else:
            _pairs(f"run {path}", _run_lines(document))
    else:
        frames = path.exists()
        raise UsageError(
            f"{path} is neither a run nor a bundle",
            expected="a directory with recipe.toml or manifest.json",
            fix=f"stpl-deploy data inspect {path}, if it holds frames"
            if frames
            else "check the path",
        )


def _run_lines(document: dict[str, Any]) -> dict[str, str]:
    """What `describe_run` found, in short lines."""
    from stpl_deploy.cli.reports.output import count_text

    state, count = document["state"], document["parameters"]
    lines = {
        "model": document["model"] + ("" if count is None else f", {count:,} parameters"),
        "keys": ", ".join(f"{key} {value}" for key, value in document["keys"].items()) or "none",
        "frames": document["frames"],
        "data": document["data"],
        "state": "not known: inspect imports no class of somebody's own"
        if state is None
        else _state_line(state.values()),
    }
    if "imported" in document:
        return {**lines, "imported": document["imported"]}
    last, best = document["last"], document["best"]
    if "started" in document:
        lines["started"] = f"from the weights of {document['started']}"
    if not last:
        return {
            **lines,
            "trained": f"not validated yet, of {count_text(document['iterations'], 'iteration')}",
        }
    return {
        **lines,
        "trained": f"iteration {int(last['iteration']):,} of {document['iterations']:,}, "
        f"loss {float(last['loss']):.4g}",
        "validation": f"MSE per frame {float(best['mse']):.4g}, "
        f"persistence {float(best['persistence']):.4g}",
        "kept": f"the weights of iteration {int(best['iteration']):,}, which that validation is of",
    }


def _state_line(shapes: Collection[tuple[int, ...]]) -> str:
    kib = sum(math.prod(shape) for shape in shapes) * 4 / 1024  # float32
    return f"{len(shapes)} tensors, {kib:,.0f} KiB for each stream"


def _plan(path: Path, options: InspectCommand) -> None:
    from stpl_deploy.cli.reports.output import print_json
    from stpl_runtime.engines.plan_report import describe_plan, plan_lines
    from stpl_runtime.engines.preflight import look_here

    report = describe_plan(path, look_here(), options.signature)
    if options.json:
        print_json(report)
    else:
        _pairs(f"engine {path}", plan_lines(report))


def _bundle(path: Path, options: InspectCommand) -> None:
    from stpl_core.safety.open_signed import open_signed
    from stpl_core.same_grid import grid_text
    from stpl_deploy.cli.reports.output import print_accuracy, print_json, print_table

    manifest = open_signed(path, options.signature).manifest
    if options.json:
        print_json(manifest.model_dump(mode="json"))
        return
    channels, height, width = manifest.frame
    high, wide = manifest.domain
    padded = "" if (high, wide) == (height, width) else f", padded to {height}x{width}"
    codec = manifest.codec
    _pairs(
        f"bundle {path}",
        {
            "model": f"{manifest.model.name}, {manifest.model.parameters:,} parameters",
            "frames": f"{manifest.context} in, {manifest.horizon} out, "
            f"{channels}x{high}x{wide}{padded}",
            "cadence": "not fixed" if manifest.cadence_s is None else f"{manifest.cadence_s:g} s",
            **({"grid": " and ".join(map(grid_text, manifest.grids))} if manifest.grids else {}),
            "values": f"{codec.quantity} in {codec.range_text()}"
            + ("" if codec.conversion == "none" else f", {codec.conversion}, Z-R {codec.zr}")
            + ("" if codec.kind == "linear" else f", the model sees {codec.kind}"),
            "state": _state_line([spec.shape for spec in manifest.state]),
            **_chances_line(manifest),
            "precision": f"{manifest.precision}, opset {manifest.opset}"
            + "".join(
                f", {share:.1%} of the convolution work in {kind}"
                for kind, share in manifest.convolution_share.items()
            ),
            **_int8_lines(manifest.int8),
            **_link_lines(path, manifest),
            "made": f"{manifest.created.replace('+00:00', 'Z')} with "
            + ", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
        },
    )
    rows = [
        [name, f"{spec.bytes / 1e6:.2f} MB", spec.sha256[:12]]
        for name, spec in manifest.files.items()
    ]
    print_table("files", ["name", "size", "SHA-256"], rows)
    if manifest.engines:
        plans = [
            [spec.file, spec.engine, spec.precision, ", ".join(spec.details["capabilities"])]
            for spec in manifest.engines
        ]
        print_table("engines", ["file", "flavour", "precision", "capabilities"], plans)
        for line in _forecast_lines(manifest):
            print(printable(line))
    if manifest.accuracy is not None:
        print_accuracy(manifest.accuracy)
        print(printable(f"  as recorded by export; stpl-deploy verify {path} measures here", 4000))


def _forecast_lines(manifest: Manifest) -> list[str]:
    """How each flavour's session makes a forecast; what it chose here, `bench` and `verify` say."""
    lines = []
    for flavour in sorted({spec.engine for spec in manifest.engines}):
        built = {spec.graph for spec in manifest.engines if spec.engine == flavour}
        how = "by replays of the step plan"
        if {"step", "forecast"} <= built:
            how += " or by the unrolled plan, what is measured faster where it runs"
        if "step" in built:
            lines.append(f"  {flavour}: a forecast is made {how}")
    return lines


def _link_lines(path: Path, manifest: Manifest) -> dict[str, str]:
    """Files under several hard links, as `cp -l` makes them: fine here, refused by others."""
    linked = [name for name in manifest.files if _links(path / name) > 1]
    if not linked:
        return {}
    return {
        "hard links": f"{', '.join(linked)}: runs here; onnx.load and programs that give ONNX "
        f"Runtime the path refuse it; for them: cp -r {path} COPY"
    }


def _links(path: Path) -> int:
    try:
        return path.stat().st_nlink
    except OSError:
        return 0


def _chances_line(manifest: Manifest) -> dict[str, str]:
    """Which thresholds it gives chances of, where it does."""
    if not manifest.outputs:
        return {}
    from stpl_runtime.chances import thresholds_of

    above = ", ".join(f"{threshold:g}" for threshold in thresholds_of(manifest))
    return {"chances": f"of {above} {manifest.codec.units} and more: predict --probabilities"}


def _int8_lines(facts: Int8Facts | None) -> dict[str, str]:
    if facts is None:
        return {}
    speed = facts.speed
    return {
        "int8": facts.scheme,
        "calibrated": f"over the closed loop of {facts.calibration}",
        "speed": "not measured: its engines did not run where they were built"
        if speed is None
        else f"{speed.times:.2f} times fp32 where it was exported (single rounds {speed.p05:.2f} "
        f"to {speed.p95:.2f}, {speed.threads} threads of {speed.machine})",
    }


def _pairs(title: str, pairs: dict[str, Any]) -> None:
    print(printable(title))
    for key, value in pairs.items():
        print(f"  {key:<11}{printable(value, 4000)}")
