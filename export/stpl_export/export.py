"""`stpl-deploy export`: a run directory becomes a bundle, or nothing at all."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from stpl_deploy.bundle import (
    HALF_WEIGHTS,
    REFERENCE,
    WEIGHTS,
    AccuracyReport,
    Bundle,
    GraphName,
    GraphSpec,
    Manifest,
    ModelInfo,
    open_bundle,
    seal,
    writing_bundle,
)
from stpl_deploy.codec import Array
from stpl_deploy.errors import AccuracyError, FrameError
from stpl_deploy.frames import read_sequences
from stpl_export.beside import read_beside
from stpl_export.bisect import bisect_step
from stpl_export.builders.plans import PlanRequest, build_plans
from stpl_export.compose import forecast_onnx, rollout_onnx
from stpl_export.exact_norms import exact_norms
from stpl_export.half_step import HalfStep, make_half_step, verify_emulated
from stpl_export.onnx_step import OPSET, state_specs, step_onnx
from stpl_export.precision import half_weights, opset_of
from stpl_export.reference import MOST_SEQUENCES, make_reference, save_reference
from stpl_export.weights import gather_weights, point_into, save_half_weights, save_weights
from stpl_runtime.reference import Reference
from stpl_runtime.verify import first_breach, verify_bundle
from stpl_train.models import ForecasterModule
from stpl_train.recipe import ArraySection, DataSection, SyntheticSection
from stpl_train.run import VALIDATION, Run, open_run

Progress = Callable[[str], None]
_TOOLS = ("stpl-deploy", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def export_run(
    run_path: Path,
    out: Path,
    *,
    data: Path | None = None,
    sequences: int = MOST_SEQUENCES,
    precision: str = "fp32",
    keep_fp32: Collection[str] = (),
    plans: PlanRequest | None = None,
    progress: Progress = lambda _: None,
) -> Bundle:
    """Export a run to a bundle of ONNX graphs and check it in closed loop.

    A bundle in half precision is checked twice: as ONNX Runtime's CPU kernels run it, and with
    every rounding emulated. There are no bf16 kernels on the CPU: only the second one then.

    Args:
        run_path: a run directory.
        out: the bundle to make; must not be there yet.
        data: sequences `(N, T + K, C, H, W)` for the check, .npy or .npz in physical units; None
            takes the validation sequences that the run kept.
        sequences: keep at most so many in the bundle for the check.
        precision: `fp32`, `fp16` or `bf16`.
        keep_fp32: nodes of the step graph that stay in fp32 all the same.
        plans: TensorRT engines to build from the graphs; None for none.
        progress: told what runs now.

    Raises:
        RunError, RecipeError, FrameError: the run or the data cannot be used.
        AccuracyError: a graph leaves its tolerance, or less than 95% of the convolution work is in
            the promised precision; no bundle is left.
    """
    if plans is not None:
        plans.check(precision)  # before minutes of work
    run = open_run(run_path)
    model = run.model()
    frames, observed, label = _sequences(run, data)
    with writing_bundle(out) as partial:
        progress("PyTorch reference in float32 and float64")
        reference = make_reference(
            model, frames, run.recipe.data.context, label, sequences, observed
        )
        save_reference(partial / REFERENCE, reference)
        graphs, half = _write_graphs(partial, model, run, precision, keep_fp32, progress)
        bundle = seal(partial, _manifest(run, model, graphs, half))
        report = _check(bundle, half, progress)
        breach = first_breach(report)
        if breach is not None:
            raise AccuracyError(
                breach,
                expected="PyTorch's results within the tolerance",
                fix=_fix(half, reference, progress),
            )
        engines = () if plans is None else build_plans(bundle, plans, progress=progress)
        seal(partial, bundle.manifest.model_copy(update={"accuracy": report, "engines": engines}))
    return open_bundle(out, checksums=False)


def _sequences(run: Run, data: Path | None) -> tuple[Array, NDArray[np.bool_] | None, str]:
    """Sequences `(N, T + K, C, H, W)` in model units, what was observed, where they came from."""
    section = run.recipe.data
    length = section.context + section.horizon
    if data is None:
        kept = run.validation()
        return kept, read_beside(run.file(VALIDATION), kept)[0], _label(section)
    physical = read_sequences(data, run.frame_shape, section.codec)
    if physical.shape[1] < length:
        raise FrameError(
            f"{data} has sequences of {physical.shape[1]} frames",
            expected=f"at least {length} = {section.context} + {section.horizon}",
            fix="give longer sequences",
        )
    observed = read_beside(data, physical)[0]
    return (
        section.codec.model_from_physical(physical[:, :length]),
        None if observed is None else observed[:, :length],
        data.name,
    )


def _label(section: DataSection) -> str:
    """Where a run's own sequences came from."""
    if isinstance(section, SyntheticSection):
        return section.source
    where = section.path.name if isinstance(section, ArraySection) else section.source
    return f"{where}, validation part"


