"""Tables of docs/results.md on the radar model: beside papers' models, and its time to nowcast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

_SCORES = {"mse": "MSE", "csi_0.1": "CSI at 0.1", "csi_1": "CSI at 1", "csi_5": "CSI at 5"}
_LEADS = (1, 3, 6, 12)
Row = dict[str, Any]
Table = Callable[[list[str], list[list[str]]], Iterator[str]]
"""Columns and rows to lines of Markdown."""


def same_minutes(found: Row, table: Table) -> list[str]:
    """What benchmarks/same_minutes.py found: models of one budget beside each other."""
    rows: list[Row] = found["rows"]
    first = rows[0]
    minutes = " / ".join(f"{lead * first['cadence_s'] / 60:g}" for lead in _LEADS)
    about = (
        f"Each trained for {found['minutes']:g} minutes of CPU, on one thread, on the same frames, "
        "turned and mirrored alike; a learning rate that goes down over just these. The papers' "
        "models are small ones, and learn squared error alone, as in their papers. "
        f"Scored on the same whole fields of KNMI's last hours; each cell: {minutes} min."
    )
    lines = [
        "### The radar model and papers' models, for the same minutes",
        "",
        "    python -m benchmarks.same_minutes --fmi FOLDER --knmi FOLDER",
        "",
        about,
        "",
    ]
    cells = [[*_facts(row), *_cells([row["scores"]["model"]])] for row in rows]
    seeds = [row["scores"]["model"] for row in rows if row["name"].startswith("advect")]
    if len(seeds) > 1:
        cells.append([f"advect, median of {len(seeds)}", "", "", *_cells(seeds)])
        cells.append(["advect, from least to most", "", "", *_cells(seeds, _spread)])
    others = ("flow", "persistence")
    cells += [[way, "", "", *_cells([first["scores"][way]])] for way in others]
    lines += table(["model", "parameters", "iterations", *_SCORES.values()], cells)
    return [*lines, ""]


def nowcast_times(found: Row, table: Table) -> list[str]:
    """What benchmarks/nowcast_times.py found."""
    side, machine = found["frame"][0], found["machine"]
    about = (
        f"{found['context']} frames of {side}x{side} in, {found['horizon']} out, in one process on "
        f"{machine['usable_cpus']} CPUs of {machine['cpu']}, {found['rounds']} rounds in turn. "
        "`flow` is the baseline of `evaluate` (OpenCV's DIS and one interpolation); pysteps' ways "
        "find their motion by its Lucas-Kanade."
    )
    cells = [
        [row["way"], f"{row['ms']:.0f}", "{:.0f} to {:.0f}".format(*row["quartiles_ms"])]
        for row in found["ways"]
    ]
    return [
        "### How long a nowcast takes",
        "",
        "    python -m benchmarks.nowcast_times --knmi FOLDER",
        "",
        about,
        "",
        *table(["way", "median, ms", "quartiles"], cells),
        "",
    ]


def _facts(row: Row) -> list[str]:
    return [f"`{row['name']}`", f"{row['parameters']:,}", f"{row['iterations']:,}"]


def _spread(values: list[float]) -> str:
    return f"{_short(min(values))} to {_short(max(values))}"


def _cells(
    scores: list[Row], told: Callable[[list[float]], str] = lambda values: _short(median(values))
) -> Iterator[str]:
    for name in _SCORES:
        yield " / ".join(told([one[name][lead - 1] for one in scores]) for lead in _LEADS)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
