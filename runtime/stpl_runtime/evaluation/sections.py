"""Sections of the report that only some evaluations have: a second model, FSS, chances."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from stpl_core.scores.chances import ChanceScores
from stpl_core.scores.images import Doubles
from stpl_runtime.evaluation.chances import skill_over_flow
from stpl_runtime.evaluation.drawing import COLOURS, INK, folded, plain_row, svg, table
from stpl_runtime.evaluation.evaluate import OTHER, Evaluation
from stpl_runtime.evaluation.words import (
    difference_rows,
    headline_scores,
    lead_text,
    number,
    title,
    units_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compared_section(evaluation: Evaluation) -> list[str]:
    """The model less the one that it is compared with, at each lead time."""
    other = evaluation.other
    if other is None:
        return []
    first = headline_scores(evaluation)
    heads = ["lead", "model", OTHER, "difference", "low", "high", ""]
    tables = [
        folded(
            title(evaluation, name),
            table(heads, [plain_row(line[0], line[1:]) for line in lines]),
            is_open=name in first,
        )
        for name in sorted(evaluation.names, key=lambda name: name not in first)
        if (lines := difference_rows(evaluation, name))
    ]
    return [
        "<h2>Beside the other model</h2>",
        (
            f"<p>{escape(OTHER)}: {escape(other.name)}, {escape(other.how)}. The difference is "
            "model less other, on the same pixels. It is more than chance where its interval "
            "leaves out 0; of twenty such differences about one is chance all the same.</p>"
        ),
        *tables,
    ]


def fss_section(evaluation: Evaluation) -> list[str]:
    """FSS of each threshold, scale by lead time."""
    if not evaluation.scales or not evaluation.thresholds:
        return []
    heads = ["", *(lead_text(evaluation, k + 1) for k in range(evaluation.judged.horizon))]
    tables = []
    for threshold in evaluation.thresholds:
        rows = [
            plain_row(
                f"{scale} px, {way}",
                [number(float(value)) for value in scores.per_lead[f"fss_{threshold:g}_{scale}px"]],
            )
            for scale in evaluation.scales
            for way, scores in evaluation.scores.items()
        ]
        text = f"FSS at {threshold:g} {units_of(evaluation)}"
        tables.append(folded(text, table(heads, rows), is_open=True))
    return ["<h2>Fractions skill score, by scale</h2>", *tables]


def chances_section(evaluation: Evaluation) -> list[str]:
    """Brier skill, reliability and ROC, where the model gives chances."""
    scores = evaluation.chances
    if scores is None:
        return []
    names = [f"≥ {threshold:g} {units_of(evaluation)}" for threshold in scores.thresholds]
    drawn = [
        svg(f"{kind} {q}", f"{text}, {name}", draw(scores, q))
        for kind, text, draw in (
            ("reliability", "Reliability of chances", _reliability),
            ("roc", "ROC of chances", _roc),
        )
        for q, name in enumerate(names)
    ]
    over_flow = skill_over_flow(evaluation.chances, evaluation.flow_brier)
    return [
        "<h2>Chances</h2>",
        (
            "<p>Brier skill score over climatology: 1 is perfect, 0 no better than the share of "
            "pixels with the event. Reliability: how often the event happened where its chance was "
            "so high, at all lead times; on the dotted line chances are right.</p>"
        ),
        _by_lead(evaluation, names, scores.skill),
        *(
            []
            if over_flow is None
            else [
                (
                    "<p>Brier skill score over flow: above 0 the chances are better than the share "
                    "of pixels with the event around each pixel of flow's forecast, in squares of "
                    f"{', '.join(map(str, evaluation.flow_brier))} pixels, whichever is best.</p>"
                ),
                _by_lead(evaluation, names, over_flow),
            ]
        ),
        (
            "<p>Area below the ROC curve: 1 tells pixels with the event from those without, 0.5 "
            "(the dotted line) does not. It does not see whether chances are too high or low.</p>"
        ),
        _by_lead(evaluation, names, scores.roc_area),
        f'<div class="curves">{"".join(drawn)}</div>',
    ]


def _by_lead(evaluation: Evaluation, names: list[str], found: Doubles) -> str:
    """A table of `(K, Q)` numbers."""
    rows = [
        plain_row(lead_text(evaluation, k + 1), [number(float(value)) for value in values])
        for k, values in enumerate(found)
    ]
    return table(["lead", *names], rows)


def _reliability(scores: ChanceScores, q: int) -> Any:
    count, forecast, observed = scores.reliability(q)
    known = count > 0

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle=":")
        axes.plot(forecast[known], observed[known], color=COLOURS[0], linewidth=2.2, marker=".")
        axes.set_xlabel("mean chance")
        axes.set_ylabel("observed frequency")

    return draw


def _roc(scores: ChanceScores, q: int) -> Any:
    _, false, true, area = scores.roc(q)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle=":")
        axes.plot(false, true, color=COLOURS[0], linewidth=2.2, marker=".")
        axes.set_xlabel(f"false alarm rate (area {number(area)})")
        axes.set_ylabel("hit rate")

    return draw