def _write_graphs(
    directory: Path,
    model: ForecasterModule,
    run: Run,
    precision: str,
    keep_fp32: Collection[str],
    progress: Progress,
) -> tuple[dict[GraphName, GraphSpec], HalfStep | None]:
    section, frame = run.recipe.data, model.frame_shape
    progress("step graph")
    step, state = step_onnx(model), state_specs(model)
    state_dict = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    weights = gather_weights(state_dict, [step])
    save_weights(directory / WEIGHTS, weights)
    files = [directory / WEIGHTS]
    half = None
    if precision in ("fp16", "bf16"):
        half = make_half_step(step, "fp16" if precision == "fp16" else "bf16", keep_fp32)
        step = half.typed
        files.append(directory / HALF_WEIGHTS.format(precision=precision))
        save_half_weights(files[1], half_weights(step, half.policy.precision))
    else:
        step = exact_norms(step)
    progress("forecast and rollout graphs")
    models: dict[GraphName, onnx.ModelProto] = {
        "step": step,
        "forecast": forecast_onnx(step, state, frame, section.horizon),
        "rollout": rollout_onnx(step, state, frame, section.context, section.horizon),
    }
    specs: dict[GraphName, GraphSpec] = {}
    for name, graph in models.items():
        file = f"{name}.onnx"
        pointed = graph
        for weights_file in files:
            pointed = point_into(pointed, weights_file)
        (directory / file).write_bytes(pointed.SerializeToString(deterministic=True))
        specs[name] = GraphSpec(
            file=file,
            inputs=tuple(value.name for value in graph.graph.input),
            outputs=tuple(value.name for value in graph.graph.output),
        )
    return specs, half


def _check(bundle: Bundle, half: HalfStep | None, progress: Progress) -> AccuracyReport:
    if half is None:
        return verify_bundle(bundle, progress=progress)
    report = verify_emulated(bundle, half.step, half.policy, progress=progress)
    if half.policy.precision == "bf16":
        progress("onnxruntime has no bf16 convolution on the CPU: checked by emulation alone")
        return report
    real = verify_bundle(bundle, progress=progress)
    return real.model_copy(update={"checks": (*real.checks, *report.checks)})


def _fix(half: HalfStep | None, reference: Reference, progress: Progress) -> str:
    """What to type after a breach; for half precision the operations that break are searched."""
    if half is None:
        return "another version of torch or onnxruntime; stpl-deploy doctor says what is here"
    progress("searching what breaks in half precision")
    found = bisect_step(half.step, half.policy, reference, progress=progress)
    if found.first is None or not found.passes:
        other = "bf16 or --precision " if half.policy.precision == "fp16" else ""
        return f"--precision {other}fp32: no few operations are to blame"
    return " ".join(f"--keep-fp32 {name}" for name in found.keep)


def _manifest(
    run: Run,
    model: ForecasterModule,
    graphs: dict[GraphName, GraphSpec],
    half: HalfStep | None,
) -> Manifest:
    section = run.recipe.data
    return Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=ModelInfo(
            name=run.recipe.model.name,
            parameters=sum(tensor.numel() for tensor in model.parameters()),
            keys=run.recipe.model.keys,
        ),
        context=section.context,
        horizon=section.horizon,
        frame=model.frame_shape,
        cadence_s=section.cadence_s,
        grids=run.grids(),
        codec=section.codec,
        state=state_specs(model),
        precision="fp32" if half is None else half.policy.precision,
        convolution_share={} if half is None else half.work.shares(),
        kept_fp32={} if half is None else half.policy.kept,
        opset=OPSET if half is None else opset_of(half.typed),
        graphs=graphs,
        recipe=run.recipe.model_dump(mode="json", exclude_none=True),
        tools=tool_versions(),
    )


def tool_versions() -> dict[str, str]:
    """Versions of what makes a bundle."""
    versions = {name: importlib.metadata.version(name) for name in _TOOLS}
    return {"python": platform.python_version(), **versions}
