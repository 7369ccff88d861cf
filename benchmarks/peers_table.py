"""The tables of docs/engines.md of every model on a CPU and what `auto` takes, from results/.

python benchmarks/peers_table.py            print it
python benchmarks/peers_table.py --write    put it into docs/engines.md

A test compares the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import results_table

RESULT = Path(__file__).parent / "results" / "peers.json"
CHOICE = RESULT.with_name("auto-choice.json")
PAGE = Path(__file__).parents[1] / "docs" / "engines.md"
BEGIN = "<!-- table: benchmarks/peers_table.py --write -->"
_COLUMNS = {
    "PyTorch": ["pytorch-eager"],
    "compiled": ["pytorch-compiled"],
    "ONNX Runtime": ["onnx-prewarmed"],
    "OpenVINO": ["openvino-prewarmed"],
    "OpenVINO, Winograd": ["openvino:winograd-prewarmed"],
    "OpenVINO, bf16": ["openvino-bf16-prewarmed"],
    "Winograd, bf16": ["openvino:winograd-bf16-prewarmed"],
    "int8": ["onnx-int8-prewarmed", "openvino-int8-prewarmed"],
}
"""Column -> the ways that it is the fastest of."""


def tables() -> str:
    """The table and what has to be said of it, as Markdown."""
    found = json.loads(RESULT.read_text())
    rows = [list(_cells(model)) for model in found["models"]]
    machine = found["machine"]
    libraries = machine["libraries"]
    named = ("torch", "onnxruntime", "openvino")
    versions = ", ".join(f"{name} {libraries[name]}" for name in named)
    where = f"On {machine['usable_cpus']} CPUs of {machine['cpu']} ({versions})."
    lines = results_table.table(["model", "parameters", *_COLUMNS], rows)
    return "\n".join(
        [
            *lines,
            "",
            "Milliseconds from the arrival of a frame to its whole nowcast; in brackets, how many",
            f"times as fast as PyTorch. Medians; least and 95% are in the file. {where}",
            "",
            *_left_out(found["models"]),
            "",
            *_choices(json.loads(CHOICE.read_text())),
            "",
        ]
    )


def _cells(model: Mapping[str, Any]) -> Iterator[str]:
    times = {row["name"]: row["median_ms"] for row in model["rows"]}
    name, _, size = model["model"].partition(", ")
    yield f"`{name}`"
    yield f"{int(size.split()[0].replace(',', '')) / 1e6:.1f} M"
    for column, ways in _COLUMNS.items():
        known = [times[way] for way in ways if way in times]
        ratio = "" if column == "PyTorch" or not known else _ratio(times, min(known))
        yield f"{min(known):.{0 if min(known) >= 100 else 1}f}{ratio}" if known else "-"


def _ratio(times: Mapping[str, float], value: float) -> str:
    return f" ({times['pytorch-eager'] / value:.1f})"


def _left_out(models: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Which ways broke the bundle's own promise, and were not timed."""
    weights = {model["name"]: model.get("weights", "fresh") for model in models}
    out = [f"`{model['name']}` {way}" for model in models for way in model["left_out"]]
    trained = ", ".join(f"`{name}`" for name, how in weights.items() if how == "trained")
    if out:
        yield "Not timed, since they broke the bundle's promise: " + ", ".join(out) + "."
        yield "What rounding costs depends on the weights. These are untrained, all but those of"
        yield f"{trained or 'none'}; `verify BUNDLE --engine openvino --allow bf16` judges yours."


def _choices(found: Mapping[str, Any]) -> Iterator[str]:
    """What `auto` took of its candidates."""
    rows = [
        [
            f"`{row['model']}`",
            row["chosen"],
            f"{row['ms'][row['chosen']]:.0f}",
            "{:.2f} ({:.2f} to {:.2f})".format(
                row["chosen_over_fastest"][1], *row["chosen_over_fastest"][::2]
            ),
            row["beside_chosen"],
            "{:.0f} ({:.1f}, {:.1f})".format(
                row["beside_ms"][row["beside_chosen"]],
                row["beside_over_quiet"],
                row["own_over_quiet"],
            ),
            f"{row['beside_ms'][row['chosen']]:.0f}",
        ]
        for row in found["rows"]
    ]
    busy = found["rows"][0]["busy_processes"]
    columns = ["model", "`auto` took", "ms", "over the fastest of all candidates (quartiles)"]
    beside = f"beside {busy} busy processes it took"
    yield f"What `auto` takes in fp32 on a quiet machine, and beside {busy} processes that compute"
    yield f"all the time on the {found['cpus']} CPUs (`benchmarks/auto_choice.py`). In brackets:"
    yield "how many times as long as on the quiet one, with and without the part of that time in"
    yield "which the others had the CPUs: the second says how little CPU time is wasted, and not"
    yield "how soon a nowcast comes. Last: what was taken there, beside them."
    yield ""
    yield from results_table.table([*columns, beside, "ms", "not measured again, ms"], rows)


def page() -> str:
    """The page with this table in its place."""
    return results_table.page_with(tables(), PAGE, BEGIN)


if __name__ == "__main__":
    results_table.print_or_write(__doc__, tables, PAGE, BEGIN)
