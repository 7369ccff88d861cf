"""Streams in one process, batched and as they are; writes benchmarks/results/batching.json.

    python benchmarks/batching.py BUNDLE [--streams 1 2 4 8 16] [--rounds 5] [--wait-ms 20]

For each number of streams, one process runs them twice over one session: as `stpl-deploy stream`
does, and with `--batch-wait`. The two take turns, in a new order every round. A round has two
parts:

- frames that wait: `--ticks` of each stream at once. Nowcasts a second, past included;
- frames that come: one of each stream within `--spread-ms`, when the work ahead is done. The
  latency is from the arrival of a frame to its nowcast.

A ratio is the median over rounds of the rate of the batched streams over that of the others, with
its least and its greatest. With one stream the two are the same: what is seen there is noise. Run
it on a machine that does nothing else; where that was not the case, `--note` says so.
"""

from __future__ import annotations

import argparse
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.frames import Frame
from stpl_core.machine import describe, usable_cpus
from stpl_core.options import EngineOptions, StreamOptions
from stpl_deploy.cli.reports.output import document_text, print_table
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.links.health import Health
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.make import open_backend
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.source import Arrival
from stpl_runtime.streaming.continuous.streams import put_together, session_for
from stpl_runtime.streaming.status import Status
from stpl_runtime.streaming.stream import Stream

RESULT = Path(__file__).parent / "results" / "batching.json"
WAYS = ("today", "batched")
_CADENCE_S = 300.0
_START = datetime(2026, 1, 1, tzinfo=timezone.utc)
_LONGEST_S = 600.0


class _Fed:
    """A source that gives what is put into its queue."""

    name, waits = "fed", True

    def __init__(self) -> None:
        self.frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self.health = Health()

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield each frame as soon as it is put."""
        while not stop.is_set():
            try:
                frame = self.frames.get(timeout=0.2)
            except queue.Empty:
                continue
            yield Arrival.now(frame)


class _Times(Status):
    """Notes when nowcasts are made, and prints nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.made = threading.Semaphore(0)
        self.latencies: list[float] = []

    def line(self, line: str, event: str = "note", level: Any = "info", **facts: Any) -> None:
        """Nothing is printed."""

    def nowcast(self, nowcast: Nowcast, counts: Any, skipped: int) -> None:
        """One is there."""
        self.latencies.append(nowcast.latency_ms or 0.0)
        self.made.release()

    def wait(self, count: int) -> None:
        """Return once so many more were made."""
        for _ in range(count):
            if not self.made.acquire(timeout=_LONGEST_S):
                raise RuntimeError("a nowcast did not come")


class _Running:
    """Some streams that run in a thread of their own."""

    def __init__(self, bundle: Bundle, session: Session, streams: int, wait_ms: float | None):
        options = StreamOptions((), batch_wait=wait_ms)
        shared = session_for(options, session, streams)
        self.times, self.sources = _Times(), [_Fed() for _ in range(streams)]
        self._data, self._slot, self._context = moving(bundle), 0, bundle.manifest.context
        each = []
        for n, source in enumerate(self.sources):
            ledger = Ledger()
            nowcaster = Nowcaster(
                bundle, shared, cadence_s=_CADENCE_S, ledger=ledger, stream=f"s{n}"
            )
            each.append(Stream(nowcaster, source, ledger=ledger, status=self.times, policy="queue"))
        self.streams = put_together(options, each, shared, bundle)
        self._thread = threading.Thread(target=self.streams.run, daemon=True)
        self._thread.start()
        for _ in range(self._context):
            self.tick(0.0)
        self.times.wait(streams)

    def tick(self, spread_s: float) -> None:
        """A frame of each stream, in a random order, within so many seconds."""
        moments = sorted(random.uniform(0, spread_s) for _ in self.sources)
        order = random.sample(range(len(self.sources)), len(self.sources))
        began = time.monotonic()
        for moment, n in zip(moments, order, strict=True):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            data = self._data[(self._slot + 3 * n) % len(self._data)]
            at = _START + self._slot * timedelta(seconds=_CADENCE_S)
            self.sources[n].frames.put(Frame(at, data))
        self._slot += 1

    def rate(self, ticks: int) -> float:
        """Nowcasts a second of frames that wait."""
        began = time.perf_counter()
        for _ in range(ticks):
            self.tick(0.0)
        self.times.wait(ticks * len(self.sources))
        return ticks * len(self.sources) / (time.perf_counter() - began)

    def latencies(self, ticks: int, spread_s: float, settle_s: float) -> list[float]:
        """Milliseconds from frames that come to their nowcasts."""
        self.times.latencies.clear()
        for _ in range(ticks):
            time.sleep(settle_s)
            self.tick(spread_s)
            self.times.wait(len(self.sources))
        return list(self.times.latencies)

    def close(self) -> None:
        """Stop."""
        self.streams.stop()
        self._thread.join(_LONGEST_S)


