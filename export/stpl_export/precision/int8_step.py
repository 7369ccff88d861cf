"""The int8 step of a bundle: calibrated, quantised, and what it is judged by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from stpl_core.bundle import AccuracyReport, Bundle, Int8Facts
from stpl_core.codec import Array
from stpl_core.safety.half_written import scratch_directory
from stpl_export.graphs.onnx_step import OPSET
from stpl_export.graphs.shapes import state_shapes
from stpl_export.precision.calibrate import (
    Calibration,
    Range,
    closed_loop_ranges,
    open_optimised,
    open_plain,
    run_loop,
)
from stpl_export.precision.half_step import check_promise
from stpl_export.precision.macs import Work, convolution_macs, graph_work, shapes_of
from stpl_export.precision.qdq import (
    SCHEMES,
    Form,
    chosen_convolutions,
    int8_constants,
    kept_convolutions,
    quantised_step,
    values_to_calibrate,
)
from stpl_export.precision.typed_step import Progress
from stpl_runtime.proof.int8_margin import psnr_db
from stpl_runtime.proof.reference import Int8Reference, Reference
from stpl_runtime.proof.tolerance import TASK_BUDGET_DB
from stpl_runtime.proof.verify import verify_bundle

SPREAD_DB = 6.0
"""How much closer to PyTorch than an engine the graph computed node by node may be."""
EARLY_STEPS = 3
EARLY_DB = 15.0
"""How much closer the first guesses of an engine are to that graph than PyTorch's, at least."""
_STATE_FACTOR = 4.0


@dataclass(frozen=True)
class Int8Step:
    """A step graph with convolutions in 8 bits, and where it came from."""

    step: ModelProto
    """fp32"""
    typed: ModelProto
    ranges: dict[str, Range]
    form: Form
    work: Work
    """As it really runs: on ONNX Runtime after its fusions."""
    kept: dict[str, str]
    calibration: str
    precision: str = "int8"

    def weights(self) -> dict[str, NDArray[Any]]:
        """The 8-bit weights with their scales, and int32 biases."""
        return int8_constants(self.typed)

    def facts(self) -> dict[str, Any]:
        """Its share of the work, and how it was quantised."""
        return {
            "convolution_share": self.work.shares(),
            "kept_fp32": self.kept,
            "opset": OPSET,
            "int8": Int8Facts(
                scheme=SCHEMES[self.form], calibration=self.calibration, budget_db=TASK_BUDGET_DB
            ),
        }

    def judge(self, reference: Reference) -> Reference:
        """Add what the quantised graph gives when it is computed node by node."""
        return judged_by(self, reference)

    def check(self, bundle: Bundle, progress: Progress) -> AccuracyReport:
        """On ONNX Runtime."""
        return verify_bundle(bundle, progress=progress)

    def fix(self, reference: Reference, progress: Progress) -> str:
        """A precision that is closer."""
        return "--precision fp32" if self.form == "cpu" else "--precision fp16"


def make_int8_step(
    step: ModelProto,
    calibration: Calibration,
    form: Form,
    *,
    keep: Collection[str] = (),
) -> Int8Step:
    """Calibrate and quantise the step graph, and check that it is what was asked for.

    Args:
        step: the fp32 step graph, weights inside.
        calibration: sequences for the ranges.
        form: who reads the graph.
        keep: convolutions that must stay in fp32.

    Raises:
        UsageError: `keep` names no convolution.
        AccuracyError: under 95% of the convolutions' work is in 8 bits.
    """
    kept = kept_convolutions(step, keep)
    chosen = chosen_convolutions(step, kept)
    ranges = closed_loop_ranges(step, values_to_calibrate(chosen, form), calibration)
    typed = quantised_step(step, chosen, ranges, form)
    state_shapes(typed)
    work = fused_work(typed) if form == "cpu" else graph_work(typed)
    check_promise(work, "int8")
    return Int8Step(step, typed, ranges, form, work, kept, calibration.about())


