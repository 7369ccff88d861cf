"""How long a bundle takes to open, first and again; writes benchmarks/results/start.json.

    python benchmarks/start.py BUNDLE [BUNDLE ...] [--rounds 5] [--engine onnx openvino]

Every opening is a process of its own, with a cache folder of this script's own: empty for the first
one (cold), and as that one left it for the others (warm). Measured are the imports, the opening of
the bundle with all its checksums, the opening of the session with `step` and `forecast`, as
`stream` opens it, and the first nowcast.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text, print_table

RESULT = Path(__file__).parent / "results" / "start.json"
PARTS = ("imports", "bundle", "session", "nowcast")

CHILD = """
import json, sys, time
from pathlib import Path
marks = [time.perf_counter()]
library = {"onnx": "onnxruntime", "openvino": "openvino"}[sys.argv[2]]
import numpy
__import__(library)
from stpl_core.bundle import open_bundle
from stpl_runtime.engine import open_session
marks.append(time.perf_counter())
bundle = open_bundle(Path(sys.argv[1]))
marks.append(time.perf_counter())
session = open_session(bundle, ("step", "forecast"), engine=sys.argv[2])
marks.append(time.perf_counter())
frame = numpy.zeros((1, *bundle.manifest.frame), numpy.float32)
session.forecast(frame, session.zero_state())
marks.append(time.perf_counter())
print(json.dumps([after - before for before, after in zip(marks, marks[1:])]))
"""


def opened(bundle: Path, engine: str, cache: Path) -> dict[str, float]:
    """Seconds of each part of one start."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    environment.pop("STPL_CACHE_MB", None)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(bundle), engine],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(PARTS, json.loads(done.stdout), strict=True))


def measure(bundle: Path, engine: str, rounds: int) -> dict[str, Any]:
    """Cold and warm starts of one bundle on one engine."""
    cold, warm, megabytes = [], [], 0.0
    for n in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(opened(bundle, engine, Path(folder)))
            kept = (path for path in Path(folder).rglob("*") if path.is_file())
            megabytes = sum(path.stat().st_size for path in kept) / 1e6
            warm += [opened(bundle, engine, Path(folder)) for _ in range(rounds if n == 0 else 0)]
    middle = {
        name: {part: round(median(one[part] for one in starts), 3) for part in PARTS}
        for name, starts in (("cold_s", cold), ("warm_s", warm))
    }
    return {
        "bundle": bundle.name, "engine": engine, "rounds": rounds, "cache_mb": round(megabytes, 1),
        **middle,
    }  # fmt: skip


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = [
        measure(bundle, engine, options.rounds)
        for bundle in options.bundle
        for engine in options.engine
    ]
    with atomic_file(options.out) as file:
        file.write(document_text({"rows": rows, "machine": describe()}).encode())
    print_table(
        "median seconds",
        ["bundle", "engine", "start", *PARTS, "cache MB"],
        [
            [
                row["bundle"], row["engine"], name, *(f"{row[key][part]:.2f}" for part in PARTS),
                f"{row['cache_mb']:.1f}",
            ]
            for row in rows
            for name, key in (("cold", "cold_s"), ("warm", "warm_s"))
        ],
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
