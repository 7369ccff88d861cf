"""`stpl-deploy package`: a bundle as a model repository, which NVIDIA's Triton serves as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from stpl_core.errors import MissingExtraError
from stpl_core.option import Option
from stpl_core.options import BundlePath
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.cli.options.trust import TrustOptions, open_trusted


@dataclass(frozen=True)
class PackageCommand:
    """The options of `package`."""

    bundle: BundlePath
    out: Annotated[Path, Option("Model repository to make: a folder of models.")]
    name: Annotated[
        str | None,
        Option("The models are NAME_step, NAME_forecast and NAME_rollout.", default="the bundle's"),
    ] = None
    max_batch: Annotated[int, Option("Requests of several clients in one run.", least=1)] = 8
    sequences: Annotated[
        int, Option("Sequences that may go on at the same time; others wait.", least=1)
    ] = 32
    idle: Annotated[
        str | None,
        Option(
            "A sequence that rests for so long is ended: 90s, 15m.",
            metavar="TIME",
            default="3 frames of the bundle's cadence, at least 1m",
        ),
    ] = None
    backend: Annotated[
        Literal["onnxruntime", "python", "tensorrt"],
        Option(
            "Triton's: onnxruntime runs the graphs; tensorrt the plans that the bundle has, and "
            "onnxruntime its other graphs; python stpl-deploy, which the server's Python must have."
        ),
    ] = "onnxruntime"
    trust: TrustOptions = field(default_factory=TrustOptions)
    json: Json = False


@verb
def package(options: PackageCommand) -> None:
    """Make a model repository of a bundle, for NVIDIA's Triton Inference Server."""
    from stpl_deploy.cli.reports.output import print_json, say
    from stpl_deploy.extras import needs

    with needs("export"):
        from stpl_export.triton.config import Serving, usual_idle_s
        from stpl_export.triton.lint import lint_repository
        from stpl_export.triton.repository import write_repository
    from stpl_runtime.options import seconds

    bundle = open_trusted(options.bundle, options.trust)
    serving = Serving(
        name=options.bundle.resolve().stem if options.name is None else options.name,
        max_batch=options.max_batch,
        sequences=options.sequences,
        idle_s=usual_idle_s(bundle.manifest.cadence_s)
        if options.idle is None
        else seconds("--idle", options.idle),
        backend=options.backend,
    )
    names = write_repository(bundle, options.out, serving)
    checked = True
    try:
        lint_repository(options.out)
    except MissingExtraError as error:
        checked = False
        say(f"not checked against Triton's own ModelConfig: {error}")
    if options.json:
        print_json({"out": str(options.out), "models": names, "checked": checked})
        return
    how = "read by Triton's own ModelConfig" if checked else "not checked"
    print(f"{options.out}: {', '.join(names)} ({how})")
    print(f"next: tritonserver --model-repository={options.out}")
