"""What a plan is, read from the manifest of its bundle: no library, no driver, no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stpl_core.bundle import MANIFEST, Bundle, EngineSpec
from stpl_core.errors import BundleError
from stpl_core.options import SignatureOptions
from stpl_core.safety.open_signed import open_signed
from stpl_runtime.engines.preflight import FLAVOURS, Here, mismatch, read_plan


def describe_plan(
    path: Path, here: Here, signature: SignatureOptions | None = None
) -> dict[str, Any]:
    """Describe the plan at `path`, which lies in its bundle; checks its bytes first.

    Args:
        path: an `.engine` file.
        here: the machine that the answer to `runs here` is about.
        signature: whose bundles are opened; None: anybody's.

    Raises:
        BundleError: no bundle around it, or not one of the bundle's plans.
        ChecksumError: the bytes are not those of the builder.
    """
    if not (path.parent / MANIFEST).is_file():
        raise BundleError(
            f"{path} has no {MANIFEST} beside it: a plan alone does not say what it is",
            expected="the plan inside its bundle",
            fix="stpl-deploy inspect BUNDLE",
        )
    bundle = open_signed(path.parent, signature or SignatureOptions(), checksums=False)
    specs = {spec.file: spec for spec in bundle.manifest.engines}
    if path.name not in specs:
        raise BundleError(
            f"{path.name} is not a plan of {path.parent}",
            expected=f"one of {', '.join(specs) or 'no plans'}",
            fix=f"stpl-deploy inspect {path.parent}",
        )
    return _describe(bundle, specs[path.name], here)


def _describe(bundle: Bundle, spec: EngineSpec, here: Here) -> dict[str, Any]:
    size = len(read_plan(bundle, spec))
    fault = mismatch(spec, here)
    details = spec.details
    return {
        "file": spec.file,
        "model": bundle.manifest.model.name,
        "graph": spec.graph,
        "batch": spec.batch,
        "precision": spec.precision,
        "bytes": size,
        "weights_bytes": details["weights_bytes"],
        "builder": f"{FLAVOURS[spec.engine]} {details['version']}",
        **{
            key: details[key]
            for key in (
                "capabilities", "compatible", "cuda", "systems", "machine", "convolution_share",
                "layers", "layer_kinds", "inputs", "outputs", "build_seconds", "warnings", "ran",
            )
        },
        "runs_here": fault is None,
        "why_not": "" if fault is None else str(fault),
    }  # fmt: skip


def plan_lines(report: dict[str, Any]) -> dict[str, str]:
    """The report for a person: label -> line."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["layer_kinds"].items())
    shares = ", ".join(f"{share:.1%} {kind}" for kind, share in report["convolution_share"].items())
    sizes = f"{report['bytes'] / 1e6:.2f} MB, of weights {report['weights_bytes'] / 1e6:.2f} MB"
    cuda = f", CUDA {report['cuda']}" if report["cuda"] else ""
    return {
        "plan": f"{report['graph']} of {report['model']}, batch {report['batch']}",
        "precision": f"{report['precision']}; convolution work: {shares}",
        "size": sizes,
        "builder": f"{report['builder']}{cuda}, {report['build_seconds']:g} s",
        "for": f"compute capability {', '.join(report['capabilities'])} on "
        f"{' or '.join(report['systems'])}, {report['machine']}",
        "layers": f"{report['layers']} in the parsed network: {kinds}",
        "inputs": _tensors(report["inputs"]),
        "outputs": _tensors(report["outputs"]),
        "runs here": "yes, by the manifest" if report["runs_here"] else f"no: {report['why_not']}",
        "ran": "yes" if report["ran"] else "built, never run by stpl-deploy",
    }


def _tensors(tensors: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {'x'.join(map(str, tensor['shape']))} {tensor['type']}"
        for name, tensor in tensors.items()
    )
