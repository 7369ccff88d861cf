"""Will this plan run here? Answered from the manifest, before a library or a driver sees the file.

TensorRT offers no check of its own that works without a GPU, and its messages do not say which
side is which. Here every mismatch has its own line: what the plan is, what this machine is, what
to type. A plan's bytes are read once; what was checked is what is loaded.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from stpl_core.bundle import Bundle, EngineSpec, GraphName
from stpl_core.errors import BundleError, ChecksumError, EnvironmentFault, MissingExtraError
from stpl_runtime.engines.gpu import Gpu, local_gpu

FLAVOURS = {"trt": "TensorRT", "trt-rtx": "TensorRT-RTX"}
_DISTRIBUTIONS = {
    "trt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "trt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Here:
    """What this machine is, as far as a plan cares."""

    system: str
    """`Linux` or `Windows`."""
    machine: str
    """`x86_64` or `aarch64`."""
    gpu: Gpu | None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Flavour -> installed version."""


def look_here() -> Here:
    """Examine this machine; loads neither TensorRT nor CUDA."""
    machine = platform.machine()
    versions = {flavour: _version(names) for flavour, names in _DISTRIBUTIONS.items()}
    return Here(
        system=platform.system(),
        machine=_MACHINES.get(machine.lower(), machine),
        gpu=local_gpu(),
        versions={flavour: version for flavour, version in versions.items() if version},
    )


def _version(distributions: Sequence[str]) -> str | None:
    for name in distributions:
        found = next(iter(metadata.distributions(name=name)), None)
        if found is not None:
            return found.version
    return None


def find_plan(bundle: Bundle, flavour: str, graph: GraphName, batch: int, here: Here) -> EngineSpec:
    """The plan of a bundle that fits this machine.

    Args:
        bundle: an opened bundle.
        flavour: `trt` or `trt-rtx`.
        graph: which graph.
        batch: how many sequences at once.
        here: from `look_here`.

    Raises:
        BundleError: the bundle has no such plan, or none for this batch.
        MissingExtraError: the flavour is not installed.
        EnvironmentFault: every such plan is for another machine; says how the nearest differs.
    """
    plans = [spec for spec in bundle.manifest.engines if spec.engine == flavour]
    if not plans:
        others = sorted({spec.engine for spec in bundle.manifest.engines})
        raise BundleError(
            f"{bundle.path} has no {FLAVOURS[flavour]} plan"
            + (f", only {', '.join(others)}" if others else ""),
            expected=f"plans of --engine {flavour}",
            fix=f"stpl-deploy export RUN --out BUNDLE --engine {flavour}",
        )
    of_graph = [spec for spec in plans if spec.graph == graph]
    if not of_graph:
        built = sorted({spec.graph for spec in plans})
        raise BundleError(
            f"{bundle.path} has no plan of the {graph} graph, only of {', '.join(built)}",
            expected=f"a plan of {graph}",
            fix=f"stpl-deploy export RUN --out BUNDLE --engine {flavour} --graphs {graph}",
        )
    of_batch = [spec for spec in of_graph if spec.batch == batch]
    if not of_batch:
        sizes = sorted({spec.batch for spec in of_graph})
        raise BundleError(
            f"no {graph} plan for batch {batch}; plans are built for one batch each",
            expected=f"batch {' or '.join(map(str, sizes))}",
            fix=f"stpl-deploy export RUN --out BUNDLE --engine {flavour} --batch {batch}",
        )
    faults: list[EnvironmentFault] = []
    for spec in of_batch:
        fault = mismatch(spec, here)
        if fault is None:
            return spec
        faults.append(fault)
    raise faults[0]


def mismatch(spec: EngineSpec, here: Here) -> EnvironmentFault | None:
    """Why a plan cannot run on this machine; None where nothing speaks against it."""
    name, details = FLAVOURS[spec.engine], spec.details
    again = f"export the run again here with --engine {spec.engine}"
    if here.system not in details["systems"]:
        return EnvironmentFault(
            f"{spec.file} was built for {' or '.join(details['systems'])}; this is {here.system}",
            expected="the same operating system",
            fix=again,
        )
    if here.machine != _MACHINES.get(details["machine"].lower(), details["machine"]):
        return EnvironmentFault(
            f"{spec.file} was built on {details['machine']}; this machine is {here.machine}",
            expected="the same processor architecture",
            fix=again,
        )
    if spec.engine not in here.versions:
        return MissingExtraError(name, spec.engine)
    installed, built = here.versions[spec.engine], details["version"]
    if not _versions_agree(spec.engine, built, installed, details["compatible"]):
        return EnvironmentFault(
            f"{spec.file} was built with {name} {built}; installed is {installed}",
            expected=_wanted_version(spec.engine, built, details["compatible"]),
            fix=f"pip install '{_DISTRIBUTIONS[spec.engine][0]}=={built}', or {again}",
        )
    return _gpu_mismatch(spec, here.gpu)


