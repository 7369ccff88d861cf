"""The members of an ensemble nowcast: noise made uniform, then values as the chances have it."""

from __future__ import annotations

import numpy as np

from stpl_core.bundle import Manifest
from stpl_core.codec import Array, FrameCodec
from stpl_core.scores.images import Mask
from stpl_runtime.chances import Chances
from stpl_runtime.ensembles.noise import exceeded_share, noise_of
from stpl_runtime.ensembles.quantiles import distribution_of
from stpl_runtime.ingest.inputs import Context
from stpl_runtime.nowcasting.predict import newest_frames


def ensembles(
    manifest: Manifest,
    context: Context,
    frames: Array,
    chances: Chances,
    members: int,
    seed: int,
) -> Array:
    """An ensemble of each sequence.

    Args:
        manifest: of the bundle.
        context: the frames that were read.
        frames: `(N, K, C, H, W)`, physical units: the nowcasts.
        chances: of their events, values `(N, K, Q, C, H, W)`.
        members: M.
        seed: the same number gives the same noise, whatever M, K and the engine are.

    Returns:
        `(N, M, K, C, H, W)`, physical units, within the codec's range.
    """
    every = enumerate(zip(newest_frames(context.frames, manifest.context), frames, strict=True))
    return np.stack(
        [
            members_of(
                manifest.codec,
                past,
                made,
                Chances(chances.thresholds, chances.values[n]),
                members,
                (seed, n),
                context.context_observed,
            )
            for n, (past, made) in every
        ]
    )


def members_of(
    codec: FrameCodec,
    context: Array,
    frames: Array,
    chances: Chances,
    members: int,
    seed: tuple[int, ...],
    observed: Mask | None = None,
) -> Array:
    """Members of one nowcast. All channels of a member have the same noise.

    Args:
        codec: of the model.
        context: `(T, C, H, W)`, physical units: the frames that the nowcast was made from.
        frames: `(K, C, H, W)`, physical units: the nowcast.
        chances: of its events, values `(K, Q, C, H, W)`.
        members: M.
        seed: the same numbers give the same members; the first ones are the same for any M.
        observed: `(T, H, W)`, False where a frame of the context had no data; None: it had.

    Returns:
        `(M, K, C, H, W)`, physical units, within the codec's range.
    """
    steps, channels = frames.shape[:2]
    past = codec.model_from_physical(context).mean(axis=1)  # (T, H, W)
    if observed is not None:
        past = np.where(observed, past, np.float32(np.nan))
    noise = noise_of(past, steps)
    made = np.empty((members, *frames.shape), np.float32)
    pairs = [noise.pairs((*seed, n)) for n in range(-(-members // 2))]
    for k in range(steps):
        possible = distribution_of(codec, chances.thresholds, chances.values[k], frames[k])
        for n, pair in enumerate(pairs):
            for member, field in enumerate(next(pair), 2 * n):
                if member < members:
                    shares = np.tile(exceeded_share(field).ravel(), channels)
                    made[member, k] = possible.values(shares).reshape(frames.shape[1:])
    return made
