"""`stpl-deploy evaluate`: a forecaster's scores per lead time, beside those of baselines."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stpl_core.baselines import DAY, WEEK, flow, periodic, persistence
from stpl_core.codec import Array
from stpl_core.errors import UsageError
from stpl_core.grid import Grid
from stpl_core.scores.accumulator import Accumulator, Scores
from stpl_core.scores.chances import ChanceAccumulator, ChanceScores
from stpl_core.scores.ensemble import EnsembleScores
from stpl_core.scores.images import Mask
from stpl_runtime.evaluation.ensembles import EnsembleJudge, ensemble_document
from stpl_runtime.evaluation.subject import Judged, Material

MODEL = "model"
BASELINES = ("persistence", "flow", "day", "week")
"""Words of `--baseline`; `day` and `week` are what was observed that long before."""

_PERIODS = {"day": DAY, "week": WEEK}
DEFAULT_THRESHOLDS = {
    "mm h-1": (0.1, 1.0, 5.0),
    "mm": (0.1, 1.0, 5.0),
    "dBZ": (7.0, 23.0, 34.0),  # the same rain rates, by Z = 200 R^1.6
}
SCALES = (5, 15, 31)
"""Sides of FSS's squares, in pixels."""

_SHOWN = 2
"""Sequences that the report shows as pictures."""
_BLOCK_VALUES = 2**22
"""Values of sequences that are scored at a time."""

Forecaster = Callable[[slice], Array]
"""Which sequences -> `(n, K, C, H, W)`, physical units; NaN where there is no forecast."""