def _gpu_mismatch(spec: EngineSpec, gpu: Gpu | None) -> EnvironmentFault | None:
    details: dict[str, Any] = spec.details
    if gpu is None:
        return EnvironmentFault(
            f"{spec.file} needs an NVIDIA GPU; this machine shows none",
            expected="a GPU and its driver (nvidia-smi lists it)",
            fix="install the driver, give the container the GPU (--gpus all), or --engine onnx",
        )
    if details["cuda"] is not None and gpu.cuda[0] < int(details["cuda"]):
        return EnvironmentFault(
            f"{spec.file} uses CUDA {details['cuda']}; this driver supports up to "
            f"{gpu.cuda[0]}.{gpu.cuda[1]}",
            expected=f"a driver for CUDA {details['cuda']} or later",
            fix="update the NVIDIA driver",
        )
    capabilities: list[str] = details["capabilities"]
    later = "ampere+" in details["compatible"] and _number(gpu.capability) >= (8, 0)
    if gpu.capability not in capabilities and not later:
        return EnvironmentFault(
            f"{spec.file} was built for compute capability {', '.join(capabilities)}; "
            f"this GPU has {gpu.capability}",
            expected="a plan for this GPU",
            fix=f"stpl-deploy export RUN --out BUNDLE --engine {spec.engine}"
            + (f" --gpu {gpu.capability}" if spec.engine == "trt-rtx" else " on this machine"),
        )
    return None


def _versions_agree(flavour: str, built: str, installed: str, compatible: list[str]) -> bool:
    one, other = _number(built), _number(installed)
    if "version" in compatible:
        return one[0] == other[0] and other >= one
    same = 2 if flavour == "trt-rtx" else 3
    return one[:same] == other[:same]


def _wanted_version(flavour: str, built: str, compatible: list[str]) -> str:
    parts = built.split(".")
    if "version" in compatible:
        return f"{parts[0]}.x, at least {built}"
    return ".".join(parts[: 2 if flavour == "trt-rtx" else 3])


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def read_plan(bundle: Bundle, spec: EngineSpec) -> bytes:
    """A plan's bytes, checked against the manifest: checksum, inputs, frame.

    Raises:
        ChecksumError: truncated, or changed.
        BundleError: the plan is not of this bundle's frame and state.
    """
    again = "copy the bundle again, or export the run again"
    promised = bundle.manifest.files.get(spec.file)
    path = bundle.file(spec.file)
    if promised is None or not path.is_file():
        raise ChecksumError(f"{path} is missing", expected="the plan", fix=again)
    data = path.read_bytes()
    if len(data) != promised.bytes:
        raise ChecksumError(
            f"{path} has {len(data):,} bytes", expected=f"{promised.bytes:,} bytes", fix=again
        )
    found = hashlib.sha256(data).hexdigest()
    if found != promised.sha256:
        raise ChecksumError(
            f"{path} has SHA-256 {found[:12]}…", expected=f"{promised.sha256[:12]}…", fix=again
        )
    _check_inputs(bundle, spec)
    return data


def _check_inputs(bundle: Bundle, spec: EngineSpec) -> None:
    manifest = bundle.manifest
    expected: dict[str, list[int]] = {}
    if spec.graph == "rollout":
        name = manifest.graphs["rollout"].inputs[0]
        expected[name] = [spec.batch, manifest.context, *manifest.frame]
    else:
        expected[manifest.graphs[spec.graph].inputs[0]] = [spec.batch, *manifest.frame]
        expected |= {
            part.input: [spec.batch, *part.shape]
            for part in manifest.state
            if part.input is not None
        }
    found = {name: tensor["shape"] for name, tensor in spec.details["inputs"].items()}
    if found != expected:
        name = next(n for n in sorted(expected.keys() | found) if expected.get(n) != found.get(n))
        raise BundleError(
            f"{spec.file} reads {name} of shape {found.get(name, 'none')}",
            expected=f"{expected.get(name, 'no such input')}, as the manifest says",
            fix="export the run again",
        )


@dataclass(frozen=True)
class Ability:
    """What one flavour can do on this machine."""

    name: str
    version: str | None
    builds: bool
    runs: bool
    note: str
    """Why not, in one line."""


def abilities(here: Here) -> tuple[Ability, ...]:
    """What each TensorRT flavour can do here, as `doctor` shows it; loads neither."""
    found = []
    for flavour, name in FLAVOURS.items():
        version = here.versions.get(flavour)
        if version is None:
            note = "not installed, and there is no NVIDIA GPU"
            if here.gpu is not None or flavour == "trt-rtx":  # that one builds without a GPU
                note = f"not installed; try: pip install 'stpl-deploy[{flavour}]'"
            found.append(Ability(name, None, False, False, note))
        elif here.gpu is None:
            note = "no NVIDIA GPU or driver"
            found.append(Ability(name, version, flavour == "trt-rtx", False, note))
        elif flavour == "trt-rtx" and here.gpu.capability in ("9.0", "10.0", "10.3"):
            note = f"no engines for compute capability {here.gpu.capability}"
            found.append(Ability(name, version, True, False, note))
        else:
            found.append(Ability(name, version, True, True, ""))
    return tuple(found)
