"""The tables of docs/results.md, from benchmarks/printed.toml and benchmarks/results/.

    python benchmarks/results_table.py            print them
    python benchmarks/results_table.py --write    put them into docs/results.md

A recipe without a result is "not run" in the table. A test compares the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomllib

from benchmarks import radar_tables
from stpl_core.files import atomic_file
from stpl_train.recipe import load_recipe

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
BEGIN, END = "<!-- tables: benchmarks/results_table.py --write -->", "<!-- end of the tables -->"

_SCORES = {"mse": "MSE", "mae": "MAE", "ssim": "SSIM", "psnr": "PSNR", "cross_entropy": "CE"}
_WAYS = ("model", "persistence", "flow", "day", "week")
_MINUTE_S, _HOUR_S = 60, 3600
_CHOSEN_LEADS, _FEW = (1, 3, 6, 12), 4
_FIELD_SCORES = ("mse", "csi_0.1", "csi_1", "csi_5", "rmse", "bias_1", "bias_5")


def printed() -> dict[str, Any]:
    """What was printed, by recipe."""
    return tomllib.loads((HERE / "printed.toml").read_text())


def results() -> dict[str, Any]:
    """What was measured here, by recipe."""
    found = sorted((HERE / "results").glob("recipe-*.json"))
    return {made["recipe"]: made for made in (json.loads(path.read_text()) for path in found)}


def measured(name: str) -> dict[str, Any] | None:
    """What a script wrote under this name in results/; None where it did not run."""
    path = HERE / "results" / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def tables() -> str:
    """All of them as Markdown."""
    facts, made = printed(), results()
    rows = [_row(name, facts[name], made.get(name)) for name in facts]
    columns = ["task", "recipe", "iterations", "in its paper", "OpenSTL's re-run", "here"]
    lines = [*table(columns, rows), ""]
    notes = [
        f"- `{name}`: {'; '.join(words)}."
        for name, fact in facts.items()
        if (words := _notes(fact))
    ]
    lines += [*notes, ""]
    if (fields := measured("whole-fields")) is not None:
        lines += _fields(fields)
    if (events := measured("leave-one-out")) is not None:
        lines += _left_out(events["events"])
    if (models := measured("same-minutes")) is not None:
        lines += radar_tables.same_minutes(models, table)
    if (times := measured("nowcast-times")) is not None:
        lines += radar_tables.nowcast_times(times, table)
    for name in sorted(made.keys() - facts.keys()):
        lines += _practical(name, made[name])
    return "\n".join(lines).rstrip() + "\n"


def _row(name: str, fact: dict[str, Any], made: dict[str, Any] | None) -> list[str]:
    ours = "not run"
    if made is not None:
        mean = made["evaluations"][0]["scores"]["model"]["mean"]
        ours = _numbers({k: float(f"{mean[k]:.4g}") for k in _SCORES if mean.get(k) is not None})
        ours += f" ({made['iterations']:,} iterations)"
    asked = load_recipe(name).training.iterations
    cells = [_numbers(fact[key]) if key in fact else "-" for key in ("paper", "openstl")]
    return [fact["task"], f"`{name}`", f"{asked:,}", *cells, ours]


def _notes(fact: dict[str, Any]) -> list[str]:
    by = [f"the figure is from {fact['by']}"] if "by" in fact else []
    return [*by, *([fact["note"]] if "note" in fact else [])]


def _numbers(scores: dict[str, float]) -> str:
    return ", ".join(f"{_SCORES[key]} {value:.6g}" for key, value in scores.items())


def _practical(name: str, made: dict[str, Any]) -> Iterator[str]:
    """Per lead time beside the baselines, one table for each grid it was judged on."""
    yield f"### `{name}`"
    yield ""
    if made["about"]:
        yield f"{made['about']}"
        yield ""
    yield (
        f"{made['parameters']:,} parameters, {made['iterations']:,} iterations (best weights of "
        f"iteration {made['best_iteration']:,}), {_training_time(made)}. {_machine(made)}"
    )
    yield ""
    if made["settings"]:
        yield "With " + ", ".join(f"`--set {setting}`" for setting in made["settings"]) + "."
        yield ""
    for evaluation in made["evaluations"]:
        size = "x".join(map(str, evaluation["frame"][1:]))
        cut = f"{evaluation['sequences']} windows of the test part, frames of {size}"
        larger = evaluation["units"].startswith("mm")
        yield f"{cut}, cut first: flow gets nothing over their edges:" if larger else f"{cut}:"
        yield ""
        yield from _per_lead(evaluation)
        yield ""


def _fields(fields: dict[str, Any]) -> Iterator[str]:
    """Whole fields, and beside them the windows of before."""
    yield f"### `{fields['model']}` on whole fields"
    yield ""
    yield "    python -m benchmarks.whole_fields --fmi FOLDER --knmi FOLDER"
    yield ""
    yield (
        "*Whole fields* are what a nowcast is made of; the model sees them at once, as a bundle of "
        "`export --grid` does. *Windows* of the model's size, cut out first, let nothing in over "
        "their edges; flow, which moves rain in, looks worse there than it is. Each cell: model / "
        "persistence / flow; the best of them is bold. A frequency bias of 1 is right; below it, "
        "rain is missing."
    )
    yield ""
    for name, one in fields["sets"].items():
        for found in one["protocols"]:
            yield f"**{name}**, {one['about']}. {found['sequences']} {found['protocol']}."
            yield ""
            yield from _chosen_leads(found)
            yield ""
            yield f"{_wins(found)} {_brier(found)}" if "chances" in found else _wins(found)
            yield ""


def _left_out(events: dict[str, Any]) -> Iterator[str]:
    """Each event by the model that never saw it."""
    yield "### On events that training never saw"
    yield ""
    yield "    python -m benchmarks.leave_one_out --runs RUNS --fmi DIR ... --opera DIR"
    yield ""
    yield (
        "MRMS and OPERA: the same weights, which never saw them. FMI: a run of the recipe "
        "`radar-nowcast` on KNMI alone; KNMI: one on FMI alone, whose validation is MRMS; 1,200 "
        "iterations each. Nothing of an event had a part in how far the run that it judges is "
        "trusted. Whole fields, as above."
    )
    yield ""
    for name, found in events.items():
        yield f"**{name}**, {found['about']}. {found['sequences']} {found['protocol']}."
        yield ""
        yield from _chosen_leads(found)
        yield ""
        yield f"{_wins(found)} {_brier(found)}"
        yield ""


def _brier(found: dict[str, Any]) -> str:
    """How good the chances are, in words."""
    parts = []
    for one in found["chances"]["by_threshold"]:
        first, *_, last = one["skill"]
        parts.append(f"{first:.2f} to {last:.2f} at {one['threshold']:g}")
    span = f"{_lead(1, found['cadence_s'])} to {_lead(found['horizon'], found['cadence_s'])}"
    return f"Brier skill of its chances, {span}: {', '.join(parts)} {found['units']}."


def _chosen_leads(found: dict[str, Any]) -> Iterator[str]:
    ways = [way for way in _WAYS if way in found["scores"]]
    rows = [
        [
            _lead(lead, found["cadence_s"]),
            *(
                _cell(score, [found["scores"][way][score][lead - 1] for way in ways])
                for score in _FIELD_SCORES
            ),
        ]
        for lead in (_CHOSEN_LEADS if found["horizon"] > _FEW else range(1, found["horizon"] + 1))
    ]
    yield from table(["lead", *(_title(score, found["units"]) for score in _FIELD_SCORES)], rows)


def _wins(found: dict[str, Any]) -> str:
    """At how many lead times the model is the best, in words."""
    counts = []
    for score in _FIELD_SCORES[:4]:
        columns = [found["scores"][way][score] for way in _WAYS if way in found["scores"]]
        best = min if score == "mse" else max
        won = sum(row[0] is not None and row[0] == best(row) for row in zip(*columns, strict=True))
        counts.append(f"{_title(score, found['units'])} at {won}")
    return (
        f"The model is the best of them in {', in '.join(counts)} of {found['horizon']} lead times."
    )


def _training_time(made: dict[str, Any]) -> str:
    minutes = f"{made['seconds'] / 60:.0f} minutes"
    if made.get("cpu_seconds"):
        minutes += f" on a machine that did other work too, {made['cpu_seconds'] / 60:.0f} of CPU"
    return f"trained in {minutes} with {made['threads']} thread(s) on {made['device']}"


def _machine(made: dict[str, Any]) -> str:
    machine = made["machine"]
    return f"{machine['cpu']}, {machine['usable_cpus']} CPUs."


def _per_lead(evaluation: dict[str, Any]) -> Iterator[str]:
    ways = [way for way in _WAYS if way in evaluation["scores"]]
    csi = [key for key in evaluation["scores"]["model"]["per_lead"] if key.startswith("csi_")]
    units = evaluation["units"]
    chosen = ["mse", *(csi or ["rmse", "ssim"])]
    titles = [_title(score, units) for score in chosen]
    yield f"Each cell: {', '.join(ways)}; the best of them is bold."
    yield ""
    rows = []
    for k in range(evaluation["horizon"]):
        cells = [
            _cell(score, [evaluation["scores"][way]["per_lead"][score][k] for way in ways])
            for score in chosen
        ]
        rows.append([_lead(k + 1, evaluation["cadence_s"]), *cells])
    yield from table(["lead", *titles], rows)


def _title(score: str, units: str) -> str:
    kind, _, threshold = score.partition("_")
    if kind in ("csi", "bias"):
        return f"{'CSI' if kind == 'csi' else 'bias'} at {threshold} {units}"
    rmse = "RMSE" if units == "1" else f"RMSE, {units}"
    return {"mse": "MSE, sum over a frame, model units", "rmse": rmse}.get(score, score.upper())


def _lead(step: int, cadence_s: float | None) -> str:
    if cadence_s is None:
        return str(step)
    seconds = step * cadence_s
    if seconds >= _HOUR_S and seconds % _HOUR_S == 0:
        return f"{seconds / _HOUR_S:g} h"
    return f"{seconds / _MINUTE_S:g} min" if seconds >= _MINUTE_S else f"{seconds:g} s"


def _cell(score: str, values: list[float | None]) -> str:
    texts = ["-" if value is None else _short(value) for value in values]
    known = [value for value in values if value is not None]
    if not known:
        return " / ".join(texts)
    if score.startswith("bias_"):
        best = _short(min(known, key=lambda value: abs(value - 1)))
    else:
        best = _short((min if score in ("mse", "rmse") else max)(known))
    return " / ".join(f"**{text}**" if text == best else text for text in texts)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def table(columns: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def page_with(made: str, page: Path = PAGE, begin: str = BEGIN) -> str:
    """The page with these tables in their place."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(END)
    return f"{before}{begin}\n\n{made}\n{END}{after}"


def print_or_write(about: str | None, made: Callable[[], str], page: Path, begin: str) -> None:
    """The command of a script of tables: print them, or with --write put them into their page.

    Args:
        about: the script's docstring.
        made: the tables as Markdown.
        page: where they stand.
        begin: the comment before them.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        text = page_with(made(), page, begin)
        with atomic_file(page) as file:
            file.write(text.encode())
    else:
        sys.stdout.write(made())


if __name__ == "__main__":
    print_or_write(__doc__, tables, PAGE, BEGIN)
