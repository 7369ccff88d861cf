"""From a context to a nowcast: the two pieces that `predict` and the nowcaster share.

`advance` runs the context but for its newest frame, `finish` runs the newest frame and rolls out.
Streamed nowcasts equal `predict` bit for bit, since both are these two on the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from stpl_core.bundle import MANIFEST, Bundle, GraphName, Manifest
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, FrameError, UsageError
from stpl_core.files import sha256_of
from stpl_runtime.chances import Chances, exceedance_of, thresholds_of
from stpl_runtime.engine import Session, StateHandle, free_run, precision_of

BATCH = 8
"""Sequences that `predict_sequences` runs at once."""


def graphs_needed(
    manifest: Manifest, horizon: int, *, chances: bool = False
) -> tuple[GraphName, ...]:
    """The graphs that a nowcast of `horizon` frames runs through, and its chances where asked for.

    Raises:
        UsageError: a horizon below 1, or a model that gives no chances.
    """
    if horizon < 1:
        raise UsageError(f"--horizon {horizon}", expected="1 or more", fix="--horizon 10")
    if chances:
        exceedance_of(manifest)
    if chances or horizon != manifest.horizon:
        return ("step",)
    return ("forecast",) if manifest.context == 1 else ("step", "forecast")


def made_by(bundle: Bundle, session: Session, context: str) -> dict[str, str]:
    """How a nowcast was made, for those who read it later."""
    manifest = bundle.manifest
    return {
        "engine": session.engine,
        "provider": session.provider,
        "context": context,
        "model": manifest.model.name,
        "precision": precision_of(session, manifest),
        "bundle": sha256_of(bundle.file(MANIFEST))[:16],
    }


def advance(session: Session, frame: Array, state: StateHandle) -> StateHandle:
    """Take in one observed frame `(B, C, H, W)`, model units; uses `state` up."""
    # Of `KeepsStates`. To ask isinstance of a Protocol takes 0.03 ms, at each frame of a window.
    take_in: Callable[[Array, StateHandle], StateHandle] | None = getattr(session, "take_in", None)
    return session.step(frame, state)[1] if take_in is None else take_in(frame, state)


Finished = tuple[Array, "StateHandle | None", "Array | None"]
"""Of one sequence: frames `(K, C, H, W)`, the state after the newest frame, chances
`(K, Q, C, H, W)`, as far as there are."""


class Forecast(NamedTuple):
    """What comes after a frame."""

    frames: Array
    """`(B, K, C, H, W)`, model units, unclipped."""
    after: StateHandle | None
    """The state after that frame, where the graph gives it."""
    chances: Array | None = None
    """Of events in the frames, `(B, K, Q, C, H, W)`, where they were asked for."""

    def of_one(self) -> Finished:
        """That of the only sequence."""
        return self.frames[0], self.after, None if self.chances is None else self.chances[0]


def finish(
    session: Session,
    manifest: Manifest,
    frame: Array,
    state: StateHandle,
    horizon: int,
    *,
    chances: bool = False,
) -> Forecast:
    """Take in the newest frame and roll out.

    Args:
        session: with the graphs of `graphs_needed` open.
        manifest: the bundle's.
        frame: the newest frame, `(B, C, H, W)`, model units.
        state: the state before it; used up unless `horizon` is the bundle's own and no chances
            are asked for.
        horizon: number of frames to predict.
        chances: those of events are wanted too.

    Raises:
        AccuracyError: the engine gave NaN or infinity.
        UsageError: the model gives no chances.
    """
    if horizon == manifest.horizon and not chances:
        frames, after = session.forecast(frame, state)
        _check_finite(session, frames)
        return Forecast(frames, after)
    name = exceedance_of(manifest).name if chances else ""
    guesses, likely = [], []
    for guess, given, _ in free_run(session, frame, state, horizon, (name,) if chances else ()):
        guesses.append(guess)
        likely += [given[name]] if chances else []
    frames = np.stack(guesses, axis=1)  # (B, horizon, C, H, W)
    _check_finite(session, frames)
    if not chances:
        return Forecast(frames, None)
    found = np.stack(likely, axis=1)  # (B, horizon, Q, C, H, W)
    _check_finite(session, found)
    return Forecast(frames, None, found.clip(0, 1))


def _check_finite(session: Session, values: Array) -> None:
    wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        raise AccuracyError(
            f"{session.engine} on {session.provider} gave {wrong} values that are NaN or infinite",
            expected="finite frames",
            fix="stpl-deploy verify BUNDLE on this machine",
        )


def predict_sequences(bundle: Bundle, session: Session, frames: Array, horizon: int) -> Array:
    """Predict what follows the newest T frames of each sequence.

    Args:
        bundle: the opened bundle.
        session: with the graphs of `graphs_needed` open.
        frames: `(N, S, C, H, W)`, physical units, S >= T; the newest T are read.
        horizon: number of frames to predict.

    Returns:
        `(N, horizon, C, H, W)`, physical units, clipped to the codec's range.

    Raises:
        FrameError: fewer than T frames.
        AccuracyError: the engine gave NaN or infinity.
    """
    parts = [
        finish(session, bundle.manifest, newest, state, horizon).frames
        for newest, state in _contexts_read(bundle.manifest, session, frames)
    ]
    return bundle.manifest.codec.physical_from_model(np.concatenate(parts))


def predict_with_chances(
    bundle: Bundle, session: Session, frames: Array, horizon: int
) -> tuple[Array, Chances]:
    """As `predict_sequences`, and how likely events are: `(N, horizon, Q, C, H, W)`.

    Raises:
        UsageError: the model gives no chances.
    """
    manifest = bundle.manifest
    made = [
        finish(session, manifest, newest, state, horizon, chances=True)
        for newest, state in _contexts_read(manifest, session, frames)
    ]
    predicted = np.concatenate([one.frames for one in made])
    likely = np.concatenate([one.chances for one in made if one.chances is not None])
    physical = manifest.codec.physical_from_model(predicted)
    return physical, Chances(thresholds_of(manifest), likely)


def _contexts_read(
    manifest: Manifest, session: Session, frames: Array
) -> Iterator[tuple[Array, StateHandle]]:
    """Some sequences at a time: the newest frame `(B, C, H, W)`, and the state before it."""
    recent = newest_frames(frames, manifest.context)
    for start in range(0, len(recent), BATCH):
        context = manifest.codec.model_from_physical(recent[start : start + BATCH])
        state = session.zero_state(len(context))
        for t in range(manifest.context - 1):
            state = advance(session, np.ascontiguousarray(context[:, t]), state)
        yield np.ascontiguousarray(context[:, -1]), state


def newest_frames(frames: Array, context: int) -> Array:
    """The newest `context` frames of `(N, S, C, H, W)` sequences.

    Raises:
        FrameError: there are fewer.
    """
    if frames.shape[1] < context:
        raise FrameError(
            f"{frames.shape[1]} frame(s)",
            expected=f"at least {context}, which this model reads",
            fix=f"give {context} consecutive frames",
        )
    return frames[:, frames.shape[1] - context :]
