"""What `--engine auto` chose, beside all that it could have; writes benchmarks/results/.

    python -m benchmarks.auto_choice BUNDLE ... [--rounds 15] [--busy 2]

For each bundle the table of `auto` is measured anew. Then every way in it takes turns in this
process, in a new order every round: the choice over the fastest says what the choice costs. Beside
--busy processes that compute all the time it is measured once more, as `auto` does on a shared
machine, and what it takes there runs beside them in turn with what it took before. What those
processes take is the share of all CPU time that they had meanwhile; the rest of a nowcast's time is
its own. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.spinning import busy
from stpl_core.bundle import Bundle, open_bundle
from stpl_core.files import atomic_file
from stpl_core.machine import describe, usable_cpus
from stpl_deploy.cli.reports.output import document_text, print_table, say
from stpl_runtime.engine import Session
from stpl_runtime.engines.auto.candidates import Asked, Candidate, open_candidate
from stpl_runtime.engines.auto.choose import measured_table, nowcast_ms
from stpl_runtime.engines.auto.table import Table, load_now
from stpl_runtime.proof.reference import load_reference

RESULT = Path(__file__).parent / "results" / "auto-choice.json"
ASKED = Asked(("step", "forecast"))


@dataclass
class Times:
    """Of one way, milliseconds from arrival to nowcast; of each round the median of a few."""

    ms: list[float] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    """Without the share of the CPUs that other processes took meanwhile."""


def times_in_turn(
    bundle: Bundle, sessions: dict[str, Session], rounds: int, taken_s: Callable[[], float]
) -> dict[str, Times]:
    """Of each session, in a new order every round; `taken_s` is what others took of the CPUs."""
    reference, shuffle = load_reference(bundle), random.Random(0)
    times = {name: Times() for name in sessions}
    order = list(sessions)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            before, began = taken_s(), time.perf_counter()
            ms = nowcast_ms(sessions[name], bundle, ASKED, reference)
            all_s = usable_cpus() * (time.perf_counter() - began)
            times[name].ms.append(ms)
            times[name].own_ms.append(ms * (1 - (taken_s() - before) / all_s))
    return times


def measure(bundle: Bundle, rounds: int, processes: int) -> dict[str, Any]:
    """One bundle's row."""
    table = fresh_table(bundle)
    ways = {str(row.candidate): row.candidate for row in table.rows if row.ms is not None}
    sessions = {name: open_candidate(bundle, ASKED, way) for name, way in ways.items()}
    taken = str(taken_from(table))
    try:
        times = times_in_turn(bundle, sessions, rounds, lambda: 0.0)
        with busy(processes) as taken_s:
            while load_now() == "quiet":  # an average over a minute
                time.sleep(1)
            way = taken_from(fresh_table(bundle))
            there = str(way)
            if there not in sessions:  # there was no time for it before
                sessions[there] = open_candidate(bundle, ASKED, way)
            both = {name: sessions[name] for name in (taken, there)}
            beside = times_in_turn(bundle, both, rounds, taken_s)
    finally:
        for session in sessions.values():
            session.close()
    medians = {name: float(np.median(found.ms)) for name, found in times.items()}
    beside_ms = {name: float(np.median(found.ms)) for name, found in beside.items()}
    own_ms = {name: float(np.median(found.own_ms)) for name, found in beside.items()}
    fastest = min(medians, key=medians.__getitem__)
    ratios = np.divide(times[taken].ms, times[fastest].ms)
    return {
        "bundle": bundle.path.name, "model": bundle.manifest.model.name, "chosen": taken,
        "fastest": fastest, "ms": medians,
        "chosen_over_fastest": [float(one) for one in np.percentile(ratios, (25, 50, 75))],
        "busy_processes": processes, "beside_chosen": there, "beside_ms": beside_ms,
        "beside_over_quiet": beside_ms[there] / medians[taken], "beside_own_ms": own_ms,
        "own_over_quiet": own_ms[there] / medians[taken],
    }  # fmt: skip


def fresh_table(bundle: Bundle) -> Table:
    """The table of `auto`, where nothing was measured before."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        return measured_table(bundle, ASKED, say, most_s=60.0)


def taken_from(table: Table) -> Candidate:
    """What `auto` takes."""
    assert table.best is not None
    return table.best.candidate


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--busy", type=int, default=2)
    given = parser.parse_args()
    rows = [measure(open_bundle(path), given.rounds, given.busy) for path in given.bundles]
    with atomic_file(RESULT) as file:
        result = {"rows": rows, "cpus": usable_cpus(), "machine": describe()}
        file.write(document_text(result).encode())
    print_table(
        "auto",
        ["model", "chosen", "over the fastest", f"beside {given.busy} busy processes"],
        [
            [
                row["model"],
                row["chosen"],
                f"{row['chosen_over_fastest'][1]:.3f}",
                (
                    f"{row['beside_over_quiet']:.2f} times its quiet self, "
                    f"{row['own_over_quiet']:.2f} without what they took"
                ),
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
