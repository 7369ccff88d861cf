"""Sums of live scores: for each lead time, of the nowcast and of persistence on the same pixels.

The scores are those of `stpl_core.scores.accumulator`, from the same sums: pixel scores in model
units [0, 1], events in physical units. Here one pair of frames is added at a time, and the newest
ones can be asked for alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stpl_core.codec import Array, FrameCodec
from stpl_core.rain import dbz_from_rate
from stpl_core.scores import events
from stpl_core.scores.images import Doubles, Mask

WAYS = ("nowcast", "persistence")
FLOW = "flow"
"""A third way, where it is asked for."""

_FIXED = ("frames", "pixels", "squared", "absolute", "psnr", "psnr_frames")
"""What is summed beside the three counts of each threshold."""

_RAIN_MM_H = (0.1, 1.0, 5.0)


def default_thresholds(units: str) -> tuple[float, ...]:
    """Thresholds of events where none are given: 0.1, 1 and 5 mm/h, also as reflectivity."""
    if units == "dBZ":
        rates = np.asarray(_RAIN_MM_H, np.float64)
        return tuple(round(value, 1) for value in dbz_from_rate(rates).tolist())
    return _RAIN_MM_H if units in ("mm h-1", "mm") else ()


def pair_sums(
    forecast: Array,
    truth: Array,
    valid: Mask | None,
    codec: FrameCodec,
    thresholds: Sequence[float],
) -> Doubles:
    """What one pair of frames adds to the sums, `(6 + 3 thresholds,)`.

    Args:
        forecast: `(C, H, W)`, physical units; NaN where there is no forecast.
        truth: the same shape; NaN where nothing was observed.
        valid: `(H, W)`, True where a pixel counts; None: all.
        codec: says what physical values the model sees as 0 and 1.
        thresholds: physical units.
    """
    known: Mask = np.asarray(np.isfinite(forecast + truth).all(axis=0))  # (H, W)
    known = known if valid is None else known & valid
    sums = np.zeros(len(_FIXED) + 3 * len(thresholds))
    pixels = int(known.sum()) * truth.shape[0]
    if not pixels:
        return sums
    guess, seen = (np.clip(codec.model_from_physical(frame), 0, 1) for frame in (forecast, truth))
    error = np.where(known, guess.astype(np.float64) - seen, 0.0)  # (C, H, W)
    squared = float(np.square(error).sum())
    sums[:4] = 1.0, pixels, squared, np.abs(error).sum()
    if squared > 0:  # the PSNR of identical frames is infinite, and left out of the mean
        sums[4:6] = 10.0 * np.log10(pixels / squared), 1.0
    if thresholds:
        counts = events.contingency(forecast[None], truth[None], thresholds, known[None])
        sums[len(_FIXED) :] = counts.reshape(-1)
    return sums


@dataclass(frozen=True)
class LiveScores:
    """Scores by name, `(K,)` each, NaN where there was nothing to score."""

    frames: Doubles
    """`(K,)`: how many were scored."""
    per_lead: dict[str, dict[str, Doubles]]
    """Way -> score -> `(K,)`: mse, mae (summed over a frame), psnr, csi_<threshold>."""
    overall: dict[str, dict[str, float]]
    """Way -> score, all lead times together."""


class LeadSums:
    """Sums for lead times 1..K: of everything, and of the newest `window` pairs of each lead."""

    def __init__(
        self, horizon: int, thresholds: Sequence[float], window: int, ways: Sequence[str] = WAYS
    ) -> None:
        """Start from nothing; memory is K times `window` rows and does not grow."""
        self._ways = tuple(ways)
        self._thresholds = tuple(thresholds)
        width = len(_FIXED) + 3 * len(self._thresholds)
        self._total = np.zeros((horizon, len(ways), width))
        self._ring = np.zeros((horizon, window, len(ways), width))
        self._added = np.zeros(horizon, np.int64)

    def add(self, lead: int, sums: Doubles) -> None:
        """Add a pair.

        Args:
            lead: 1..K.
            sums: `(ways, ...)`, from `pair_sums`.
        """
        k = lead - 1
        self._total[k] += sums
        self._ring[k, self._added[k] % self._ring.shape[1]] = sums
        self._added[k] += 1

    def kept(self) -> dict[str, Doubles]:
        """Everything that was added, as arrays for a file."""
        filled = int(min(self._added.max(initial=0), self._ring.shape[1]))
        return {
            "total": self._total,
            "newest": self._ring[:, :filled],
            "added": self._added.astype(np.float64),
        }

    def restore(self, kept: dict[str, Doubles]) -> None:
        """Go on from what `kept` gave.

        Raises:
            ValueError, KeyError: it is of other lead times, thresholds or another window.
        """
        total, newest, added = kept["total"], kept["newest"], kept["added"]
        filled = newest.shape[1] if newest.ndim == 4 else -1
        most = self._ring.shape[1]
        fits = (
            total.shape == self._total.shape
            and newest.shape == (len(total), filled, *self._total.shape[1:])
            and added.shape == self._added.shape
            and all(array.dtype == np.float64 for array in (total, newest, added))
            and all(np.isfinite(array).all() for array in (total, newest, added))
            and bool((added >= 0).all())
            and filled == min(int(added.max(initial=0)), most)
        )
        if not fits:
            raise ValueError("scores of another kind")
        self._total = total.copy()
        self._ring[:, :filled] = newest
        self._added = added.astype(np.int64)

    def total(self) -> LiveScores:
        """Scores of everything."""
        return self._scores(self._total)

    def rolling(self) -> LiveScores:
        """Scores of the newest `window` pairs of each lead time."""
        return self._scores(self._ring.sum(axis=1))

    def _scores(self, sums: Doubles) -> LiveScores:
        """Args: sums: `(K, ways, ...)`."""
        whole = sums.sum(axis=0, keepdims=True)  # (1, ways, ...)
        per_lead, overall = {}, {}
        for w, way in enumerate(self._ways):
            per_lead[way] = self._named(sums[:, w])
            overall[way] = {name: float(v[0]) for name, v in self._named(whole[:, w]).items()}
        return LiveScores(sums[:, 0, 0].copy(), per_lead, overall)

    def _named(self, sums: Doubles) -> dict[str, Doubles]:
        """Args: sums: `(leads, ...)` of one way."""
        found = {
            "mse": _mean(sums[:, 2], sums[:, 0]),
            "mae": _mean(sums[:, 3], sums[:, 0]),
            "psnr": _mean(sums[:, 4], sums[:, 5]),
        }
        counts = sums[:, len(_FIXED) :].reshape(len(sums), len(self._thresholds), 3)
        for n, threshold in enumerate(self._thresholds):
            found[f"csi_{threshold:g}"] = events.csi(counts[:, n])
        return found


def _mean(total: Doubles, count: Doubles) -> Doubles:
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))