def fused_work(typed: ModelProto) -> Work:
    """The work of a quantised graph by what ONNX Runtime really runs on this CPU.

    A convolution counts as int8 only where the optimised graph has a QLinearConv that reads its
    weights; one that was left between its casts counts as fp32.
    """
    with scratch_directory("fused") as directory:
        path = directory / "fused.onnx"
        open_optimised(typed, dump=path)
        fused = onnx.load(path)
    found = Counter(node.input[3] for node in fused.graph.node if node.op_type == "QLinearConv")
    shapes, _ = shapes_of(typed, batch=1)
    maker = {node.output[0]: node for node in typed.graph.node}
    macs: dict[str, list[int]] = defaultdict(list)
    convolutions: Counter[str] = Counter()
    for node in typed.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        source = maker.get(node.input[1])
        weight = node.input[1] if source is None else source.input[0]
        macs[weight].append(convolution_macs(node, shapes))
    for weight, each in macs.items():
        convolutions["int8"] += sum(each[: found[weight]])
        convolutions["fp32"] += sum(each[found[weight] :])
    return Work({kind: n for kind, n in convolutions.items() if n}, graph_work(typed).products)


def judged_by(int8: Int8Step, reference: Reference) -> Reference:
    """Run the quantised graph node by node over the reference's sequences.

    Its PSNR against PyTorch gives the floor of each lead time, its first guesses are what an
    engine's are compared with, its state error what a state may be off by.
    """
    context, horizon = reference.context.shape[1], reference.truth.shape[1]
    early = min(EARLY_STEPS, context)
    frames = np.concatenate([reference.context, reference.truth], axis=1)  # (N, T + K, C, H, W)
    guesses, state = [], []
    for t, (guess, after, _) in enumerate(
        run_loop(open_plain(int8.typed), int8.typed, frames, context)
    ):
        guesses.append(guess)
        if t == context - 1:
            state = [values[:1] for values in after]
    future = reference.kept(np.stack(guesses[context - 1 :], axis=1))  # (N, K, C, H, W)
    first = reference.kept(np.stack(guesses[:early], axis=1))  # (N, n, C, H, W)
    worst = [
        min(
            psnr_db(ours, exact)
            for ours, exact in zip(future[:, k], reference.float64[:, k], strict=True)
        )
        for k in range(horizon)
    ]
    states = {
        name: replace(
            known,
            tolerance=max(
                known.tolerance,
                _STATE_FACTOR * float(np.abs(known.kept(values) - known.values).max()),
            ),
        )
        for (name, known), values in zip(reference.states.items(), state, strict=True)
    }
    exact = reference.kept(_first_guesses(int8.step, frames, early))
    floors = [
        _early_floor(psnr_db(first[:, t], exact[:, t]), psnr_db(first[:, t], fused[:, t]))
        for fused in [reference.kept(_first_guesses(int8.typed, frames, early))]
        for t in range(early)
    ]
    return replace(
        reference,
        states=states,
        int8=Int8Reference(
            min_psnr_db=np.asarray(worst) - SPREAD_DB,
            early=first,
            early_psnr_db=np.asarray(floors),
        ),
    )


def _first_guesses(step: ModelProto, frames: Array, count: int) -> Array:
    """`(N, n, C, H, W)`: guesses after the first frames, as ONNX Runtime runs the graph."""
    session = open_optimised(step)
    loop = run_loop(session, step, frames[:, : count + 1], count)
    return np.stack([guess for guess, _, _ in loop], axis=1)


def _early_floor(exact_db: float, fused_db: float) -> float:
    """The least PSNR of an early guess against the graph computed node by node.

    Args:
        exact_db: PSNR between that graph and fp32: what quantisation itself moves.
        fused_db: between that graph and ONNX Runtime's fused kernels on this machine, which
            differ by single roundings.
    """
    half_way = (exact_db + fused_db) / 2.0
    return min(exact_db + EARLY_DB, half_way, fused_db - SPREAD_DB)
