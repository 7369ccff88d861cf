"""`stpl-deploy export`: run directory -> bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json, TrustModel, trust
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.cli.sign import signed_line
from stpl_deploy.library.exporting import ExportOptions

if TYPE_CHECKING:
    from stpl_core.bundle import Manifest


@dataclass(frozen=True)
class ExportCommand:
    """The options of `export`."""

    export: ExportOptions
    trust_model: TrustModel = ()
    sign: Annotated[
        Path | None, Option("Sign the bundle with this private key.", metavar="KEY")
    ] = None
    json: Json = False


@verb
def export(options: ExportCommand) -> None:
    """Export a run to a bundle and check it against PyTorch over the closed loop."""
    from stpl_deploy.library.exporting import check, run_export

    check(options.export)
    from stpl_deploy.cli.reports.output import print_json, say

    trust(options.trust_model)
    out = options.export.out
    manifest = run_export(options.export, progress=say).manifest
    if options.sign is not None:
        from stpl_core.safety.sign_bundle import sign_bundle

        statement = sign_bundle(out, options.sign)
        say(signed_line(out, statement.key, statement.version))
    if options.json:
        print_json({"bundle": str(out), **manifest.model_dump(mode="json")})
        return
    _print(out, manifest)
    if options.export.golden is not None:
        print(f"      {options.export.golden}/README.md: commands for polygraphy and trtexec")


def _print(out: Path, manifest: Manifest) -> None:
    from stpl_deploy.cli.reports.output import print_accuracy

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
