"""The table of benchmarks/same_minutes.py: models of one budget beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

_SCORES = {"mse": "MSE", "csi_0.1": "CSI at 0.1", "csi_1": "CSI at 1", "csi_5": "CSI at 5"}
_LEADS = (1, 3, 6, 12)
Row = dict[str, Any]


def section(found: Row, table: Callable[[list[str], list[list[str]]], Iterator[str]]) -> list[str]:
    """Its heading, what was done, and the table."""
    rows: list[Row] = found["rows"]
    first = rows[0]
    minutes = " / ".join(f"{lead * first['cadence_s'] / 60:g}" for lead in _LEADS)
    lines = [
        "### The radar model and papers' models, for the same minutes",
        "",
        "    python -m benchmarks.same_minutes --fmi FOLDER --knmi FOLDER",
        "",
        f"Each trained for {found['minutes']:g} minutes of CPU, on one thread, on the same frames, "
        "turned and mirrored alike; a learning rate that goes down over just these. The papers' "
        "models are small ones, and learn squared error alone, as in their papers. "
        f"Scored on the same whole fields of KNMI's last hours; each cell: {minutes} min.",
        "",
    ]
    cells = [[*_facts(row), *_cells([row["scores"]["model"]])] for row in rows]
    seeds = [row["scores"]["model"] for row in rows if row["name"].startswith("advect")]
    if len(seeds) > 1:
        cells.append([f"advect, median of {len(seeds)}", "", "", *_cells(seeds)])
        cells.append(["advect, from least to most", "", "", *_cells(seeds, _spread)])
    for way in ("flow", "persistence"):
        cells.append([way, "", "", *_cells([first["scores"][way]])])
    lines += table(["model", "parameters", "iterations", *_SCORES.values()], cells)
    return [*lines, ""]


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
