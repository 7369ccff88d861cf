"""`stpl-deploy export`: a run directory becomes a bundle, or nothing at all."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stpl_core.bundle import (
    LOW_WEIGHTS,
    REFERENCE,
    WEIGHTS,
    AccuracyReport,
    Bundle,
    GraphName,
    GraphSpec,
    Int8Facts,
    Manifest,
    ModelInfo,
    Speed,
    open_bundle,
    seal,
    writing_bundle,
)
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError
from stpl_core.safety.half_written import scratch_directory
from stpl_export.builders.plans import PlanRequest, build_plans
from stpl_export.checking import judging_sequences
from stpl_export.export_memory import plan_memory
from stpl_export.graphs.compose import forecast_onnx, rollout_onnx
from stpl_export.graphs.onnx_step import output_specs, state_specs, step_onnx
from stpl_export.graphs.weights import gather_weights, point_into, save_low_weights, save_weights
from stpl_export.precision.calibrate import Calibration, split_sequences
from stpl_export.precision.half_step import make_half_step
from stpl_export.precision.int8_speed import check_speed, measure_speed, speed_line
from stpl_export.precision.int8_step import make_int8_step
from stpl_export.precision.qdq import Form
from stpl_export.precision.typed_step import PlainStep, TypedStep
from stpl_export.reference import (
    MOST_SEQUENCES,
    kept_sequences,
    make_reference,
    save_reference,
)
from stpl_export.regrid import regrid
from stpl_runtime.proof.reference import Reference
from stpl_runtime.proof.verify import first_breach
from stpl_train.models import ForecasterModule
from stpl_train.run import Run, open_run

Progress = Callable[[str], None]
_TOOLS = ("stpl-deploy", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def export_run(
    run_path: Path,
    out: Path,
    *,
    data: Path | None = None,
    sequences: int = MOST_SEQUENCES,
    grid: tuple[int, int] | None = None,
    precision: str = "fp32",
    keep_fp32: Collection[str] = (),
    keep_slower: bool = False,
    plans: PlanRequest | None = None,
    progress: Progress = lambda _: None,
) -> Bundle:
    """Export a run to a bundle of ONNX graphs and check it in closed loop.

    fp16 is checked as ONNX Runtime's CPU kernels run it, and with every rounding emulated; bf16,
    which has no CPU kernels, by emulation only. int8 is calibrated on sequences that do not judge
    it (where there are two or more), and timed beside fp32 unless it is for plans.

    Args:
        run_path: a run directory.
        out: the bundle to make; must not exist yet.
        data: sequences `(N, T + K, C, H, W)` for the check, .npy or .npz in physical units; None
            takes the validation sequences that the run kept.
        sequences: keep at most this many in the bundle for the check.
        grid: (H, W) of the frames, if another than the weights were trained on; the run's
            sequences are mirrored at their edges for the check.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        keep_fp32: nodes of the step graph that stay in fp32.
        keep_slower: keep an int8 bundle that is not faster than fp32 here.
        plans: TensorRT plans to build from the graphs; None for none.
        progress: called with a line for each step.

    Raises:
        RunError, RecipeError, FrameError: the run or the data cannot be used.
        AccuracyError: a graph leaves its tolerance, or less than 95% of the convolution work is in
            the promised precision; no bundle is left.
        SpeedError: int8 is not faster than fp32 on this machine; no bundle is left.
    """
    if plans is not None:
        plans.check(precision)  # before minutes of work
    run, model = open_model(run_path, grid)
    _note_padding(grid, model, progress)
    check = _sequences_for_check(run, model, data, sequences, precision, progress)
    _plan(check, model, progress)
    with writing_bundle(out) as partial:
        reference = check.reference(model, progress)
        writer = _BundleWriter(run, model, progress)
        form: Form = "cpu" if plans is None else "gpu"
        typed = _typed_step(writer.step, precision, keep_fp32, check.calibration, form, progress)
        save_reference(partial / REFERENCE, typed.judge(reference))
        bundle = writer.write(partial, typed)
        report = _checked(bundle, typed, reference, progress)
        facts: dict[str, Any] = {"accuracy": report}
        if plans is not None:
            facts["engines"] = build_plans(bundle, plans, progress=progress)
        elif bundle.manifest.int8 is not None:
            facts["int8"] = _timed_int8(bundle, writer, report, keep_slower)
        seal(partial, bundle.manifest.model_copy(update=facts))
    return open_bundle(out, checksums=False)


def _note_padding(
    grid: tuple[int, int] | None, model: ForecasterModule, progress: Progress
) -> None:
    """Mention that a model's own frames are larger than those that it is for."""
    rows, columns = model.frame_shape[1:]
    if grid is not None and grid != (rows, columns):
        progress(
            f"frames of {grid[0]}x{grid[1]} are padded to {rows}x{columns}, which the model takes; "
            f"predict, stream and serve take {grid[0]}x{grid[1]}"
        )


def open_model(path: Path, grid: tuple[int, int] | None) -> tuple[Run, ForecasterModule]:
    """A run and its model, for frames `(H, W)` where another grid is asked for."""
    run = open_run(path)
    return (run, run.model()) if grid is None else regrid(run, grid)


