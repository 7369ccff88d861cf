"""`stpl-deploy evaluate`: a forecaster's scores per lead time, beside those of baselines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.grid import Grid
from stpl_core.scores.accumulator import Accumulator, Scores
from stpl_core.scores.chances import ChanceAccumulator, ChanceScores
from stpl_core.scores.ensemble import EnsembleScores
from stpl_core.scores.images import Doubles, Mask
from stpl_core.scores.neighbourhood import NeighbourhoodBrier
from stpl_runtime.evaluation.baseline import FLOW, Forecaster, open_baselines
from stpl_runtime.evaluation.chances import chances_document
from stpl_runtime.evaluation.ensembles import EnsembleJudge, ensemble_document
from stpl_runtime.evaluation.spread import Spread, SpreadSums, by_block
from stpl_runtime.evaluation.subject import Judged, Material

MODEL = "model"
OTHER = "other"
"""The model that `--compare` names."""
DEFAULT_THRESHOLDS = {
    "mm h-1": (0.1, 1.0, 5.0),
    "mm": (0.1, 1.0, 5.0),
    "dBZ": (7.0, 23.0, 34.0),  # the same rain rates, by Z = 200 R^1.6
}
SCALES = (5, 15, 31)
"""Sides of FSS's squares, in pixels."""

_SHOWN = 2
"""Sequences that the report shows as pictures."""
_BATCH_VALUES = 2**22
"""Values of sequences that are scored at a time."""


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
    spread: Spread
    """How far the scores would differ on other storms."""
    other: Judged | None = None
    """The model that this one is compared with; its scores are those of `OTHER`."""
    chances: ChanceScores | None = None
    """Of the chances of events; None where the model gives none."""
    flow_brier: Mapping[int, Doubles] = field(default_factory=dict)
    """Brier scores `(K, Q)` of flow's shares of events in squares of so many pixels; empty without
    flow or without chances."""
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
            "blocks": self.spread.document(),
            **({} if self.other is None else {"other": _other_document(self.other)}),
            "scores": {
                name: {
                    **scores.document(),
                    **self.spread.scores_document(name),
                    "spectrum": scores.spectra.forecast.tolist(),
                }
                for name, scores in self.scores.items()
            },
            **self.spread.differences_document(self.scores, MODEL),
            "spectrum_of_truth": self.scores[MODEL].spectra.truth.tolist(),
            **self._chances_document(),
            **({} if self.ensemble is None else {"ensemble": ensemble_document(self.ensemble)}),
        }

    def _chances_document(self) -> dict[str, Any]:
        if self.chances is None:
            return {}
        return {"chances": chances_document(self.chances, self.flow_brier)}

    def table(self) -> str:
        """The scores as CSV: a line for each forecaster and lead time, and one for the mean.

        The ends of the intervals follow all scores, as `mse_low` and `mse_high`.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        found = self.spread.of_scores.get(MODEL)
        ends = [] if found is None else list(found.overall)
        columns = [f"{score}_{end}" for score in ends for end in ("low", "high")]
        writer.writerow(["forecast", "lead", "lead_s", *self.names, *columns])
        cadence = self.judged.cadence_s
        for name, scores in self.scores.items():
            for k in range(self.judged.horizon):
                values = [float(scores.per_lead[score][k]) for score in self.names]
                for score in ends:
                    one = self.spread.of_scores[name].per_lead[score]
                    values += [float(one.low[k]), float(one.high[k])]
                lead_s = "" if cadence is None else f"{cadence * (k + 1):g}"
                writer.writerow([name, k + 1, lead_s, *map(repr, values)])
            values = [scores.overall[score] for score in self.names]
            for score in ends:
                one = self.spread.of_scores[name].overall[score]
                values += [float(one.low), float(one.high)]
            writer.writerow([name, "mean", "", *map(repr, values)])
        return text.getvalue()


def evaluate(
    judged: Judged,
    material: Material,
    *,
    thresholds: Sequence[float] | None = None,
    scales: Sequence[int] = SCALES,
    baselines: Sequence[str] | None = None,
    other: Judged | None = None,
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
        other: a model to compare with, made to fit by `stpl_runtime.evaluation.pair`.
        members: of an ensemble, to be scored too; None: none.
        progress: called with how many sequences are done, and of how many.

    Raises:
        UsageError: an unknown baseline, one that these data cannot have, or an ensemble of a model
            that gives no chances.
        EnvironmentFault: the library of a baseline is not installed, or it failed.
    """
    limits = tuple(DEFAULT_THRESHOLDS.get(judged.codec.units, ()) if thresholds is None
                   else sorted(set(thresholds)))  # fmt: skip
    sides = tuple(side for side in sorted(set(scales)) if side <= min(judged.frame[1:]))
    model = _Model(judged, material)
    model.ensemble = None if members is None else EnsembleJudge(judged, members)
    ways: dict[str, Forecaster] = {MODEL: model}
    if other is not None:
        ways[OTHER] = _Model(other, material)
    ways |= open_baselines(judged, material, baselines)
    scored = _score(ways, judged, material, (limits, sides), progress)
    return Evaluation(
        judged=judged,
        data=material.about,
        protocol=material.protocol,
        sequences=len(material.frames),
        period=_period(material),
        thresholds=limits,
        scales=sides,
        scores={name: one.result() for name, one in scored.sums.items()},
        shown=tuple(scored.shown),
        spread=scored.spread.result(scored.sums),
        other=other,
        chances=None if model.chances is None else model.chances.result(),
        flow_brier={} if scored.flow is None else scored.flow.result(),
        ensemble=None if model.ensemble is None else model.ensemble.result(),
    )


