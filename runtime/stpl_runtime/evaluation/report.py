"""The report of `evaluate`: one HTML file with everything inside, for light and for dark screens.

Curves are SVG whose ink is the page's own; pictures have the colours of
`stpl_core.drawing.colours`, the same for every forecaster, with their units.
"""

from __future__ import annotations

import base64
import io
import math
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.drawing.colours import NO_DATA_COLOUR, NO_ECHO_COLOUR, Colour, ColourMap, colour_map
from stpl_core.drawing.maps import with_map
from stpl_core.drawing.pictures import frame_picture, legend_entries, png_of, thinned
from stpl_core.scores.chances import ChanceScores
from stpl_runtime.evaluation.ensembles import ensemble_section
from stpl_runtime.evaluation.evaluate import MODEL, Evaluation, Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#d9622b", "#7a8794", "#2f8fbf", "#4a9a5b", "#a06cc0")
"""Of the model and its baselines; readable on white and on black."""
_INK = "#010203"
"""Stands for the page's ink until the SVG is written."""
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
    "observed": ("pixels observed at {0} {units} or more", 0),
    "csi": ("CSI at {0} {units}", 1),
    "pod": ("POD at {0} {units}", 1),
    "far": ("FAR at {0} {units}", -1),
    "bias": ("frequency bias at {0} {units}, 1 is right", 0),
    "fss": ("FSS at {0} {units}, {1}", 1),
}
"""Kind of score -> what it is, and whether more (1) or less (-1) is better."""