@dataclass(frozen=True)
class _Sequences:
    """Sequences for the check, in model units, and which of them judge and calibrate."""

    frames: Array
    """`(N, T + K, C, H, W)`."""
    observed: NDArray[np.bool_] | None
    """`(N, T + K, H, W)`; None: everything was."""
    context: int
    label: str
    most: int
    """Keep at most this many in the bundle."""
    judging: slice
    calibrating: slice

    @property
    def calibration(self) -> Calibration:
        """What int8 is calibrated on."""
        shared = self.judging == self.calibrating
        return Calibration(self.frames[self.calibrating], self.context, self.label, shared)

    def reference(self, model: ForecasterModule, progress: Progress) -> Reference:
        """PyTorch's own results for the sequences that judge."""
        progress("PyTorch reference in float32 and float64")
        observed = None if self.observed is None else self.observed[self.judging]
        frames = self.frames[self.judging]
        return make_reference(
            model, frames, self.context, self.label, self.most, observed, progress
        )


def _sequences_for_check(
    run: Run,
    model: ForecasterModule,
    data: Path | None,
    most: int,
    precision: str,
    progress: Progress,
) -> _Sequences:
    frames, observed, label = judging_sequences(run, data, model.frame_shape)
    progress(f"judged by {label}")
    judging, calibrating = slice(None), slice(None)
    if precision == "int8":
        judging, calibrating = split_sequences(len(frames), most)
    context = run.recipe.data.context
    return _Sequences(frames, observed, context, label, most, judging, calibrating)


def _plan(check: _Sequences, model: ForecasterModule, progress: Progress) -> None:
    """The memory that it will take, in one line; refuses what cannot fit."""
    frames = check.frames[check.judging]
    count = kept_sequences(frames, check.context, check.most)
    if line := plan_memory(model, frames.shape[1] - check.context, count):
        progress(line)


def _typed_step(
    step: onnx.ModelProto,
    precision: str,
    keep_fp32: Collection[str],
    calibration: Calibration,
    form: Form,
    progress: Progress,
) -> TypedStep:
    if precision in ("fp16", "bf16"):
        return make_half_step(step, "fp16" if precision == "fp16" else "bf16", keep_fp32)
    if precision == "int8":
        progress(f"calibrating int8 on {calibration.about()}")
        return make_int8_step(step, calibration, form, keep=keep_fp32)
    return PlainStep(step)


class _BundleWriter:
    """Writes graphs, weights and manifest of one model, in the types of any precision."""

    def __init__(self, run: Run, model: ForecasterModule, progress: Progress) -> None:
        """Make the step graph, which every other graph is composed from."""
        progress("step graph")
        self._run, self._model, self._progress = run, model, progress
        self.step = step_onnx(model)
        state_dict = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        self._weights = gather_weights(state_dict, [self.step])

    def write(self, directory: Path, typed: TypedStep) -> Bundle:
        """Write a bundle without its check's results; the reference must lie there already."""
        self._progress(f"{typed.precision} graphs: step, forecast and rollout")
        graphs = self._write_graphs(directory, typed)
        return seal(directory, _manifest(self._run, self._model, graphs, typed))

    def timed_beside_fp32(self, bundle: Bundle) -> Speed:
        """Time an int8 bundle beside an fp32 one of the same run, which is thrown away."""
        self._progress("int8 beside fp32, in turn")
        with scratch_directory("fp32") as directory:
            shutil.copyfile(bundle.file(REFERENCE), directory / REFERENCE)
            speed = measure_speed(bundle, self.write(directory, PlainStep(self.step)))
        self._progress(speed_line(speed))
        return speed

    def _write_graphs(self, directory: Path, typed: TypedStep) -> dict[GraphName, GraphSpec]:
        save_weights(directory / WEIGHTS, self._weights)
        files = [directory / WEIGHTS]
        if low := typed.weights():
            files.append(directory / LOW_WEIGHTS.format(precision=typed.precision))
            save_low_weights(files[1], low)
        specs: dict[GraphName, GraphSpec] = {}
        for name, graph in self._graphs(typed).items():
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
        return specs

    def _graphs(self, typed: TypedStep) -> dict[GraphName, onnx.ModelProto]:
        section = self._run.recipe.data
        step, state, frame = typed.typed, state_specs(self._model), self._model.frame_shape
        return {
            "step": step,
            "forecast": forecast_onnx(step, state, frame, section.horizon),
            "rollout": rollout_onnx(step, state, frame, section.context, section.horizon),
        }


def _checked(
    bundle: Bundle, typed: TypedStep, reference: Reference, progress: Progress
) -> AccuracyReport:
    """Run the closed loop; AccuracyError where a graph leaves its tolerance."""
    report = typed.check(bundle, progress)
    breach = first_breach(report)
    if breach is not None:
        raise AccuracyError(
            breach,
            expected="PyTorch's results within the tolerance",
            fix=typed.fix(reference, progress),
        )
    return report


def _timed_int8(
    bundle: Bundle, writer: _BundleWriter, report: AccuracyReport, keep_slower: bool
) -> Int8Facts:
    """The manifest's facts on int8 with its measured speed; SpeedError where it gains none."""
    assert bundle.manifest.int8 is not None
    speed = writer.timed_beside_fp32(bundle)
    if not keep_slower:
        check_speed(speed, report)
    return bundle.manifest.int8.model_copy(update={"speed": speed})


def _manifest(
    run: Run,
    model: ForecasterModule,
    graphs: dict[GraphName, GraphSpec],
    typed: TypedStep,
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
        outputs=output_specs(model),
        precision=typed.precision,
        graphs=graphs,
        recipe=run.recipe.model_dump(mode="json", exclude_none=True),
        tools=tool_versions(),
        **typed.facts(),
    )


def tool_versions() -> dict[str, str]:
    """Versions of what makes a bundle."""
    versions = {name: importlib.metadata.version(name) for name in _TOOLS}
    return {"python": platform.python_version(), **versions}
