"""Sums of scores over forecasts: update with batches, merge with others, then ask for the result.

Everything kept is a sum or a count for each lead time, so a result does not depend on how forecasts
were grouped: counts are added up, scores are never averaged. The mean over lead times comes from
the same sums, all leads together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.metrics import PerLead
from stpl_core.scores import events, images, spectrum
from stpl_core.scores.images import Doubles, Mask

FRAMES = "frames"
"""Name of the number of frames that were scored."""

CURVES = ("power_forecast", "power_truth")
"""Sums of the spectrum, which no score needs."""

_PER_FRAME = ("psnr", "psnr_uint8", "ssim", "ssim_uint8")


@dataclass(frozen=True)
class Spectra:
    """Power at wavenumbers 0, 1, 2, ... per frame, mean over forecasts."""

    forecast: Doubles
    """`(K, waves)`."""
    truth: Doubles
    """`(K, waves)`."""


@dataclass(frozen=True)
class Scores:
    """The result: every score by its name; NaN where there was nothing to score."""

    per_lead: dict[str, PerLead]
    """`(K,)` each, and `frames`, how many were scored."""
    overall: dict[str, float]
    """All lead times together."""
    spectra: Spectra

    def document(self) -> dict[str, Any]:
        """As JSON: `mean`, and `per_lead` -> score."""
        per_lead = {key: values.tolist() for key, values in self.per_lead.items()}
        return {"mean": self.overall, "per_lead": per_lead}


class Accumulator:
    """Scores of one forecaster. Pixel scores in model units [0, 1], events in physical units."""

    def __init__(
        self,
        horizon: int,
        codec: FrameCodec,
        thresholds: Sequence[float] = (),
        scales: Sequence[int] = (),
    ) -> None:
        """Start from nothing.

        Args:
            horizon: K.
            codec: maps physical values to what the model sees as 0 and 1.
            thresholds: physical units, for CSI, POD, FAR and FSS.
            scales: sides of the squares of FSS, in pixels.
        """
        self.horizon, self.codec = horizon, codec
        self.thresholds, self.scales = tuple(thresholds), tuple(scales)
        self._sums: dict[str, Doubles] = {}

    def update(self, forecast: Array, truth: Array, valid: Mask | None = None) -> None:
        """Add forecasts.

        Args:
            forecast: `(N, K, C, H, W)`, physical units; NaN where there is no forecast.
            truth: the same shape; NaN where nothing was observed.
            valid: `(N, H, W)`, True where every frame of the sequence was observed; None: all.

        Raises:
            FrameError: shapes that do not fit.
        """
        if forecast.shape != truth.shape or forecast.ndim != 5 or truth.shape[1] != self.horizon:
            raise FrameError(
                f"a forecast of shape {forecast.shape} for a truth of {truth.shape}",
                expected=f"(N, {self.horizon}, C, H, W) twice",
                fix="compare the same sequences and lead times",
            )
        if valid is not None and valid.shape != (len(truth), *truth.shape[3:]):
            raise FrameError(
                f"a mask of shape {valid.shape}",
                expected=f"(N, H, W) = {(len(truth), *truth.shape[3:])}",
                fix="one mask for each sequence",
            )
        leads = [self._lead(forecast[:, k], truth[:, k], valid) for k in range(self.horizon)]
        self._add({name: np.stack([lead[name] for lead in leads]) for name in leads[0]})

    def merge(self, other: Accumulator) -> None:
        """Add what another accumulator of the same kind has.

        Raises:
            FrameError: another horizon, codec, threshold or scale.
        """
        if self._kind() != other._kind():
            raise FrameError(
                f"scores of {other._kind()}",
                expected=f"scores of {self._kind()}",
                fix="evaluate both with the same --thresholds and --scales",
            )
        self._add(other._sums)

    @property
    def sums(self) -> Mapping[str, Doubles]:
        """All that is kept, `(K, ...)` each, to be written down; nothing at first."""
        return self._sums

    def add_sums(self, sums: Mapping[str, Doubles]) -> None:
        """Add what `sums` of another accumulator of the same kind gave."""
        self._add(sums)

    def result(self) -> Scores:
        """Work out the scores of all that was added.

        Raises:
            FrameError: nothing was.
        """
        if not self._sums:
            raise FrameError("no forecast to score", expected="at least one", fix="give sequences")
        whole = {name: values.sum(axis=0, keepdims=True) for name, values in self._sums.items()}
        frames = np.maximum(self._sums[FRAMES], 1)[:, None]
        return Scores(
            per_lead=dict(self._scores(self._sums)),
            overall={name: float(values[0]) for name, values in self._scores(whole)},
            spectra=Spectra(
                self._sums["power_forecast"] / frames, self._sums["power_truth"] / frames
            ),
        )

    def scores_of(self, sums: Mapping[str, Doubles]) -> dict[str, Doubles]:
        """Work out the scores `(n,)` of sums `(n, ...)`; those in `CURVES` may be missing."""
        return dict(self._scores(sums))

    def _kind(self) -> tuple[object, ...]:
        return self.horizon, self.codec, self.thresholds, self.scales

    def _add(self, sums: Mapping[str, Doubles]) -> None:
        for name, values in sums.items():
            self._sums[name] = self._sums[name] + values if name in self._sums else values.copy()

    def _lead(self, forecast: Array, truth: Array, valid: Mask | None) -> dict[str, Doubles]:
        """Sums of one lead time; frames `(N, C, H, W)`."""
        known: Mask = np.asarray(np.isfinite(forecast + truth).all(axis=1))  # (N, H, W)
        known = known if valid is None else known & valid
        scored = known.any(axis=(1, 2))
        forecast, truth, known = forecast[scored], truth[scored], known[scored]
        mask = None if known.all() else known
        guess, seen = (
            np.clip(self.codec.model_from_physical(frames), 0, 1) for frames in (forecast, truth)
        )
        if mask is not None:  # both 0 where nothing counts: no error, and no power of its own
            guess, seen = (np.where(mask[:, None], frames, 0) for frames in (guess, seen))
        error = guess.astype(np.float64) - seen  # (N, C, H, W)
        physical = (forecast.astype(np.float64) - truth)[
            np.broadcast_to(known[:, None], truth.shape)
        ]
        powers = [spectrum.radial_power(frames) for frames in (guess, seen)]
        bands = [spectrum.band_power(power, max(truth.shape[-2:])) for power in powers]
        sums = {
            FRAMES: np.asarray(float(len(truth))),
            "pixels": np.asarray(float(known.sum() * truth.shape[1])),
            "squared": np.square(error).sum(),
            "absolute": np.abs(error).sum(),
            "squared_physical": np.square(physical).sum(),
            "error_physical": physical.sum(),
            "power_forecast": powers[0],
            "power_truth": powers[1],
            "bands": np.stack(bands, axis=-1),
            "counts": events.contingency(forecast, truth, self.thresholds, mask),
            "fractions": events.fraction_sums(forecast, truth, self.thresholds, self.scales, mask),
        }
        if truth.shape[1] > 1:
            sums["squared_first"] = np.square(error[:, 0]).sum()
        if self.codec.units == "1":
            sums["nats"] = images.cross_entropy(guess, seen, mask).sum()
        for name, values in _pictures(guess, seen, mask).items():
            finite = np.isfinite(values)
            sums[name] = values[finite].sum()
            sums[f"{name}_frames"] = np.asarray(float(finite.sum()))
        return {name: np.asarray(value, np.float64) for name, value in sums.items()}

    def _scores(self, sums: Mapping[str, Doubles]) -> Iterator[tuple[str, Doubles]]:
        """Name and `(leads,)` values of every score."""
        frames = sums[FRAMES]
        yield FRAMES, frames
        yield "mse", _mean(sums["squared"], frames)
        if "squared_first" in sums:
            yield "mse_channel_0", _mean(sums["squared_first"], frames)
        yield "mae", _mean(sums["absolute"], frames)
        yield "rmse", np.sqrt(_mean(sums["squared_physical"], sums["pixels"]))
        yield "mean_error", _mean(sums["error_physical"], sums["pixels"])
        for name in _PER_FRAME:
            yield name, _mean(sums[name], sums[f"{name}_frames"])
        if "bands" in sums:  # sums that were saved before there were any lack them
            for n, (low, high) in enumerate(spectrum.BANDS):
                ratio = _mean(sums["bands"][:, n, 0], sums["bands"][:, n, 1])
                yield f"rapsd_{low}-{high}px", ratio
        if "nats" in sums:
            yield "cross_entropy", _mean(sums["nats"], frames)
        for n, threshold in enumerate(self.thresholds):
            counts = sums["counts"][:, n]  # (leads, 3)
            seen = np.where(frames > 0, counts[:, 0] + counts[:, 1], np.nan)
            yield f"observed_{threshold:g}", seen
            yield f"csi_{threshold:g}", events.csi(counts)
            yield f"pod_{threshold:g}", events.pod(counts)
            yield f"far_{threshold:g}", events.far(counts)
            yield f"bias_{threshold:g}", events.bias(counts)
            for m, scale in enumerate(self.scales):
                yield f"fss_{threshold:g}_{scale}px", events.fss(sums["fractions"][:, n, m])


def _pictures(guess: Array, seen: Array, mask: Mask | None) -> dict[str, Doubles]:
    """What is scored picture by picture, `(N,)` each, on floats and on bytes as the papers did."""
    coarse, true = images.as_bytes(guess), images.as_bytes(seen)
    return {
        "psnr": images.psnr(guess, seen, 1.0, mask),
        "psnr_uint8": images.psnr(coarse, true, 255.0, mask),
        "ssim": images.ssim(guess, seen, 1.0, mask),
        "ssim_uint8": images.ssim(coarse, true, 255.0, mask),
    }


def _mean(total: Doubles, count: Doubles) -> Doubles:
    return np.asarray(
        np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    )