@dataclass(frozen=True)
class Shown:
    """A sequence for the pictures."""

    frames: Array
    """`(T + K, C, H, W)`, physical units."""
    valid: Mask | None
    forecasts: dict[str, Array]
    """`(K, C, H, W)` of each forecaster."""
    grid: Grid | None = None
    """Where the pixels lie; None where it is not known."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found."""

    judged: Judged
    data: str
    protocol: str
    """What the model and the baselines saw, and what was scored, in words."""
    sequences: int
    period: tuple[str, str] | None
    """When the first and the last frame were observed; None where time has no meaning."""
    thresholds: tuple[float, ...]
    scales: tuple[int, ...]
    scores: dict[str, Scores]
    """Of the model and of each baseline, by its name."""
    shown: tuple[Shown, ...]
    chances: ChanceScores | None = None
    """Of the chances of events; None where the model gives none."""
    ensemble: EnsembleScores | None = None
    """Of an ensemble; None where none was asked for."""

    @property
    def names(self) -> list[str]:
        """Scores that there are, in their order."""
        return list(self.scores[MODEL].overall)

    def document(self) -> dict[str, Any]:
        """The evaluation as JSON: `scores` -> forecaster -> `mean` and `per_lead` -> score."""
        judged = self.judged
        return {
            "model": judged.name,
            "engine": judged.how,
            "data": self.data,
            "protocol": self.protocol,
            "sequences": self.sequences,
            "period": self.period,
            "context": judged.context,
            "horizon": judged.horizon,
            "frame": list(judged.frame),
            "quantity": judged.codec.quantity,
            "units": judged.codec.units,
            "cadence_s": judged.cadence_s,
            "thresholds": list(self.thresholds),
            "scales_px": list(self.scales),
            "scores": {
                name: {
                    **scores.document(),
                    "spectrum": scores.spectra.forecast.tolist(),
                }
                for name, scores in self.scores.items()
            },
            "spectrum_of_truth": self.scores[MODEL].spectra.truth.tolist(),
            **({} if self.chances is None else {"chances": _chances_document(self.chances)}),
            **({} if self.ensemble is None else {"ensemble": ensemble_document(self.ensemble)}),
        }

    def table(self) -> str:
        """The scores as CSV: a line for each forecaster and lead time, and one for the mean."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["forecast", "lead", "lead_s", *self.names])
        cadence = self.judged.cadence_s
        for name, scores in self.scores.items():
            for k in range(self.judged.horizon):
                values = [repr(float(scores.per_lead[score][k])) for score in self.names]
                lead_s = "" if cadence is None else f"{cadence * (k + 1):g}"
                writer.writerow([name, k + 1, lead_s, *values])
            mean = [repr(scores.overall[score]) for score in self.names]
            writer.writerow([name, "mean", "", *mean])
        return text.getvalue()


def evaluate(
    judged: Judged,
    material: Material,
    *,
    thresholds: Sequence[float] | None = None,
    scales: Sequence[int] = SCALES,
    baselines: Sequence[str] | None = None,
    members: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluation:
    """Forecast every sequence and score it.

    Args:
        judged: the forecaster.
        material: the sequences.
        thresholds: physical units, for events; None takes those of the unit, if it has some.
        scales: sides of FSS's squares in pixels; those larger than the frame are left out.
        baselines: words of `BASELINES`; None takes all that the data and this machine allow.
        members: of an ensemble, to be scored too; None: none.
        progress: called with how many sequences are done, and of how many.

    Raises:
        UsageError: an unknown baseline, one that these data cannot have, or an ensemble of a model
            that gives no chances.
        MissingExtraError: the baseline `flow` without OpenCV.
    """
    limits = tuple(DEFAULT_THRESHOLDS.get(judged.codec.units, ()) if thresholds is None
                   else sorted(set(thresholds)))  # fmt: skip
    sides = tuple(side for side in sorted(set(scales)) if side <= min(judged.frame[1:]))
    model = _Model(judged, material)
    model.ensemble = None if members is None else EnsembleJudge(judged, members)
    ways: dict[str, Forecaster] = {MODEL: model, **_baselines(judged, material, baselines)}
    sums = {name: Accumulator(judged.horizon, judged.codec, limits, sides) for name in ways}
    shown: list[Shown] = []
    count, per_block = len(material.frames), max(1, _BLOCK_VALUES // material.frames[0].size)
    for start in range(0, count, per_block):
        progress(start, count)
        rows = slice(start, min(start + per_block, count))
        truth = material.frames[rows, judged.context :]  # (n, K, C, H, W)
        valid = None if material.valid is None else material.valid[rows]
        made = {name: way(rows) for name, way in ways.items()}
        for name, forecast in made.items():
            sums[name].update(forecast, truth, valid)
        shown += [
            _shown(material, start + n, {name: forecast[n] for name, forecast in made.items()})
            for n in range(min(_SHOWN - len(shown), len(truth)))
        ]
    progress(count, count)
    return Evaluation(
        judged=judged,
        data=material.about,
        protocol=material.protocol,
        sequences=count,
        period=_period(material),
        thresholds=limits,
        scales=sides,
        scores={name: one.result() for name, one in sums.items()},
        shown=tuple(shown),
        chances=None if model.chances is None else model.chances.result(),
        ensemble=None if model.ensemble is None else model.ensemble.result(),
    )


def _shown(material: Material, number: int, forecasts: dict[str, Array]) -> Shown:
    return Shown(
        material.frames[number],
        None if material.valid is None else material.valid[number],
        forecasts,
        material.grids[number] if material.grids else None,
    )


def _chances_document(scores: ChanceScores) -> dict[str, Any]:
    """By threshold: Brier score and its skill per lead time, reliability over all of them."""
    found = []
    for q, threshold in enumerate(scores.thresholds):
        count, forecast, observed = scores.reliability(q)
        found.append(
            {
                "threshold": threshold,
                "brier": scores.brier[:, q].tolist(),
                "brier_of_climatology": scores.climatology[:, q].tolist(),
                "skill": scores.skill[:, q].tolist(),
                "reliability": {
                    "pixels": count.tolist(),
                    "mean_chance": forecast.tolist(),
                    "observed_frequency": observed.tolist(),
                },
            }
        )
    return {"by_threshold": found}


def _period(material: Material) -> tuple[str, str] | None:
    times = material.times
    if times is None or np.isnat(times).any():
        return None
    first, last = (np.datetime_as_string(end, unit="s") for end in (times.min(), times.max()))
    return f"{first}Z", f"{last}Z"


@dataclass
class _Model:
    """The model as a `Forecaster`, which adds its chances up beside."""

    judged: Judged
    material: Material
    chances: ChanceAccumulator | None = None
    ensemble: EnsembleJudge | None = None

    def __call__(self, rows: slice) -> Array:
        """See `Forecaster`."""
        judged, material = self.judged, self.material
        past, truth = np.split(material.frames[rows], [judged.context], axis=1)
        if judged.likely is None:
            return judged.forecast(past)
        forecast, chances = judged.likely(past)
        if self.chances is None:
            self.chances = ChanceAccumulator(judged.horizon, chances.thresholds)
        valid = None if material.valid is None else material.valid[rows]
        self.chances.update(chances.values, truth, valid)
        if self.ensemble is not None:
            self.ensemble.update(rows.start, material.frames[rows], forecast, chances, valid)
        return forecast


def _baselines(
    judged: Judged, material: Material, wanted: Sequence[str] | None
) -> dict[str, Forecaster]:
    for word in wanted or ():
        if word not in BASELINES:
            raise UsageError(
                f"unknown baseline {word}",
                expected=f"one of {', '.join(BASELINES)}",
                fix="--baseline persistence,flow",
            )
    past, horizon = judged.context, judged.horizon
    ways: dict[str, Forecaster] = {}
    if wanted is None or "persistence" in wanted:
        ways["persistence"] = lambda rows: persistence(material.frames[rows, :past], horizon)
    if "flow" in wanted if wanted is not None else importlib.util.find_spec("cv2") is not None:
        ways["flow"] = _flow(judged, material)
    for word, period in _PERIODS.items():
        if wanted is not None and word not in wanted:
            continue
        found = (
            None
            if material.times is None
            else periodic(material.frames, material.times, horizon, period)
        )
        if found is not None and np.isfinite(found).any():
            ways[word] = _rows_of(found)
        elif wanted is not None:
            raise UsageError(
                f"no frame of a {word} before in {material.about}",
                expected=f"an .npz with `time`, and sequences that cover more than a {word}",
                fix=f"leave {word} out of --baseline",
            )
    return ways


def _flow(judged: Judged, material: Material) -> Forecaster:
    """Along the motion of the whole field, where it is known; cropped to the model's pixels."""
    past, horizon, units = judged.context, judged.horizon, judged.codec.units
    around = material.surroundings
    if around is None:
        return lambda rows: flow(material.frames[rows, :past], horizon, units)
    return lambda rows: around.forecast(rows, lambda fields: flow(fields, horizon, units))


def _rows_of(forecasts: Array) -> Forecaster:
    return lambda rows: forecasts[rows]