def html_report(evaluation: Evaluation) -> str:
    """The whole report."""
    judged = evaluation.judged
    cadence = "" if judged.cadence_s is None else f", a frame every {judged.cadence_s:g} s"
    period = "" if evaluation.period is None else f" {' to '.join(evaluation.period)}."
    facts = (
        f"{judged.how}. {judged.context} frames in, {judged.horizon} out{cadence}, "
        f"{'x'.join(map(str, judged.frame))}. {judged.codec.quantity}, "
        f"{_units(evaluation)}. {evaluation.sequences} sequences of {evaluation.data}."
        f"{period}"
    )
    body = [
        f"<h1>{escape(judged.name)}</h1>",
        f'<p class="verdict">{escape(verdict(evaluation))}</p>',
        f"<p>{escape(facts)}</p>",
        f"<p>Protocol: {escape(evaluation.protocol)}.</p>",
        "<h2>All lead times together</h2>",
        _means(evaluation),
        "<h2>By lead time</h2>",
        _ways(evaluation),
        f'<div class="curves">{"".join(_curves(evaluation))}</div>',
        *_chances(evaluation),
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


def verdict(evaluation: Evaluation) -> str:
    """At how many lead times the model is better than each baseline, by MSE and by CSI."""
    chosen = ["mse", *(f"csi_{threshold:g}" for threshold in evaluation.thresholds)]
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
    return _MEANING[kind][0].format(*parts, units=_units(evaluation))


def better(name: str) -> int:
    """1 where more is better, -1 where less is, 0 for counts."""
    return _MEANING[name if name in _MEANING else name.split("_")[0]][1]


def number(value: float) -> str:
    """A score for people; a dash where there was nothing to score."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def _units(evaluation: Evaluation) -> str:
    units = evaluation.judged.codec.units
    return "of full scale" if units == "1" else units


def _means(evaluation: Evaluation) -> str:
    rows = []
    for name in evaluation.names:
        values = [scores.overall[name] for scores in evaluation.scores.values()]
        rows.append(_row(title(evaluation, name), values, better(name)))
    return _table(["", *evaluation.scores], rows, "means")


def _numbers(evaluation: Evaluation, name: str) -> str:
    rows = [
        _row(
            lead_text(evaluation, k + 1),
            [float(scores.per_lead[name][k]) for scores in evaluation.scores.values()],
            better(name),
        )
        for k in range(evaluation.judged.horizon)
    ]
    table = _table(["lead", *evaluation.scores], rows)
    return f"<details><summary>{escape(title(evaluation, name))}</summary>{table}</details>"


def _row(head: str, values: list[float], sign: int) -> str:
    known = [sign * value for value in values if not math.isnan(value)]
    best = max(known) if sign and known else math.nan
    marks = [' class="best"' if sign * value == best else "" for value in values]
    cells = [f"<td{mark}>{number(value)}</td>" for mark, value in zip(marks, values, strict=True)]
    return f"<tr><td>{escape(head)}</td>{''.join(cells)}</tr>"


def _table(heads: list[str], rows: list[str], kind: str = "") -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    inside = f"<tr>{top}</tr>{''.join(rows)}"
    return f'<div class="wide"><table class="{kind}">{inside}</table></div>'


def _ways(evaluation: Evaluation) -> str:
    """Which colour is whose, once for all curves."""
    spans = [
        f'<span><i style="background: {colour}"></i>{escape(way)}</span>'
        for colour, way in zip(_COLOURS, evaluation.scores, strict=False)
    ]
    return f'<p class="key">{"".join(spans)}<span>dotted, in the spectrum: observed</span></p>'


def _curves(evaluation: Evaluation) -> list[str]:
    scale, label = _lead_axis(evaluation.judged.cadence_s)
    leads = scale * np.arange(1, evaluation.judged.horizon + 1)
    figures = []
    for name in evaluation.names:
        lines = {way: scores.per_lead[name] for way, scores in evaluation.scores.items()}
        if name == "frames" or all(np.isnan(values).all() for values in lines.values()):
            continue

        def draw(axes: Axes, lines: dict[str, Any] = lines) -> None:
            for colour, (way, values) in zip(_COLOURS, lines.items(), strict=False):
                width = 2.2 if way == MODEL else 1.4
                axes.plot(leads, values, color=colour, linewidth=width, marker=".")
            axes.set_xlabel(label)

        figures.append(_svg(name, title(evaluation, name), draw))
    figures.append(_svg("spectrum", "Power spectrum at the last lead time", _spectrum(evaluation)))
    return figures


def _chances(evaluation: Evaluation) -> list[str]:
    """Brier skill and reliability, where the model gives chances."""
    scores = evaluation.chances
    if scores is None:
        return []
    names = [f"≥ {threshold:g} {_units(evaluation)}" for threshold in scores.thresholds]
    rows = []
    for k, row in enumerate(scores.skill):
        cells = "".join(f"<td>{number(float(value))}</td>" for value in row)
        rows.append(f"<tr><td>{lead_text(evaluation, k + 1)}</td>{cells}</tr>")
    drawn = [
        _svg(f"reliability {q}", f"Reliability of chances, {name}", _reliability(scores, q))
        for q, name in enumerate(names)
    ]
    return [
        "<h2>Chances</h2>",
        (
            "<p>Brier skill score over climatology: 1 is perfect, 0 no better than the share of "
            "pixels with the event. Reliability: how often the event happened where its chance was "
            "so high, at all lead times; on the dotted line chances are right.</p>"
        ),
        _table(["lead", *names], rows),
        f'<div class="curves">{"".join(drawn)}</div>',
    ]


def _ensemble(evaluation: Evaluation) -> list[str]:
    """CRPS and ranks, where an ensemble was asked for."""
    return ensemble_section(
        evaluation.ensemble,
        _units(evaluation),
        lambda step: lead_text(evaluation, step),
        number,
    )


def _reliability(scores: ChanceScores, q: int) -> Any:
    count, forecast, observed = scores.reliability(q)
    known = count > 0

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1.0, linestyle=":")
        axes.plot(forecast[known], observed[known], color=_COLOURS[0], linewidth=2.2, marker=".")
        axes.set_xlabel("mean chance")
        axes.set_ylabel("observed frequency")

    return draw


def _spectrum(evaluation: Evaluation) -> Any:
    truth = evaluation.scores[MODEL].spectra.truth[-1]
    waves = np.arange(1, len(truth))

    def draw(axes: Axes) -> None:
        for colour, scores in zip(_COLOURS, evaluation.scores.values(), strict=False):
            power = scores.spectra.forecast[-1][1:]
            if (power > 0).any():
                axes.loglog(waves, power, color=colour, linewidth=1.4)
        if (truth[1:] > 0).any():
            axes.loglog(waves, truth[1:], color=_INK, linewidth=1.2, linestyle=":")
        axes.set_xlabel("waves across the frame")

    return draw


def _lead_axis(cadence_s: float | None) -> tuple[float, str]:
    if cadence_s is None:
        return 1.0, "lead time, frames"
    if cadence_s >= 1800:
        return cadence_s / 3600, "lead time, hours"
    if cadence_s >= 30:
        return cadence_s / 60, "lead time, minutes"
    return cadence_s, "lead time, seconds"


def _svg(name: str, text: str, draw: Any) -> str:
    """One drawing as inline SVG, in the page's ink; `name` keeps its ids apart from the others'."""
    import matplotlib
    import matplotlib.figure

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif", "font.size": 9,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color",
                         "ytick.color"), _INK),
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = matplotlib.figure.Figure(figsize=(4.4, 2.9), layout="tight")
        axes = figure.subplots()
        draw(axes)
        axes.set_title(text, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    whole = file.getvalue()
    inside = whole[whole.index("<svg") :].replace(_INK, "currentColor")
    return f"<figure>{inside}</figure>"


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
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<figure class="wide"><figcaption>Sequence {n + 1}</figcaption>'
        f'<table class="strip" style="--n: {len(heads) - 1}">{table}</table></figure>'
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
    return f'<p class="key"><span>{escape(_units(evaluation))}</span>{spans}</p>'
