"""Which operation breaks in half precision: a binary search over the graph, on a CPU.

Rounding is emulated (see `emulate`) for the first n candidates in the graph's order and for no
others; the smallest n that breaks names the culprit. A value once infinite or far off stays so,
which is what makes the search valid; where it does not, the node found is still one whose rounding
turns a passing graph into a failing one. One culprit after the other is kept in fp32 until the
graph passes; then each is rounded again on trial. What remains is a set of which none can go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
from numpy.typing import NDArray
from onnx import ModelProto

from stpl_core.bundle import WEIGHTS, Bundle
from stpl_core.errors import BundleError
from stpl_export.precision.emulate import all_float_nodes, emulated
from stpl_export.precision.policy import WORK, Half, Policy, untyped_step
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_runtime.proof.tolerance import lead_tolerance, min_psnr_db

Judge = Callable[[Collection[str]], bool]
"""Names of the rounded nodes -> whether the result leaves its budget."""
Progress = Callable[[str], None]

MOST_KEPT = 8
"""Culprits kept in fp32 before the search gives up: then it is not a matter of a few nodes."""


@dataclass
class Bisection:
    """What the search found."""

    first: str | None
    """The first node that breaks; None where nothing does."""
    keep: tuple[str, ...]
    """Nodes that must stay in fp32 for the graph to pass; none of them can go."""
    passes: bool
    """Whether the graph passes with `keep` in fp32."""
    evaluations: int
    evaluations_to_first: int
    """Of these, how many it took to find `first`."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Node -> operation, for what is named above."""


def bisect(
    candidates: Sequence[str], breaks: Judge, *, progress: Progress = lambda _: None
) -> Bisection:
    """Search the nodes whose rounding breaks a graph.

    Args:
        candidates: nodes that may be rounded, in the graph's order.
        breaks: the judge; called about log2(len(candidates)) + 2 times for each culprit.
        progress: called with what was tried.
    """
    search = _Search(breaks, progress)
    if not search.breaks(candidates):
        return Bisection(None, (), True, search.count, search.count)
    kept: list[str] = []
    to_first = 0
    passes = False
    while not passes and len(kept) < MOST_KEPT:
        rest = [name for name in candidates if name not in kept]
        culprit = search.first(rest)
        kept.append(culprit)
        to_first = to_first or search.count
        passes = not search.breaks([name for name in rest if name != culprit])
    if passes and len(kept) > 1:
        for name in kept[:-1]:
            fewer = [other for other in kept if other != name]
            if not search.breaks([node for node in candidates if node not in fewer]):
                kept = fewer
    return Bisection(
        search.found,
        tuple(kept),
        passes,
        search.count,
        to_first,
    )


class _Search:
    def __init__(self, judge: Judge, progress: Progress) -> None:
        self.judge, self.progress = judge, progress
        self.count = 0
        self.found = ""
        """The first culprit of all."""

    def breaks(self, rounded: Collection[str]) -> bool:
        self.count += 1
        broken = self.judge(rounded)
        verdict = "breaks" if broken else "passes"
        self.progress(f"try {self.count}: {len(rounded)} operations rounded: {verdict}")
        return broken

    def first(self, names: Sequence[str]) -> str:
        """The last name of the shortest prefix that breaks; all of `names` together do."""
        low, high = 0, len(names)  # names[:low] passes (or is empty), names[:high] breaks
        while high - low > 1:
            middle = (low + high) // 2
            if self.breaks(names[:middle]):
                high = middle
            else:
                low = middle
        self.found = self.found or names[high - 1]
        return names[high - 1]


def loop_judge(
    step: ModelProto, reference: Reference, precision: Half, sequences: int = 1
) -> Judge:
    """Judge the closed loop by the tolerance of the bundle, on the first sequences."""

    def breaks(rounded: Collection[str]) -> bool:
        frames = _closed_loop(emulated(step, rounded, precision), reference, sequences)
        return not _passes(frames, reference, precision)

    return breaks


def _passes(frames: NDArray[np.float32], reference: Reference, precision: Half) -> bool:
    """Frames `(B, K, C, H, W)` against PyTorch: error and PSNR at every lead time."""
    floor = min_psnr_db(precision)
    kept = reference.kept(frames).astype(np.float64)
    error = np.abs(kept - reference.float64[: len(frames)])
    for k in range(error.shape[1]):
        if not float(error[:, k].max()) <= lead_tolerance(reference, precision, k):
            return False
        mean = float(np.mean(np.square(error[:, k])))
        if floor is not None and mean > 0 and -10.0 * np.log10(mean) < floor:
            return False
    return True


def bisect_step(
    step: ModelProto,
    policy: Policy,
    reference: Reference,
    *,
    progress: Progress = lambda _: None,
) -> Bisection:
    """Search the half operations of a step graph over the closed loop.

    Args:
        step: fp32, weights inside.
        policy: which nodes are half.
        reference: sequences, PyTorch's results and the tolerance.
        progress: called with what was tried.
    """
    kinds = {node.name: node.op_type for node in step.graph.node}
    # Moves round nothing that a neighbour has not rounded already.
    candidates = [
        name for name in all_float_nodes(step) if name in policy.half and kinds[name] in WORK
    ]
    found = bisect(candidates, loop_judge(step, reference, policy.precision), progress=progress)
    named = {name: kinds[name] for name in (*found.keep, *([found.first] if found.first else []))}
    return Bisection(
        found.first, found.keep, found.passes, found.evaluations, found.evaluations_to_first, named
    )


def bisect_bundle(bundle: Bundle, *, progress: Progress = lambda _: None) -> Bisection:
    """Search the half operations of a bundle; rounding is emulated on this CPU.

    Raises:
        BundleError: the bundle is not in half precision.
    """
    if bundle.manifest.precision not in ("fp16", "bf16"):
        raise BundleError(
            f"{bundle.path} is in {bundle.manifest.precision}",
            expected="a bundle in fp16 or bf16: --bisect finds the operation that breaks in half",
            fix="leave --bisect out",
        )
    typed = onnx.load(bundle.graph("step"), load_external_data=False)
    step, policy = untyped_step(typed, safetensors.numpy.load_file(bundle.file(WEIGHTS)))
    return bisect_step(step, policy, load_reference(bundle), progress=progress)


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Each graph runs a few times only: optimising it costs more than it saves.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _closed_loop(step: ModelProto, reference: Reference, sequences: int) -> NDArray[np.float32]:
    """K frames `(B, K, C, H, W)` by the step graph."""
    session = _session(step)
    context = reference.context[:sequences]
    inputs = [value.name for value in step.graph.input]
    outputs = [value.name for value in step.graph.output]
    state = {
        value.name: np.zeros(
            (len(context), *(axis.dim_value for axis in value.type.tensor_type.shape.dim[1:])),
            np.float32,
        )
        for value in step.graph.input
    }
    guesses: list[NDArray[np.float32]] = []
    horizon = reference.truth.shape[1]
    for t in range(context.shape[1] + horizon - 1):
        frame = context[:, t] if t < context.shape[1] else guesses[-1]
        feeds = state | {inputs[0]: np.ascontiguousarray(frame)}
        guess, *after = session.run(outputs, feeds)  # (B, C, H, W)
        state = dict(zip(inputs[1:], after, strict=False))  # what is not read comes last
        guesses.append(guess)
    return np.stack(guesses[context.shape[1] - 1 :], axis=1)
