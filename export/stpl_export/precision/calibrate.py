"""The ranges of a step graph's values over the closed loop, for int8.

The model runs as it will: T frames are observed, K - 1 times its own guess is fed back, so the
ranges hold the states and frames that a forecast meets, not those of observed frames alone. The
range is the least and the greatest value seen: cutting a tenth off cost a trained MoDeRNN 5 dB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from stpl_core.codec import Array
from stpl_core.machine import usable_cpus

_BATCH = 4
"""Sequences that run at once."""
MOST_SEQUENCES = 16


@dataclass(frozen=True)
class Range:
    """The values that were seen."""

    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """What the ranges come from."""

    sequences: Array
    """`(N, T + K, C, H, W)`, model units."""
    context: int
    """T."""
    data: str
    """Where they came from."""
    judge_too: bool = False
    """Whether the accuracy is measured on the same ones."""

    def about(self) -> str:
        """For the manifest."""
        count = len(self.sequences)
        same = "those that judge it" if self.judge_too else "none of which judges it"
        return f"{count} sequence{'s' * (count > 1)} of {self.data}, {same}"


def split_sequences(count: int, most: int) -> tuple[slice, slice]:
    """Which of `count` sequences judge, and which calibrate.

    They have none in common where there are two or more: at most `most` judge, at most 16
    calibrate, half and half where there are not enough for both.
    """
    if count == 1:
        return slice(0, 1), slice(0, 1)
    judge = min(most, (count + 1) // 2)
    return slice(0, judge), slice(judge, judge + MOST_SEQUENCES)


def closed_loop_ranges(
    step: ModelProto, names: Collection[str], calibration: Calibration
) -> dict[str, Range]:
    """Run the closed loop and note the range of each value named.

    Args:
        step: the fp32 step graph, weights inside.
        names: values of the graph, its inputs included.
        calibration: the sequences.

    Returns:
        Value -> range over all T + K - 1 steps of all sequences.
    """
    session = open_optimised(_with_extremes(step, names))
    lows, highs = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    extremes = [f"{name}/{end}" for name in names for end in ("low", "high")]
    for start in range(0, len(calibration.sequences), _BATCH):
        chosen = calibration.sequences[start : start + _BATCH]
        for _, _, seen in run_loop(session, step, chosen, calibration.context, extremes):
            for n, name in enumerate(names):
                lows[name] = min(lows[name], float(seen[2 * n]))
                highs[name] = max(highs[name], float(seen[2 * n + 1]))
    return {name: Range(lows[name], highs[name]) for name in names}


def _with_extremes(step: ModelProto, names: Collection[str]) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(step)
    for name in names:
        for end, kind in (("low", "ReduceMin"), ("high", "ReduceMax")):
            out = f"{name}/{end}"
            made.graph.node.append(helper.make_node(kind, [name], [out], out, keepdims=0))
            made.graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, []))
    return made


_Arrays = list[NDArray[np.float32]]


def run_loop(
    session: onnxruntime.InferenceSession,
    step: ModelProto,
    sequences: Array,
    context: int,
    extra: Sequence[str] = (),
) -> Iterator[tuple[Array, _Arrays, _Arrays]]:
    """Run T + K - 1 steps from the zero state, guesses fed back after T.

    Args:
        session: of the step graph, or of one with further outputs.
        step: names and shapes of its inputs and outputs.
        sequences: `(N, T + K, C, H, W)`; frames from T on are not read.
        context: T.
        extra: further outputs.

    Yields:
        After each step the guess `(N, C, H, W)`, the state tensors and the further outputs.
    """
    inputs = [value.name for value in step.graph.input]
    outputs = [value.name for value in step.graph.output]
    state: _Arrays = [_zeros(value, len(sequences)) for value in step.graph.input[1:]]
    guess = sequences[:, 0]
    for t in range(sequences.shape[1] - 1):
        frame = sequences[:, t] if t < context else guess
        # What is given beside the frame comes last, and is not read.
        feeds = dict(zip(inputs, [np.ascontiguousarray(frame), *state], strict=False))
        found = session.run([*outputs, *extra], feeds)
        guess, state = found[0], found[1 : len(outputs)]
        yield guess, state, found[len(outputs) :]


def _zeros(value: onnx.ValueInfoProto, batch: int) -> NDArray[np.float32]:
    tensor = value.type.tensor_type
    kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return np.zeros((batch, *(axis.dim_value for axis in tensor.shape.dim[1:])), kind)


def open_plain(step: ModelProto) -> onnxruntime.InferenceSession:
    """Open a graph whose nodes ONNX Runtime computes one by one, fusing none."""
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _open(step, options)


def open_optimised(model: ModelProto, dump: Path | None = None) -> onnxruntime.InferenceSession:
    """Open a graph as a bundle's session would; `dump` is where to write what it runs."""
    options = _options()
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    return _open(model, options)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cpus()
    # Nothing is timed here: leave the processor to others between operations.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(model: ModelProto, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
