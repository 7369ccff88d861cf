"""From a context to a nowcast: the two pieces that `predict` and the nowcaster share.

`advance` runs the context but for its newest frame, `finish` runs the newest frame and rolls out.
Streamed nowcasts equal `predict` bit for bit, since both are these two on the same frames.
"""

from __future__ import annotations

import numpy as np

from stpl_core.bundle import MANIFEST, Bundle, GraphName, Manifest
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, FrameError, UsageError
from stpl_core.files import sha256_of
from stpl_runtime.engine import Session, StateHandle, precision_of

BATCH = 8
"""Sequences that `predict_sequences` runs at once."""


def graphs_needed(manifest: Manifest, horizon: int) -> tuple[GraphName, ...]:
    """The graphs that a nowcast of `horizon` frames runs through.

    Raises:
        UsageError: a horizon below 1.
    """
    if horizon < 1:
        raise UsageError(f"--horizon {horizon}", expected="1 or more", fix="--horizon 10")
    if horizon != manifest.horizon:
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
    return session.step(frame, state)[1]


def finish(
    session: Session, manifest: Manifest, frame: Array, state: StateHandle, horizon: int
) -> tuple[Array, StateHandle | None]:
    """Take in the newest frame and roll out.

    Args:
        session: with the graphs of `graphs_needed` open.
        manifest: the bundle's.
        frame: the newest frame, `(B, C, H, W)`, model units.
        state: the state before it; used up unless `horizon` is the bundle's own.
        horizon: number of frames to predict.

    Returns:
        The predicted frames `(B, horizon, C, H, W)`, model units, unclipped; and the state after
        `frame`, where the graph gives it.

    Raises:
        AccuracyError: the engine gave NaN or infinity.
    """
    after: StateHandle | None = None
    if horizon == manifest.horizon:
        frames, after = session.forecast(frame, state)
    else:
        guesses = []
        guess = frame
        for _ in range(horizon):
            guess, state = session.step(guess, state)
            guesses.append(guess)
        frames = np.stack(guesses, axis=1)  # (B, horizon, C, H, W)
    wrong = frames.size - int(np.isfinite(frames).sum())
    if wrong:
        raise AccuracyError(
            f"{session.engine} on {session.provider} gave {wrong} values that are NaN or infinite",
            expected="finite frames",
            fix="stpl-deploy verify the bundle on this machine",
        )
    return frames, after


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
    manifest = bundle.manifest
    recent = newest_frames(frames, manifest.context)
    parts = []
    for start in range(0, len(recent), BATCH):
        context = manifest.codec.model_from_physical(recent[start : start + BATCH])
        state = session.zero_state(len(context))
        for t in range(manifest.context - 1):
            state = advance(session, np.ascontiguousarray(context[:, t]), state)
        newest = np.ascontiguousarray(context[:, -1])  # (B, C, H, W)
        parts.append(finish(session, manifest, newest, state, horizon)[0])
    return manifest.codec.physical_from_model(np.concatenate(parts))


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
