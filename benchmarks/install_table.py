"""What each extra weighs, and how long it takes: the tables of docs/install.md.

    python benchmarks/install_table.py                           measure what is missing, write
    python benchmarks/install_table.py --only cpu --python 3.11  measure a part of it
    python benchmarks/install_table.py --again ...               measure anew what is there
    python benchmarks/install_table.py --write                   only put the tables into the page

Builds the wheel, installs it with each extra in a fresh environment for each Python at hand, and
removes that again. Results go to benchmarks/results/install.json after each; a later run measures
what is missing. Installing needs a package index, so its seconds are those of this network. Where
PyTorch would come with CUDA, it is not fetched. A test compares the page.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import results_table
from benchmarks.install_environments import TIMES, Row, build_wheel, measure
from benchmarks.install_tools import TOOLS, Tried, try_tool
from benchmarks.support_matrix import executable
from stpl_core import __version__
from stpl_core.files import atomic_file
from stpl_core.machine import cpu_name, usable_cpus

HERE = Path(__file__).parent
RESULT = HERE / "results" / "install.json"
PAGE = HERE.parent / "docs" / "install.md"
BEGIN = "<!-- tables: benchmarks/install_table.py -->"
TOOL = "tools"
"""Beside the extras: uv and pipx."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = (
    "cpu",
    "cpu,page",
    "cpu,hdf5,netcdf,page",
    "cpu,openvino",
    "cpu,live,readers",
    "readers",
    "train",
    "export",
    "all",
)


def main() -> None:
    """Measure what is missing, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="measure nothing")
    parser.add_argument("--again", action="store_true", help="measure also what was measured")
    only = "such as cpu,page; or tools; repeatable"
    parser.add_argument("--only", metavar="EXTRAS", action="append", help=only)
    parser.add_argument("--python", metavar="VERSION", help="such as 3.11")
    asked = parser.parse_args()
    if not asked.write:
        for python in PYTHONS if asked.python is None else (asked.python,):
            base = executable(python)
            if base is None:
                print(f"no Python {python} on this machine")
                continue
            _measure_python(python, base, asked.only or [*EXTRAS, TOOL], asked.again)
    text = page()
    with atomic_file(PAGE) as file:
        file.write(text.encode())


def _measure_python(python: str, base: str, only: list[str], again: bool) -> None:
    """Each extra and each tool on this Python, and what is known after each."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        wheel = build_wheel(Path(folder))
        for extras in [one for one in only if one != TOOL]:
            if again or _kept("rows", extras=extras, python=python) is None:
                row = measure(wheel, extras, python, base)
                print(row, flush=True)
                _keep("rows", asdict(row), ("extras", "python"))
        for tool in TOOLS if TOOL in only else ():
            if again or _kept("tools", tool=tool, python=python) is None:
                tried = try_tool(tool, wheel, python, base)
                print(tried, flush=True)
                _keep("tools", asdict(tried), ("tool", "python"))


def result() -> dict[str, Any]:
    """What was measured so far, of this version of the package."""
    if RESULT.is_file():
        found: dict[str, Any] = json.loads(RESULT.read_text())
        if found["stpl_deploy"] == __version__:
            return found
    return {
        "stpl_deploy": __version__,
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "pip": version("pip"),
        "times": TIMES,
        "rows": [],
        "tools": [],
    }


def _kept(part: str, **keys: str) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = result()[part]
    return next((row for row in rows if row.items() >= keys.items()), None)


def _keep(part: str, row: dict[str, Any], keys: tuple[str, ...]) -> None:
    """In the place of what was measured before."""
    found = result()
    others = [one for one in found[part] if any(one[key] != row[key] for key in keys)]
    found[part] = sorted([*others, row], key=lambda one: [str(one[key]) for key in keys])
    with atomic_file(RESULT) as file:
        file.write((json.dumps(found, indent=1) + "\n").encode())


