"""`reference.npz`: real sequences with PyTorch's own outputs, in float32 and float64.

The tolerance of an fp32 engine is PyTorch's own rounding: at each lead time 8 times the greatest
difference between its float32 and its float64 run on the same sequences (at least 1e-6).

As many sequences are kept as `MOST_BYTES` hold, one at least. Where one alone has more outputs, or
more values of its state, pixels and values drawn at random over the whole of them are kept, as many
as fit. Every engine still runs every pixel, and what it reads is kept whole.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpl_core.codec import Array
from stpl_export.graphs.onnx_step import output_specs
from stpl_runtime.proof.reference import Places, Reference, ReferenceOutput, ReferenceState
from stpl_train.forecaster import State
from stpl_train.models import ForecasterModule

FP32_FACTOR = 8.0
FP32_FLOOR = 1e-6
MOST_BYTES = 16 * 2**20
"""Of the sequences with their outputs, before compression; or of one sequence's outputs; and of its
state."""
MOST_SEQUENCES = 16
OUTPUT_PLACES = 2**14
"""Values that are kept of what is given beside a frame."""
LEAST_PLACES = 1024
"""Pixels of a frame or values of a state that are kept at least."""
_OUTPUT_BYTES = 12
"""Of a value of the outputs: float32 and float64."""
_STATE_BYTES = 12
"""Of a value of the state: float64, and its place."""
_LINE_S = 10.0
"""Between two lines on the progress: a step of a whole field takes seconds."""


def make_reference(
    model: ForecasterModule,
    sequences: Array,
    context: int,
    data: str,
    most: int = MOST_SEQUENCES,
    observed: NDArray[np.bool_] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Reference:
    """Run the closed loop in PyTorch, in float32 and float64.

    Args:
        model: float32, on the CPU, in evaluation mode.
        sequences: `(N, T + K, C, H, W)`, model units; as many as fit are used.
        context: T.
        data: where the sequences came from, for the report.
        most: use at most so many sequences (and see `MOST_BYTES`).
        observed: `(N, T + K, H, W)`, False where a pixel was not observed; None: all were.
        progress: given a line now and then, where it takes long.
    """
    horizon = sequences.shape[1] - context
    outputs = _OUTPUT_BYTES * sequences[0, context:].size
    keep = kept_sequences(sequences, context, most)
    sequences = sequences[:keep]
    frames = torch.from_numpy(np.ascontiguousarray(sequences[:, :context]))  # (N, T, C, H, W)
    stepped = _count_steps(2 * (context + horizon - 1), progress)
    single, state32, given32 = _closed_loop(model, frames, horizon, stepped)
    exact = copy.deepcopy(model).double()
    double, state64, given64 = _closed_loop(exact, frames.double(), horizon, stepped)
    gap = (single.double() - double).abs().amax(dim=(0, 2, 3, 4))  # (K,)
    seen = None if observed is None or observed[:keep].all() else observed[:keep]
    height, width = sequences.shape[3:]
    fits = MOST_BYTES * height * width // outputs if keep == 1 else height * width
    whole = Reference(
        data=data,
        context=sequences[:, :context],
        truth=sequences[:, context:],
        float32=single.numpy(),
        float64=double.numpy(),
        tolerance=np.asarray([_tolerance(value) for value in gap]),
        states=_states(state32, state64),
        observed=seen,
        pixels=_places(height * width, fits),
        outputs={name: _output(given32[name], given64[name]) for name in given64},
    )
    return replace(whole, float32=whole.kept(whole.float32), float64=whole.kept(whole.float64))


def kept_sequences(sequences: Array, context: int, most: int = MOST_SEQUENCES) -> int:
    """How many of `(N, T + K, C, H, W)` a bundle keeps, and every check runs at once."""
    outputs = _OUTPUT_BYTES * sequences[0, context:].size
    fit = int(MOST_BYTES // (sequences[0].nbytes + outputs))
    return max(1, min(most, len(sequences), fit))


def _states(single: State, double: State) -> dict[str, ReferenceState]:
    every = _STATE_BYTES * sum(tensor.numel() for tensor in double.values())
    made = {}
    for name, exact in double.items():
        whole = ReferenceState(
            values=exact.numpy(),
            tolerance=_tolerance((single[name].double() - exact).abs().max()),
            places=_places(exact.numel(), exact.numel() * MOST_BYTES // every),
        )
        made[name] = replace(whole, values=whole.kept(whole.values))
    return made


def _output(single: Tensor, double: Tensor) -> ReferenceOutput:
    """Of `(K, Q, C, H, W)`, some values."""
    flat = double.flatten(1)  # (K, Q*C*H*W)
    chosen = _places(flat.shape[1], OUTPUT_PLACES)
    places = np.arange(flat.shape[1], dtype=np.int32) if chosen is None else chosen
    gaps = (single.double() - double).abs().amax((1, 2, 3, 4))  # (K,)
    return ReferenceOutput(
        values=flat.numpy()[:, places],
        tolerance=np.asarray([_tolerance(gap) for gap in gaps]),
        places=places,
    )


def _places(count: int, fits: int) -> Places | None:
    """`fits` of `count` places in order, the first and the last one among them; None: all."""
    fits = max(fits, LEAST_PLACES)
    if fits >= count:
        return None
    drawn = np.random.default_rng(0).choice(count, fits, replace=False)
    drawn[:2] = 0, count - 1
    return np.unique(drawn).astype(np.int32)


def _tolerance(gap: Tensor) -> float:
    return max(FP32_FACTOR * float(gap), FP32_FLOOR)


def _count_steps(of: int, progress: Callable[[str], None]) -> Callable[[], None]:
    """A function to call after each of `of` steps: a line now and then."""
    done, last = 0, time.monotonic()

    def stepped() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= _LINE_S and done < of:
            last = now
            progress(f"PyTorch reference: {done} of {of} steps")

    return stepped


def _closed_loop(
    model: ForecasterModule, frames: Tensor, horizon: int, stepped: Callable[[], None]
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """The closed loop; `stepped` is called after each step.

    Returns:
        K frames `(N, K, C, H, W)`; of the first sequence the state after the context, and what is
        given beside the frames, name -> `(K, Q, C, H, W)`.
    """
    state = model.initial_state(len(frames))
    guesses: list[Tensor] = []
    kept: State = {}
    given: dict[str, list[Tensor]] = {spec.name: [] for spec in output_specs(model)}
    with torch.no_grad():
        guess = frames[:, 0]
        for t in range(frames.shape[1]):
            guess, state = model.step(frames[:, t], state)  # (N, C, H, W)
            stepped()
        kept = {name: tensor[:1].clone() for name, tensor in state.items()}
        while True:
            guesses.append(guess)
            for name, values in given.items():
                values.append(state[name][0].clone())
            if len(guesses) == horizon:
                break
            guess, state = model.step(guess, state)
            stepped()
    beside = {name: torch.stack(values) for name, values in given.items()}
    return torch.stack(guesses, dim=1), kept, beside


def save_reference(path: Path, reference: Reference) -> None:
    """Write `reference.npz`, compressed: rain is mostly nothing."""
    np.savez_compressed(path, allow_pickle=False, **reference.arrays())
