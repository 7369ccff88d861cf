"""The measured tables of docs/scale.md, from scale, batching and backfill .json in results/.

python benchmarks/scale_table.py            print them
python benchmarks/scale_table.py --write    put them into docs/scale.md

A table whose benchmark was not run is left out. A test compares the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import results_table

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN = "<!-- tables: benchmarks/scale_table.py --write -->"


def tables() -> str:
    """All of them as Markdown."""
    parts = [
        *_scale(_result("scale")),
        *_batching(_result("batching")),
        *_backfill(_result("backfill")),
    ]
    return "\n".join([*parts, ""])


def _result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def _scale(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    rows = [
        [event, f"{seconds:.{0 if seconds >= 10 else 1}f}"]
        for event, seconds in found["recovery_s"].items()
    ]
    columns = [f"{found['streams']} streams, {found['processes']} processes", "seconds"]
    yield from results_table.table(columns, rows)
    yield ""
    rows = [
        [way, "not run" if ms is None else f"{ms:.{0 if ms >= 10 else 2}f}"]
        for way, ms in found["frame_to_nowcast_ms"].items()
    ]
    columns = [f"one stream of `{found['bundle']}`", "ms"]
    yield from results_table.table(columns, rows)
    yield f"\nOn {found['cpus']} CPUs of {found['cpu']}; medians of {found['rounds']} frames."


def _batching(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    yield ""
    rows = [
        [
            str(one["streams"]),
            *(f"{one[way]['nowcasts_per_s']:.3g}" for way in ("today", "batched")),
            f"{one['ratio']:.2f} ({one['ratio_least']:.2f} to {one['ratio_most']:.2f})",
            *(
                f"{one[way]['latency_median_ms']:.1f}, {one[way]['latency_p95_ms']:.1f}"
                for way in ("today", "batched")
            ),
        ]
        for one in found["rows"]
    ]
    columns = [
        f"streams, `{found['bundle']}`",
        "nowcasts/s",
        f"`--batch-wait {found['wait_ms']:g}`",
        "ratio (least to most)",
        "latency, ms",
        f"`--batch-wait {found['wait_ms']:g}`",
    ]
    yield from results_table.table(columns, rows)
    gap = max(one["greatest_difference"] for one in found["rows"])
    exact = f"differ by {gap:.1e} at most" if gap else "have the same bits"
    note = f" {found['note']}" if found["note"] else ""
    yield (
        f"\nLatency: median and p95, where a frame of each stream comes within "
        f"{found['spread_ms']:g} ms. Batches and single nowcasts {exact}.{note}"
    )


def _backfill(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    yield ""
    rows = [
        [name, f"{one['peak_mb']}", "yes" if one["equal"] else "no"]
        for name, one in found["ways"].items()
    ]
    columns = [f"{found['windows']:,} windows, `{found['bundle']}`", "peak MB", "equal stores"]
    yield from results_table.table(columns, rows)
    times = found["two_workers_over_one"]
    least, most = min(times["all"]), max(times["all"])
    yield (
        f"\nTwo workers were {times['median']:.2f} times as fast as one process ({least:.2f} to "
        f"{most:.2f} in {times['rounds']} rounds), one thread each, on {found['cpus']} CPUs of "
        f"{found['cpu']}."
    )


def page() -> str:
    """The page with these tables in their place."""
    return results_table.page_with(tables(), PAGE, BEGIN)


if __name__ == "__main__":
    results_table.print_or_write(__doc__, tables, PAGE, BEGIN)