def tables() -> str:
    """All of them as Markdown."""
    found = result()
    rows = {(row["extras"], row["python"]): _row(row) for row in found["rows"]}
    notes = [*dict.fromkeys(note for row in rows.values() for note in _notes(row))]
    load = max((row.load for row in rows.values()), default=0)
    meanwhile = (
        "They are this network's, and the machine did other work meanwhile (its load was up to "
        f"{load:.0f}):"
    )
    machine = f"{found['cpus']} CPUs of {found['cpu']}, {found['system']}"
    lines = [
        f"Measured on {machine}, by pip {found['pip']}; 1 MB is 10^6 bytes.",
        "",
        *_matrix("MB in `site-packages`", rows, notes, lambda row: f"{row.mb:.0f}"),
        "",
        *(f"{number}. {note}." for number, note in enumerate(notes, 1)),
        "",
        f"Seconds of the install with nothing cached. {meanwhile}",
        "",
        *_matrix("seconds", rows, [], lambda row: f"{row.install_s:.0f}"),
        "",
        *_starts([*rows.values()]),
        "",
        *_tools([Tried(**tried) for tried in found["tools"]]),
        "",
    ]
    return "\n".join(lines)


def _row(kept: dict[str, Any]) -> Row:
    return Row(**kept | {"without": tuple(kept["without"])})


def _notes(row: Row) -> Iterator[str]:
    """What has to be known of a cell."""
    if row.reason:
        yield row.reason
    elif row.without:
        yield f"Without {', '.join(row.without)}, which the extra asks for on a later Python only"


def _matrix(
    title: str, rows: dict[tuple[str, str], Row], notes: list[str], show: Callable[[Row], str]
) -> Iterator[str]:
    """A row for each extra, a column for each Python."""
    pythons = [python for python in PYTHONS if any(key[1] == python for key in rows)]
    lines = []
    for extras in [one for one in EXTRAS if any(key[0] == one for key in rows)]:
        cells = [_cell(rows.get((extras, python)), notes, show) for python in pythons]
        lines.append([f"`{extras}`", *cells])
    yield from results_table.table([title, *(f"Python {python}" for python in pythons)], lines)


def _cell(row: Row | None, notes: list[str], show: Callable[[Row], str]) -> str:
    if row is None:
        return "not run"
    marks = "".join(f" ({notes.index(note) + 1})" for note in _notes(row) if note in notes)
    return ("-" if row.reason else show(row)) + marks


def _starts(rows: list[Row]) -> Iterator[str]:
    """How fast it starts; hardly a question of the extra, so one row for each Python."""
    lines = []
    for python in PYTHONS:
        those = [row for row in rows if row.python == python and row.load]
        if those:
            imports, helps = [row.import_s for row in those], [row.help_s for row in those]
            lines.append([python, _range(imports), _range(helps)])
    columns = ["Python", "`import stpl_deploy`", "`stpl-deploy --help`"]
    yield from results_table.table(columns, lines)
    yield ""
    yield (
        f"Milliseconds in a fresh process, the fastest of {TIMES}: from the fastest of the extras "
        "above to the slowest."
    )


def _range(seconds: list[float]) -> str:
    low, high = (round(1000 * one) for one in (min(seconds), max(seconds)))
    return f"{low}" if low == high else f"{low} to {high}"


def _tools(tried: list[Tried]) -> Iterator[str]:
    """Of each tool, whether the command runs."""
    pythons = [python for python in PYTHONS if any(one.python == python for one in tried)]
    lines = []
    for tool in TOOLS:
        of_tool = {one.python: one for one in tried if one.tool == tool}
        if of_tool:
            name = f"`{tool}` of the wheel with `[{tried[0].extras}]`"
            versions = ", ".join(sorted({one.version for one in of_tool.values()}))
            cells = [_verdict(of_tool.get(python)) for python in pythons]
            lines.append([name, versions, *cells])
    columns = ["tool", "its version", *(f"Python {python}" for python in pythons)]
    yield from results_table.table(columns, lines)


def _verdict(tried: Tried | None) -> str:
    if tried is None:
        return "not run"
    return tried.reason or "runs"


def page() -> str:
    """The page with these tables in their place."""
    return results_table.page_with(tables(), PAGE, BEGIN)


if __name__ == "__main__":
    main()
