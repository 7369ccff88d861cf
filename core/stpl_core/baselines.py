"""Forecasts that need no model: every score stands beside one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import MissingExtraError
from stpl_core.rain import dbz_from_rate, rate_from_dbz

if TYPE_CHECKING:
    import cv2

DAY, WEEK = np.timedelta64(1, "D"), np.timedelta64(7, "D")

_FLOW_FRAMES = 3
"""Newest frames whose motion is averaged."""

_DECIBELS = {"mm h-1": (-10.0, 17.0), "mm": (-20.0, 7.0)}
"""Rain in 10 log10 of its unit that the optical flow sees as black and as white."""

_LEAST_SIDE = 32
"""Smaller frames are enlarged for the optical flow, whose patches are 8 pixels."""


def persistence(context: Array, horizon: int) -> Array:
    """Repeat the last frame.

    Args:
        context: `(N, T, C, H, W)`.
        horizon: K.

    Returns:
        `(N, K, C, H, W)`, a view.
    """
    last = context[:, -1:]  # (N, 1, C, H, W)
    return np.broadcast_to(last, (last.shape[0], horizon, *last.shape[2:]))


def periodic(
    frames: Array, times: NDArray[np.datetime64], horizon: int, period: np.timedelta64
) -> Array:
    """What was observed a whole day or week before, wherever in the sequences that was.

    Args:
        frames: `(N, T + K, C, H, W)`, sequences that may overlap.
        times: `(N, T + K)`, when each frame was observed.
        horizon: K; the frames to forecast are the last K of each sequence.
        period: not less than the time that K frames span, so that nothing comes from the future.

    Returns:
        `(N, K, C, H, W)`; NaN where no frame of that time is there.
    """
    flat = times.reshape(-1)
    known, where = np.unique(flat, return_index=True)
    stored = frames.reshape(-1, *frames.shape[2:])  # (N (T + K), C, H, W)
    earlier = times[:, -horizon:] - period  # (N, K)
    place = np.clip(np.searchsorted(known, earlier), 0, len(known) - 1)
    there = known[place] == earlier
    there &= earlier <= times[:, -horizon - 1][:, None]
    out = np.full((len(frames), horizon, *frames.shape[2:]), np.nan, np.float32)
    out[there] = stored[where[place[there]]]
    return out


def flow(context: Array, horizon: int, units: str = "1") -> Array:
    """Move the last frame on along its optical flow: the Lagrangian baseline.

    Dense inverse search (DIS, Kroeger et al. 2016) finds where each pixel came from; the last frame
    is carried along that motion, which stays as it is, by backward semi-Lagrangian steps. Rain that
    comes in over the edge is none; other values go on as they are at the edge. Reflectivity is
    moved as rain rate.

    Args:
        context: `(N, T, C, H, W)`, physical units; NaN is read as the least value of its sequence.
            With T = 1 there is no motion to see: the result is persistence.
        horizon: K.
        units: of the values, in CF notation; rain is compared in decibels.

    Returns:
        `(N, K, C, H, W)`.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingExtraError("opencv-python-headless", "evaluate") from error

    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    out = np.empty((len(context), horizon, *context.shape[2:]), np.float32)
    for n, sequence in enumerate(context):
        least = float(np.nanmin(sequence)) if np.isfinite(sequence).any() else 0.0
        frames = np.nan_to_num(sequence[-_FLOW_FRAMES:], nan=least)  # (T', C, H, W)
        if units != "dBZ":
            out[n] = _advect(frames[-1], _motion(frames, units, search), horizon, units)
            continue
        rates = rate_from_dbz(frames.astype(np.float64)).astype(np.float32)
        moved = _advect(rates[-1], _motion(rates, "mm h-1", search), horizon, "mm h-1")
        out[n] = np.maximum(dbz_from_rate(moved.astype(np.float64)), least)
    return out


def _motion(frames: Array, units: str, search: cv2.DISOpticalFlow) -> Array:
    """Where each pixel was one frame before, as a way `(H, W, 2)` in pixels, x then y."""
    pictures = _pictures(frames, units)
    pairs = zip(pictures[1:], pictures[:-1], strict=True)
    # Still air where there is nothing to follow: DIS gives exactly zero on an empty field.
    ways = [np.asarray(search.calc(new, old, None), np.float32) for new, old in pairs]  # type: ignore[call-overload]
    height, width = frames.shape[2:]
    if not ways:
        return np.zeros((height, width, 2), np.float32)
    grown = pictures.shape[1] // height
    centre = grown // 2
    return np.asarray(np.mean(ways, axis=0)[centre::grown, centre::grown] / grown, np.float32)


def _pictures(frames: Array, units: str) -> NDArray[np.uint8]:
    """What the optical flow compares, `(T', H, W)` or a whole multiple of that size."""
    grey = frames.mean(axis=1, dtype=np.float64)  # (T', H, W)
    if units in _DECIBELS:
        low, high = _DECIBELS[units]
        grey = 10.0 * np.log10(np.maximum(grey, 10.0 ** (low / 10.0)))
    else:
        low, high = float(grey.min()), float(grey.max())
    bytes_ = (np.clip((grey - low) / ((high - low) or 1.0), 0, 1) * 255).astype(np.uint8)
    grow = max(1, -(-_LEAST_SIDE // min(bytes_.shape[1:])))
    return np.ascontiguousarray(bytes_.repeat(grow, axis=1).repeat(grow, axis=2))


def _advect(frame: Array, motion: Array, horizon: int, units: str) -> Array:
    """Carry `(C, H, W)` along `motion` for K steps: `(K, C, H, W)`."""
    import cv2

    height, width = frame.shape[1:]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    edge = cv2.BORDER_CONSTANT if units in _DECIBELS else cv2.BORDER_REPLICATE
    out = np.empty((horizon, *frame.shape), np.float32)
    for k in range(horizon):
        # One step further back, with the motion that holds there.
        way = cv2.remap(motion, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x, y = x + way[..., 0], y + way[..., 1]
        for channel, values in enumerate(frame):
            out[k, channel] = cv2.remap(
                np.ascontiguousarray(values), x, y, cv2.INTER_LINEAR, borderMode=edge, borderValue=0
            )
    return out
