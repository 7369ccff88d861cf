"""The counts of a campaign, kind by kind:

python -m tests.fuzz.counts RESULTS.jsonl [--out COUNTS.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_COLUMNS = {
    "refused": "refused", "used": "used", "fault": "tracebacks", "hang": "hangs over 5 s",
    "limited": "ended itself at its limit", "ended": "ended by a signal",
    "reached out": "reached out", "memory": "beyond the budget",
}  # fmt: skip


def counts(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each kind; pieces of one campaign are added up."""
    rows: dict[str, dict[str, Any]] = {}
    for line in lines:
        row = rows.setdefault(line["kind"], {"kind": line["kind"], "inputs": 0, "grew_mb": 0})
        found = Counter(line["results"])
        found["hang"] -= sum(one["result"] == "hang" and one["seed"] < 0 for one in line["faults"])
        row["inputs"] += sum(number for word, number in found.items() if word != "memory")
        for word, column in _COLUMNS.items():
            row[column] = row.get(column, 0) + found[word]
        row["grew_mb"] = max(row["grew_mb"], line["grew_mb"])
        row["seconds"] = row.get("seconds", 0) + line["seconds"]
    return list(rows.values())


def main() -> None:
    """Print them, and write them where that is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.results.read_text().splitlines()]
    rows = counts(lines)
    names = list(rows[0]) if rows else []
    for row in [dict(zip(names, names, strict=True)), *rows]:
        cells = [str(row[name]) for name in names]
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
