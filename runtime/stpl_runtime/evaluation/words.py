"""An evaluation in words: what each score is, who is better, and what is more than chance."""

from __future__ import annotations

import math

import numpy as np

from stpl_runtime.evaluation.evaluate import MODEL, OTHER, Evaluation
from stpl_runtime.evaluation.spread import COUNTS

_MEANING = {
    "frames": ("frames scored", 0),
    "mse": ("MSE, squared error summed over a frame, in [0, 1]", -1),
    "mse_channel_0": ("MSE of channel 0 alone", -1),
    "mae": ("MAE, absolute error summed over a frame, in [0, 1]", -1),
    "rmse": ("RMSE of a pixel, {units}", -1),
    "mean_error": ("mean error, forecast less observed, {units}", 0),
    "psnr": ("PSNR, dB", 1),
    "psnr_uint8": ("PSNR on bytes as in the papers' code, dB", 1),
    "ssim": ("SSIM", 1),
    "ssim_uint8": ("SSIM on bytes as in the papers' code", 1),
    "cross_entropy": ("cross-entropy of a frame, nats", -1),
    "rapsd": ("power of waves of {0} over the observed, 1 is right", 0),
    "observed": ("pixels observed at {0} {units} or more", 0),
    "csi": ("CSI at {0} {units}", 1),
    "pod": ("POD at {0} {units}", 1),
    "far": ("FAR at {0} {units}", -1),
    "bias": ("frequency bias at {0} {units}, 1 is right", 0),
    "fss": ("FSS at {0} {units}, {1}", 1),
}
"""Kind of score -> what it is, and whether more (1) or less (-1) is better."""


def verdict(evaluation: Evaluation) -> str:
    """At how many lead times the model is better than each baseline, by MSE and by CSI."""
    chosen = headline_scores(evaluation)
    parts = []
    for way, scores in evaluation.scores.items():
        if way == MODEL:
            continue
        wins: list[str] = []
        for name in chosen:
            ours, theirs = evaluation.scores[MODEL].per_lead[name], scores.per_lead[name]
            known = ~(np.isnan(ours) | np.isnan(theirs))
            if known.any():
                ahead = better(name) * (ours - theirs)[known] > 0
                short = title(evaluation, name).partition(",")[0]
                unit = "" if wins else " lead times"
                wins.append(f"{int(ahead.sum())} of {int(known.sum())}{unit} by {short}")
        if wins:
            parts.append(f"than {way} at {', '.join(wins)}")
    if not parts:
        return "No baseline to compare with."
    return f"The model is better {'; '.join(parts)}."


def lead_text(evaluation: Evaluation, step: int) -> str:
    """A lead time: `+15 min`, or `+3` frames where time has no meaning."""
    cadence_s = evaluation.judged.cadence_s
    if cadence_s is None:
        return f"+{step}"
    seconds = step * cadence_s
    for unit, size in (("h", 3600), ("min", 60)):
        if cadence_s >= size and cadence_s % size == 0:
            return f"+{seconds / size:g} {unit}"
    return f"+{seconds:g} s"


def title(evaluation: Evaluation, name: str) -> str:
    """What a score is, in words."""
    kind, *parts = [name] if name in _MEANING else name.split("_")
    return _MEANING[kind][0].format(*parts, units=units_of(evaluation))


def better(name: str) -> int:
    """1 where more is better, -1 where less is, 0 for counts."""
    return _MEANING[name if name in _MEANING else name.split("_")[0]][1]


def number(value: float) -> str:
    """A score for people; a dash where there was nothing to score."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def units_of(evaluation: Evaluation) -> str:
    """The unit of the values, in words."""
    units = evaluation.judged.codec.units
    return "of full scale" if units == "1" else units


def headline_scores(evaluation: Evaluation) -> list[str]:
    """Names of the scores that verdicts go by: MSE, and CSI at each threshold."""
    return ["mse", *(f"csi_{threshold:g}" for threshold in evaluation.thresholds)]


def beyond_chance(evaluation: Evaluation) -> list[str]:
    """Where the model differs from each other forecaster by more than chance; and on what blocks.

    A difference is more than chance where its interval leaves out 0.
    """
    spread = evaluation.spread
    lines = [spread.text]
    for way, found in spread.of_differences.items():
        parts: list[str] = []
        for name in headline_scores(evaluation):
            one = found.per_lead[name]
            known = int(np.isfinite(one.low).sum())
            if known:
                signs = better(name) * one.sign
                ahead, behind = int((signs > 0).sum()), int((signs < 0).sum())
                of = "" if parts else f" of {known} lead times"
                short = title(evaluation, name).partition(",")[0]
                parts.append(f"{short} better at {ahead}{of}, worse at {behind}")
        if parts:
            lines.append(f"Beside {way}, by more than chance: {'; '.join(parts)}.")
    return lines


def chance_word(name: str, sign: int) -> str:
    """What a difference of this sign says of the model; see `stpl_core.scores.blocks.Interval`."""
    if sign == 0:
        return "may be chance"
    direction = better(name) * sign
    return {1: "better", -1: "worse"}.get(direction, "more" if sign > 0 else "less")


def difference_rows(evaluation: Evaluation, name: str) -> list[list[str]]:
    """Lead time, model, other, their difference, its interval, and what that says of the model.

    Nothing of scores that only count, and where nothing was scored. Of all lead times together too.
    """
    if name.partition("_")[0] in COUNTS:
        return []
    ours, theirs = evaluation.scores[MODEL], evaluation.scores[OTHER]
    found = evaluation.spread.of_differences.get(OTHER)
    rows = []
    for k in (*range(evaluation.judged.horizon), None):
        pair = [
            one.overall[name] if k is None else float(one.per_lead[name][k])
            for one in (ours, theirs)
        ]
        cells = [*map(number, pair), number(pair[0] - pair[1])]
        if found is None:
            cells += [number(math.nan)] * 2 + [""]
        else:
            one = found.overall[name] if k is None else found.per_lead[name]
            at = () if k is None else k
            low, high, sign = float(one.low[at]), float(one.high[at]), int(one.sign[at])
            cells += [number(low), number(high), "" if math.isnan(low) else chance_word(name, sign)]
        rows.append(["all" if k is None else lead_text(evaluation, k + 1), *cells])
    known = np.isfinite(ours.per_lead[name]) & np.isfinite(theirs.per_lead[name])
    return rows if known.any() else []
