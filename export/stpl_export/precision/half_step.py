"""The half-precision step of a bundle: the promise about its work, and its check on a CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from stpl_core.bundle import REFERENCE, AccuracyReport, Bundle, seal
from stpl_core.errors import AccuracyError
from stpl_core.safety.half_written import scratch_directory
from stpl_export.precision.bisect import bisect_step
from stpl_export.precision.emulate import emulated
from stpl_export.precision.macs import Work, graph_work
from stpl_export.precision.policy import (
    Half,
    Policy,
    half_weights,
    make_policy,
    opset_of,
    typed_step,
)
from stpl_runtime.proof.reference import Reference
from stpl_runtime.proof.verify import verify_bundle

Progress = Callable[[str], None]

PROMISED_SHARE = 0.95
"""The least share of the convolutions' work that must run in the promised precision."""


@dataclass(frozen=True)
class HalfStep:
    """A step graph in half precision, and where it came from."""

    step: ModelProto
    """fp32"""
    typed: ModelProto
    policy: Policy
    work: Work

    @property
    def precision(self) -> str:
        """`fp16` or `bf16`."""
        return self.policy.precision

    def weights(self) -> dict[str, NDArray[Any]]:
        """The half weights."""
        return half_weights(self.typed, self.policy.precision)

    def facts(self) -> dict[str, Any]:
        """Its share of the work, and what stays in fp32."""
        return {
            "convolution_share": self.work.shares(),
            "kept_fp32": self.policy.kept,
            "opset": opset_of(self.typed),
        }

    def judge(self, reference: Reference) -> Reference:
        """Half precision has one tolerance for every model."""
        return reference

    def check(self, bundle: Bundle, progress: Progress) -> AccuracyReport:
        """As ONNX Runtime's CPU kernels run it, where it has any, and with rounding emulated."""
        report = verify_emulated(bundle, self.step, self.policy, progress=progress)
        if self.policy.precision == "bf16":
            progress("onnxruntime has no bf16 convolution on the CPU: checked by emulation alone")
            return report
        real = verify_bundle(bundle, progress=progress)
        return real.model_copy(update={"checks": (*real.checks, *report.checks)})

    def fix(self, reference: Reference, progress: Progress) -> str:
        """The operations that break are searched."""
        progress("searching what breaks in half precision")
        found = bisect_step(self.step, self.policy, reference, progress=progress)
        if found.first is None or not found.passes:
            other = "bf16 or --precision " if self.policy.precision == "fp16" else ""
            return f"--precision {other}fp32: no few operations are to blame"
        return " ".join(f"--keep-fp32 {name}" for name in found.keep)


def make_half_step(step: ModelProto, precision: Half, keep: Collection[str] = ()) -> HalfStep:
    """Type the step graph and check that it is what was asked for.

    Args:
        step: the fp32 step graph, weights inside.
        precision: `fp16` or `bf16`.
        keep: nodes that must stay in fp32.

    Raises:
        AccuracyError: under 95% of the convolutions' work is in that precision.
    """
    policy = make_policy(step, precision, keep)
    typed = typed_step(step, policy)
    work = graph_work(typed)
    check_promise(work, precision)
    return HalfStep(step, typed, policy, work)


def check_promise(work: Work, precision: str) -> None:
    """Raise AccuracyError where less than promised runs in `precision`."""
    share = work.share(precision)
    if share < PROMISED_SHARE:
        raise AccuracyError(
            f"only {share:.1%} of the convolution work is {precision}",
            expected=f"at least {PROMISED_SHARE:.0%}, as --precision {precision} promises",
            fix="fewer --keep-fp32, or --precision fp32",
        )


def verify_emulated(
    bundle: Bundle,
    step: ModelProto,
    policy: Policy,
    *,
    progress: Progress = lambda _: None,
) -> AccuracyReport:
    """Run the closed-loop check of a half-precision bundle with rounding emulated on this CPU.

    ONNX Runtime's CPU kernels compute fp16 graphs in fp32 and leave out some roundings, and it has
    no bf16 convolution at all; here every operand and result of the half operations is rounded.
    The loop runs by the step graph: the other graphs hold the same operations.

    Args:
        bundle: in half precision; gives the reference sequences and the tolerance.
        step: its fp32 step graph, weights inside.
        policy: which nodes are half.
        progress: called with a line for each check.
    """
    manifest = bundle.manifest
    rounded = emulated(step, policy.half, policy.precision)
    only_step = {"step": manifest.graphs["step"]}
    with scratch_directory("emulated") as directory:
        shutil.copyfile(bundle.file(REFERENCE), directory / REFERENCE)
        (directory / only_step["step"].file).write_bytes(rounded.SerializeToString())
        twin = seal(directory, manifest.model_copy(update={"engines": (), "graphs": only_step}))
        report = verify_bundle(twin, progress=lambda line: progress(f"{line}, emulated"))
    label = f"CPU, {policy.precision} emulated"
    checks = tuple(check.model_copy(update={"provider": label}) for check in report.checks)
    return report.model_copy(update={"checks": checks})
