"""What ONNX Runtime's spinning threads cost and gain; writes benchmarks/results/spinning.json.

    python benchmarks/spinning.py BUNDLE [--rounds 30] [--busy 0 1 2]

Two sessions of the bundle, one whose threads spin while they wait for work and one whose threads
sleep, take turns in one process at one forecast each, in a new order every round. They do so beside
0, 1 ... other processes that compute all the time. A ratio is the median over rounds of the time
with spinning over the time without: above 1, sleeping is faster. Run it on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.files import atomic_file
from stpl_core.machine import describe, usable_cpus
from stpl_deploy.cli.reports.output import document_text, print_table
from stpl_runtime.engines.ort import OrtSession
from stpl_runtime.proof.reference import load_reference

RESULT = Path(__file__).parent / "results" / "spinning.json"
_SPIN = "session.intra_op.allow_spinning"


class _Spinning(OrtSession):
    """Threads that spin while they wait, ONNX Runtime's own default."""

    def _options(self) -> onnxruntime.SessionOptions:
        options = super()._options()
        options.add_session_config_entry(_SPIN, "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return options


@contextmanager
def busy(count: int) -> Iterator[Callable[[], float]]:
    """So many other processes compute meanwhile; gives the CPU seconds that they took so far."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield lambda: sum(_cpu_seconds(other.pid) for other in others)
    finally:
        for other in others:
            other.kill()
            other.wait()


def _cpu_seconds(process: int) -> float:
    """What a process took so far, as Linux counts it (proc_pid_stat(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def times_in_turn(bundle: Bundle, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a forecast, spinning and sleeping."""
    frames = load_reference(bundle).context[:1]  # (1, T, C, H, W)
    newest = np.ascontiguousarray(frames[:, -1])  # (1, C, H, W)
    threads = usable_cpus()
    sessions = {
        "spinning": _Spinning(bundle, ("step", "forecast"), threads),
        "sleeping": OrtSession(bundle, ("step", "forecast"), threads),
    }
    states = {name: session.zero_state() for name, session in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    order, shuffle = list(sessions), random.Random(0)
    for n in range(rounds + 2):
        shuffle.shuffle(order)
        for name in order:
            began = time.perf_counter()
            sessions[name].forecast(newest, states[name])
            if n >= 2:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times


def row(times: dict[str, list[float]], count: int) -> dict[str, Any]:
    """The ratio beside so many busy processes, with its spread over single rounds."""
    ratios = np.divide(times["spinning"], times["sleeping"])
    low, middle, high = (float(one) for one in np.percentile(ratios, (5, 50, 95)))
    return {
        "busy_processes": count,
        "spinning_ms": float(np.median(times["spinning"])),
        "sleeping_ms": float(np.median(times["sleeping"])),
        "ratio": middle,
        "p05": low,
        "p95": high,
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    rows = []
    for count in options.busy:
        with busy(count):
            rows.append(row(times_in_turn(bundle, options.rounds), count))
    document = {
        "bundle": options.bundle.name,
        "model": bundle.manifest.model.name,
        "threads": usable_cpus(),
        "rows": rows,
        "machine": describe(),
    }
    with atomic_file(options.out) as file:
        file.write(document_text(document).encode())
    print_table(
        "one forecast",
        ["busy processes", "spinning ms", "sleeping ms", "ratio", "5% to 95%"],
        [
            [
                str(one["busy_processes"]),
                f"{one['spinning_ms']:.1f}",
                f"{one['sleeping_ms']:.1f}",
                f"{one['ratio']:.2f}",
                f"{one['p05']:.2f} to {one['p95']:.2f}",
            ]
            for one in rows
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
