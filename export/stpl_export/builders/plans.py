"""Which plans a bundle gets, built or taken from the cache.

A plan is the builder's raw bytes, `<graph>-b<batch>-<capabilities>.engine`; everything else about
it stands in the manifest. Each is built for one fixed batch: one plan for a range of batches came
out 6 to 11 times larger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from onnx import ModelProto

from stpl_core.bundle import Bundle, EngineSpec, GraphName
from stpl_core.errors import EnvironmentFault, UsageError
from stpl_core.files import atomic_file, cache_directory, sha256_of
from stpl_export.builders.norm_ranks import full_rank_norms
from stpl_export.builders.targets import ALONE, parse_capabilities, rtx_groups
from stpl_export.builders.trt import (
    COMPATIBILITY,
    Flavour,
    Plan,
    Target,
    TrtBuilder,
    capabilities_word,
    choose_flavour,
    load_builder,
)
from stpl_export.builders.turing import without_fp32_products
from stpl_export.precision.exact_norms import plain_norms
from stpl_export.precision.half_step import check_promise
from stpl_export.precision.macs import Work, fixed_batch
from stpl_runtime.engines.gpu import local_gpu

Progress = Callable[[str], None]

QUICK_NODES = 1500
"""`forecast` is built without being asked for up to this many nodes: build time grows faster than
the graph (590 nodes 2 s, 5,200 nodes a minute, 9,900 nodes four minutes)."""

_RECORD = 2
"""Version of what the cache keeps about a plan; a change makes older entries unknown."""


@dataclass(frozen=True)
class PlanRequest:
    """What `export` was asked to build."""

    engine: str
    """`trt` or `trt-rtx`."""
    gpus: tuple[str, ...] = ()
    """Compute capabilities; empty for the default."""
    batches: tuple[int, ...] = (1,)
    graphs: tuple[GraphName, ...] = ()
    """Empty for `step`, and `forecast` where that is quick."""
    compatible: tuple[str, ...] = ()
    """Words of `COMPATIBILITY`, TensorRT only."""

    def check(self, precision: str) -> None:
        """Refuse what cannot be built in `precision`, before anything else is done.

        Raises:
            UsageError: a capability, a batch or a word of `compatible` that does not hold.
            MissingExtraError: neither flavour is installed.
        """
        parse_capabilities(self.gpus)
        if any(batch < 1 for batch in self.batches) or not self.batches:
            raise UsageError(
                f"--batch {','.join(map(str, self.batches))}",
                expected="numbers of at least 1, such as 1,4",
                fix="--batch 1",
            )
        unknown = [word for word in self.compatible if word not in COMPATIBILITY]
        if unknown:
            raise UsageError(
                f"unknown --compatible {unknown[0]}",
                expected=f"one of {', '.join(COMPATIBILITY)}",
                fix=f"--compatible {COMPATIBILITY[0]}",
            )
        flavour = choose_flavour(self.engine)
        if flavour == "trt-rtx" and self.compatible:
            raise UsageError(
                "--compatible is for TensorRT; TensorRT-RTX plans are portable as they are",
                expected="--gpu with the compute capabilities to build for",
                fix="leave --compatible out",
            )
        if flavour == "trt-rtx":
            rtx_groups(self.gpus, load_builder(flavour).known_capabilities(), precision)


def build_plans(
    bundle: Bundle, request: PlanRequest, *, progress: Progress = lambda _: None
) -> tuple[EngineSpec, ...]:
    """Build the plans of a bundle into its directory; the caller seals it again.

    Args:
        bundle: with its graphs and weights written.
        request: what to build.
        progress: called with what is built and how far the builder is.

    Raises:
        UsageError: a GPU that the flavour cannot build for.
        EnvironmentFault: the library is missing, broken, or refuses a graph.
        AccuracyError: a plan does not compute in the promised precision.
    """
    precision = bundle.manifest.precision
    request.check(precision)
    builder = load_builder(choose_flavour(request.engine))
    progress(f"{builder.name}, {precision}")
    specs = []
    for graph in request.graphs or default_graphs(bundle):
        model = onnx.load(bundle.graph(graph), load_external_data=False)
        model = full_rank_norms(plain_norms(model))
        for batch in request.batches:
            fixed = fixed_batch(model, batch)
            for target in _targets(builder, request, precision):
                # TensorRT itself has these kernels on Turing.
                turing = builder.flavour == "trt-rtx" and not ALONE.isdisjoint(target.capabilities)
                graph_of_target = without_fp32_products(fixed) if turing else fixed
                word = capabilities_word(target.capabilities)
                file = f"{graph}-b{batch}-{word}.engine"
                progress(f"building {file}")
                plan = _cached_build(builder, bundle, graph_of_target, target, progress)
                if precision != "fp32":
                    check_promise(plan.work, precision)
                bundle.file(file).write_bytes(plan.data)
                specs.append(
                    EngineSpec(
                        engine=builder.flavour,
                        graph=graph,
                        file=file,
                        precision=precision,
                        batch=batch,
                        details=plan.details,
                    )
                )
                progress(f"{file}: {len(plan.data) / 1e6:.1f} MB")
    return tuple(specs)


def default_graphs(bundle: Bundle) -> tuple[GraphName, ...]:
    """`step`, and `forecast` where its build is quick."""
    forecast = onnx.load(bundle.graph("forecast"), load_external_data=False)
    quick = len(forecast.graph.node) <= QUICK_NODES
    return ("step", "forecast") if quick else ("step",)


def _targets(builder: TrtBuilder, request: PlanRequest, precision: str) -> list[Target]:
    if builder.flavour == "trt-rtx":
        groups = rtx_groups(request.gpus, builder.known_capabilities(), precision)
        return [Target(group) for group in groups]
    here = local_gpu()
    if here is None:
        raise EnvironmentFault(
            "TensorRT builds for this machine's GPU, and there is none",
            expected="an NVIDIA GPU and its driver",
            fix="--engine trt-rtx builds without a GPU",
        )
    others = [gpu for gpu in parse_capabilities(request.gpus) if gpu != here.capability]
    if others:
        raise UsageError(
            f"--gpu {others[0]}: TensorRT builds for this machine's GPU, {here.capability}",
            expected=f"--gpu {here.capability}, or --compatible ampere+ for later GPUs",
            fix="export on a machine with that GPU, or --engine trt-rtx",
        )
    return [Target((here.capability,), request.compatible)]


def plan_key(
    flavour: Flavour, version: str, target: Target, graph: bytes, weights: Sequence[str]
) -> str:
    """Hash of everything that decides a plan's bytes.

    Args:
        flavour: and
        version: of the builder.
        target: what it builds for.
        graph: serialized ONNX with fixed shapes.
        weights: checksums of the files that it reads.
    """
    parts = [
        _RECORD,
        flavour,
        version,
        asdict(target),
        hashlib.sha256(graph).hexdigest(),
        list(weights),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _cached_build(
    builder: TrtBuilder, bundle: Bundle, model: ModelProto, target: Target, progress: Progress
) -> Plan:
    graph = model.SerializeToString(deterministic=True)
    weights = [sha256_of(path) for path in sorted(bundle.path.glob("weights*.safetensors"))]
    key = plan_key(builder.flavour, builder.version, target, graph, weights)
    directory = cache_directory("engines")  # outside every bundle
    found = _from_cache(directory, key)
    if found is not None:
        progress("taken from the cache")
        return found
    timings = None
    if builder.flavour == "trt":
        timings = directory / f"timings-{builder.version}-{target.capabilities[0]}.cache"
    plan = builder.build(
        graph, bundle.graph("step"), target, timing_cache=timings, progress=progress
    )
    plan.details["weights_bytes"] = _weights_bytes(model)
    plan.details["graph_sha256"] = hashlib.sha256(graph).hexdigest()
    _into_cache(directory, key, plan)
    return plan


def _weights_bytes(model: ModelProto) -> int:
    """Bytes of the graph's weights, most of which lie in the bundle's weights files."""
    total = 0
    for tensor in model.graph.initializer:
        lengths = [int(entry.value) for entry in tensor.external_data if entry.key == "length"]
        total += lengths[0] if lengths else len(tensor.raw_data)
    return total


def _from_cache(directory: Path, key: str) -> Plan | None:
    """A plan that an earlier build left; None where there is none or its bytes have changed."""
    try:
        record = json.loads((directory / f"{key}.json").read_text())
        data = (directory / f"{key}.engine").read_bytes()
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            return None
        return Plan(data, record["details"], Work(**record["work"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _into_cache(directory: Path, key: str, plan: Plan) -> None:
    record = {
        "sha256": hashlib.sha256(plan.data).hexdigest(),
        "details": plan.details,
        "work": asdict(plan.work),
    }
    with atomic_file(directory / f"{key}.engine") as file:
        file.write(plan.data)
    with atomic_file(directory / f"{key}.json") as file:
        file.write(json.dumps(record).encode())