def moving(bundle: Bundle) -> Array:
    """Frames `(N, C, H, W)`, physical units: the bundle's own sequences, one after the other."""
    reference = load_reference(bundle)
    whole = np.concatenate([reference.context, reference.truth], axis=1)  # (N, T + K, C, H, W)
    frames: Array = bundle.manifest.codec.physical_from_model(whole.reshape(-1, *whole.shape[2:]))
    return frames


@dataclass
class Found:
    """What was measured of one way."""

    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Its figures."""
        median, p95 = np.percentile(self.latencies, (50, 95))
        return {
            "nowcasts_per_s": float(np.median(self.rates)),
            "least_per_s": min(self.rates),
            "most_per_s": max(self.rates),
            "latency_median_ms": float(median),
            "latency_p95_ms": float(p95),
        }


def in_turn(
    bundle: Bundle, session: Session, streams: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Both ways with so many streams."""
    running = {
        way: _Running(bundle, session, streams, given.wait_ms if way == "batched" else None)
        for way in WAYS
    }
    found, order = {way: Found() for way in WAYS}, list(WAYS)
    settle_s = 1.5 * streams / running["today"].rate(2)
    for _ in range(given.rounds):
        random.shuffle(order)
        for way in order:
            found[way].rates.append(running[way].rate(given.ticks))
        for way in order:
            spread_s = given.spread_ms / 1e3
            found[way].latencies += running[way].latencies(given.ticks, spread_s, settle_s)
    for one in running.values():
        one.close()
    reports = {way: one.streams.report() for way, one in running.items()}
    ratios = np.divide(found["batched"].rates, found["today"].rates)
    return {
        "streams": streams,
        **{way: found[way].row() for way in WAYS},
        "ratio": float(np.median(ratios)),
        "ratio_least": float(ratios.min()),
        "ratio_most": float(ratios.max()),
        "batches": {way: sorted(report.batches) for way, report in reports.items()},
        "greatest_difference": reports["batched"].batch_gap,
    }


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """For a person."""
    print_table(
        "nowcasts a second; latency, median and p95, in ms",
        ["streams", *WAYS, "ratio", "least to most", *(f"{way} ms" for way in WAYS), "batches"],
        [
            [
                str(row["streams"]),
                *(f"{row[way]['nowcasts_per_s']:.1f}" for way in WAYS),
                f"{row['ratio']:.2f}",
                f"{row['ratio_least']:.2f} to {row['ratio_most']:.2f}",
                *(
                    f"{row[way]['latency_median_ms']:.1f}, {row[way]['latency_p95_ms']:.1f}"
                    for way in WAYS
                ),
                " ".join(map(str, row["batches"]["batched"])) or "none",
            ]
            for row in rows
        ],
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ticks", type=int, default=20)
    parser.add_argument("--wait-ms", type=float, default=20.0)
    parser.add_argument("--spread-ms", type=float, default=5.0)
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    with open_backend(bundle, EngineOptions(engine=given.engine)) as session:
        rows = [in_turn(bundle, session, streams, given) for streams in given.streams]
        provider = session.provider
    document = {
        "bundle": given.bundle.name,
        "model": bundle.manifest.model.name,
        "engine": given.engine,
        "provider": provider,
        "threads": usable_cpus(),
        "rounds": given.rounds,
        "ticks": given.ticks,
        "wait_ms": given.wait_ms,
        "spread_ms": given.spread_ms,
        "note": given.note,
        "rows": rows,
        "machine": describe(),
    }
    with atomic_file(given.out) as file:
        file.write(document_text(document).encode())
    print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
