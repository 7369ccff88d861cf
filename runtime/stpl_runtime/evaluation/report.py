"""The report of `evaluate`: one HTML file with everything inside, for light and for dark screens.

Curves are SVG whose ink is the page's own; pictures have the colours of
`stpl_core.drawing.colours`, the same for every forecaster, with their units.
"""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.drawing.colours import NO_DATA_COLOUR, NO_ECHO_COLOUR, Colour, ColourMap, colour_map
from stpl_core.drawing.maps import with_map
from stpl_core.drawing.pictures import frame_picture, legend_entries, png_of, thinned
from stpl_runtime.evaluation.drawing import COLOURS, INK, folded, lead_axis, score_row, svg, table
from stpl_runtime.evaluation.ensembles import ensemble_section
from stpl_runtime.evaluation.evaluate import MODEL, Evaluation, Shown
from stpl_runtime.evaluation.sections import chances_section, compared_section, fss_section
from stpl_runtime.evaluation.words import (
    better,
    beyond_chance,
    lead_text,
    number,
    title,
    units_of,
    verdict,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST_SIDE = 160
_MOST_PICTURES = 10

_STYLE = """
:root { color-scheme: light dark;
  --paper: #fcfcfa; --ink: #22262b; --soft: #6b747d; --line: #d8dbd7; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e3e6e8; --soft: #98a1a9; --line: #363c43; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  max-width: 74rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, figcaption, summary { color: var(--soft); }
.verdict { color: var(--ink); font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } td.best { font-weight: 650; }
.means td:first-child { min-width: 11rem; }
.wide { overflow-x: auto; } .curves { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } .curves svg { width: 22rem; max-width: 100%; height: auto;
  color: var(--ink); }
.strip td { border: 0; padding: 1px; text-align: center; } .strip img { display: block;
  width: clamp(4.5rem, calc((min(100vw, 74rem) - 10rem) / var(--n)), 10rem); height: auto;
  image-rendering: pixelated;
  border: 1px solid var(--line); }
.strip td:first-child { padding-right: .7rem; position: sticky; left: 0;
  background: var(--paper); }
.key span { display: inline-block; margin-right: .9rem; white-space: nowrap; }
.key i { display: inline-block; width: 1.1em; height: 1.1em; margin-right: .35em;
  vertical-align: -.2em; border: 1px solid var(--line); }
@media (max-width: 30rem) { table { font-size: .85rem; } th, td { padding: .15rem .25rem; }
  .means td:first-child { min-width: 6rem; } }
"""


def html_report(evaluation: Evaluation) -> str:
    """The whole report."""
    judged = evaluation.judged
    cadence = "" if judged.cadence_s is None else f", a frame every {judged.cadence_s:g} s"
    period = "" if evaluation.period is None else f" {' to '.join(evaluation.period)}."
    facts = (
        f"{judged.how}. {judged.context} frames in, {judged.horizon} out{cadence}, "
        f"{'x'.join(map(str, judged.frame))}. {judged.codec.quantity}, "
        f"{units_of(evaluation)}. {evaluation.sequences} sequences of {evaluation.data}."
        f"{period}"
    )
    body = [
        f"<h1>{escape(judged.name)}</h1>",
        f'<p class="verdict">{escape(verdict(evaluation))}</p>',
        f"<p>{'<br>'.join(map(escape, beyond_chance(evaluation)))}</p>",
        f"<p>{escape(facts)}</p>",
        f"<p>Protocol: {escape(evaluation.protocol)}.</p>",
        "<h2>All lead times together</h2>",
        _means(evaluation),
        "<h2>By lead time</h2>",
        _ways(evaluation),
        f'<div class="curves">{"".join(_curves(evaluation))}</div>',
        *compared_section(evaluation),
        *fss_section(evaluation),
        *chances_section(evaluation),
        *_ensemble(evaluation),
        "<h2>Pictures</h2>",
        _legend(evaluation),
        *(_strip(evaluation, n, shown) for n, shown in enumerate(evaluation.shown)),
        "<h2>Numbers</h2>",
        *(_numbers(evaluation, name) for name in evaluation.names),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(judged.name)}</title><style>{_STYLE}</style></head>\n<body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _means(evaluation: Evaluation) -> str:
    rows = []
    for name in evaluation.names:
        values = [scores.overall[name] for scores in evaluation.scores.values()]
        rows.append(score_row(title(evaluation, name), values, better(name)))
    return table(["", *evaluation.scores], rows, "means")


def _numbers(evaluation: Evaluation, name: str) -> str:
    rows = [
        score_row(
            lead_text(evaluation, k + 1),
            [float(scores.per_lead[name][k]) for scores in evaluation.scores.values()],
            better(name),
        )
        for k in range(evaluation.judged.horizon)
    ]
    return folded(title(evaluation, name), table(["lead", *evaluation.scores], rows))


def _ways(evaluation: Evaluation) -> str:
    """Which colour is whose, once for all curves."""
    spans = [
        f'<span><i style="background: {colour}"></i>{escape(way)}</span>'
        for colour, way in zip(COLOURS, evaluation.scores, strict=False)
    ]
    shaded = "<span>shaded: intervals</span>" if evaluation.spread.known else ""
    return (
        f'<p class="key">{"".join(spans)}<span>dotted, in the spectrum: observed</span>{shaded}</p>'
    )


def _curves(evaluation: Evaluation) -> list[str]:
    scale, label = lead_axis(evaluation.judged.cadence_s)
    leads = scale * np.arange(1, evaluation.judged.horizon + 1)
    figures = []
    for name in evaluation.names:
        lines = {way: scores.per_lead[name] for way, scores in evaluation.scores.items()}
        if name == "frames" or all(np.isnan(values).all() for values in lines.values()):
            continue

        def draw(axes: Axes, lines: dict[str, Any] = lines, name: str = name) -> None:
            for colour, (way, values) in zip(COLOURS, lines.items(), strict=False):
                width = 2.2 if way == MODEL else 1.4
                axes.plot(leads, values, color=colour, linewidth=width, marker=".")
                found = evaluation.spread.of_scores.get(way)
                if found is not None and name in found.per_lead:
                    one = found.per_lead[name]
                    axes.fill_between(leads, one.low, one.high, color=colour, alpha=0.15, lw=0)
            axes.set_xlabel(label)

        figures.append(svg(name, title(evaluation, name), draw))
    figures.append(svg("spectrum", "Power spectrum at the last lead time", _spectrum(evaluation)))
    return figures


def _ensemble(evaluation: Evaluation) -> list[str]:
    """CRPS and ranks, where an ensemble was asked for."""
    return ensemble_section(
        evaluation.ensemble,
        units_of(evaluation),
        lambda step: lead_text(evaluation, step),
        number,
    )


def _spectrum(evaluation: Evaluation) -> Any:
    truth = evaluation.scores[MODEL].spectra.truth[-1]
    waves = np.arange(1, len(truth))

    def draw(axes: Axes) -> None:
        for colour, scores in zip(COLOURS, evaluation.scores.values(), strict=False):
            power = scores.spectra.forecast[-1][1:]
            if (power > 0).any():
                axes.loglog(waves, power, color=colour, linewidth=1.4)
        if (truth[1:] > 0).any():
            axes.loglog(waves, truth[1:], color=INK, linewidth=1.2, linestyle=":")
        axes.set_xlabel("waves across the frame")

    return draw


def _strip(evaluation: Evaluation, n: int, shown: Shown) -> str:
    """Observed, and below it what each forecaster made of it."""
    judged = evaluation.judged
    at = np.linspace(0, judged.horizon - 1, min(judged.horizon, _MOST_PICTURES)).round().astype(int)
    colours = _map(evaluation)
    past, future = shown.frames[judged.context - 1], shown.frames[judged.context :]
    heads = ["", "last read", *(lead_text(evaluation, k + 1) for k in at)]
    rows = [("observed", [past, *future[at]])]
    rows += [(way, [None, *forecast[at]]) for way, forecast in shown.forecasts.items()]
    lines = ["".join(f"<td>{escape(head)}</td>" for head in heads)]
    for way, frames in rows:
        cells = [
            _picture(frame, shown, colours, f"{way}, {head}")
            for head, frame in zip(heads[1:], frames, strict=True)
        ]
        lines.append(f"<td>{escape(way)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells))
    inside = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<figure class="wide"><figcaption>Sequence {n + 1}</figcaption>'
        f'<table class="strip" style="--n: {len(heads) - 1}">{inside}</table></figure>'
    )


def _map(evaluation: Evaluation) -> ColourMap:
    codec = evaluation.judged.codec
    return colour_map(codec.units, codec.low, codec.high)


def _picture(frame: Array | None, shown: Shown, colours: ColourMap, text: str) -> str:
    if frame is None:
        return ""
    values = thinned(frame, 2 * _LONGEST_SIDE)
    seen = None if shown.valid is None else thinned(shown.valid, 2 * _LONGEST_SIDE)
    picture = frame_picture(values, colours, observed=seen, marks_no_echo=True)
    scale = _LONGEST_SIDE / max(values.shape[1:])
    if shown.grid is not None:
        from PIL import Image

        picture = np.asarray(with_map(Image.fromarray(picture), shown.grid, shrunk=1 / scale))
    height, width = (max(1, round(scale * side)) for side in values.shape[1:])
    data = base64.b64encode(png_of(picture, 9)).decode()
    size = f'width="{width}" height="{height}"'
    return f'<img {size} alt="{escape(text)}" src="data:image/png;base64,{data}">'


def _legend(evaluation: Evaluation) -> str:
    """What each colour is, with the unit."""
    colours = _map(evaluation)
    boxes: list[tuple[Colour, str]] = []
    for colour, low, high in legend_entries(colours, 6):
        if not colours.classes:
            boxes.append((colour, f"{low:.4g}"))
        elif low is None:
            boxes.append((NO_ECHO_COLOUR, f"< {high:g}"))
        else:
            boxes.append((colour, f"≥ {low:g}"))
    if colours.classes or any(shown.valid is not None for shown in evaluation.shown):
        boxes.append((NO_DATA_COLOUR, "not observed"))
    spans = "".join(
        f'<span><i style="background: rgb{colour}"></i>{escape(text)}</span>'
        for colour, text in boxes
    )
    return f'<p class="key"><span>{escape(units_of(evaluation))}</span>{spans}</p>'