@dataclass
class _Scored:
    """The sums of each forecaster, over all sequences and by block."""

    sums: dict[str, Accumulator]
    spread: SpreadSums
    shown: list[Shown] = field(default_factory=list)
    flow: NeighbourhoodBrier | None = None
    """Of the chances that flow's neighbourhoods give, where the model gives some too."""


def _score(
    ways: dict[str, Forecaster],
    judged: Judged,
    material: Material,
    asked: tuple[Sequence[float], Sequence[int]],
    progress: Callable[[int, int], None],
) -> _Scored:
    """Forecast every sequence and add its sums up; `asked` are thresholds and scales."""

    def nothing() -> Accumulator:
        return Accumulator(judged.horizon, judged.codec, *asked)

    done = _Scored({name: nothing() for name in ways}, SpreadSums(material, list(ways)))
    count, per_batch = len(material.frames), max(1, _BATCH_VALUES // material.frames[0].size)
    for start in range(0, count, per_batch):
        progress(start, count)
        rows = slice(start, min(start + per_batch, count))
        truth = material.frames[rows, judged.context :]  # (n, K, C, H, W)
        valid = None if material.valid is None else material.valid[rows]
        made = {name: way(rows) for name, way in ways.items()}
        for block, those in by_block(rows, done.spread.labels):
            for name, forecast in made.items():
                part = nothing()
                part.update(forecast[those], truth[those], None if valid is None else valid[those])
                done.sums[name].merge(part)
                done.spread.add(name, block, part.sums)
        model = ways[MODEL]
        if isinstance(model, _Model) and model.chances is not None and FLOW in made:
            thresholds = model.chances.thresholds
            done.flow = done.flow or NeighbourhoodBrier(judged.horizon, thresholds, asked[1])
            done.flow.update(made[FLOW], truth, valid)
        done.shown.extend(
            _shown(material, start + n, {name: forecast[n] for name, forecast in made.items()})
            for n in range(min(_SHOWN - len(done.shown), len(truth)))
        )
    progress(count, count)
    return done


def _shown(material: Material, number: int, forecasts: dict[str, Array]) -> Shown:
    return Shown(
        material.frames[number],
        None if material.valid is None else material.valid[number],
        forecasts,
        material.grids[number] if material.grids else None,
    )


def _other_document(other: Judged) -> dict[str, Any]:
    return {"model": other.name, "engine": other.how}


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
