"""Backfill an archive in every way; writes benchmarks/results/backfill.json.

    python benchmarks/backfill.py [BUNDLE] [--windows 2000] [--small]

One archive of made-up frames is turned into nowcasts by one process, by two workers, by two workers
of which one is killed (-9) on the way, by four shards and, where `distributed` is installed, by a
local Dask cluster of two workers of which one is killed. The stores must be equal, file by file; a
second run over each must write nothing. Reported are seconds, windows a second, the greatest
resident memory of any process, and how many times one process two workers are: one thread each, in
turn, on a machine that does nothing else. The committed figures are those of a small ConvLSTM at
64x64, 18 ms a nowcast, since a run of tests/data/modernn-mini.bundle is hardly longer than the
start of a worker:

    stpl-deploy train convlstm-mmnist --out run --set 'model.hidden=[32,32]' --iterations 2 \
        --set data.images=scikit-learn --set training.batch=2 --set data.validation_sequences=4
    stpl-deploy export run --out convlstm-32.bundle
    python benchmarks/backfill.py convlstm-32.bundle
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.bundle import open_bundle
from stpl_core.files import atomic_file
from stpl_core.machine import cpu_name, usable_cpus
from stpl_core.readers.store import convert
from stpl_deploy.cli.reports.output import document_text, print_table

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "tests" / "data" / "modernn-mini.bundle"
RESULT = Path(__file__).parent / "results" / "backfill.json"
ROUNDS = 3
"""Of the two that are compared in time."""


def make_archive(folder: Path, bundle: Path, windows: int) -> Path:
    """A converted archive of random frames, without gaps, that has so many complete windows."""
    manifest = open_bundle(bundle).manifest
    count = windows + manifest.context - 1
    codec = manifest.codec
    random = np.random.default_rng(0).random((count, *manifest.frame), dtype=np.float32)
    frames = (codec.low + random * (codec.high - codec.low)).astype(np.float32)
    step = np.timedelta64(round(manifest.cadence_s or 300), "s")
    times = np.datetime64("2026-01-01T00:00", "s") + np.arange(count) * step
    path = folder / "frames.npz"
    np.savez(path, frames=frames, time=times, units=np.array(codec.units))
    convert(path, folder / "frames.zarr")
    return folder / "frames.zarr"


def content(store: Path) -> dict[str, bytes]:
    """Every file but the group's attributes, which hold the time of its making."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name not in (".zattrs", ".zmetadata")
    }


def stamps(store: Path) -> dict[str, int]:
    """When every file was written."""
    return {str(path): path.stat().st_mtime_ns for path in store.rglob("*")}


def children_of(process: int) -> list[int]:
    """The processes that it started, from whichever thread, and those that they did."""
    own: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # the thread ended
            own += map(int, file.read_text().split())
    return [one for child in own for one in (child, *children_of(child))]


def resident(process: int) -> int:
    """Its greatest resident memory so far, in bytes."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def is_worker(process: int) -> bool:
    """Whether it makes blocks for another one."""
    try:
        return b"backfilling.worker" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


class Peak:
    """Watches the memory of a process and its children; can kill one of them."""

    def __init__(self, process: int, store: Path, *, kills: bool) -> None:
        """Watch until `stop`."""
        self.bytes, self.killed = 0, 0
        self._process, self._store, self._kills = process, store, kills
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            children = children_of(self._process)
            self.bytes = max(self.bytes, *map(resident, (self._process, *children)))
            if self._kills and not self.killed and blocks_done(self._store) > 1:
                for one in filter(is_worker, children):
                    os.kill(one, signal.SIGKILL)
                    self.killed = one
                    break


def blocks_done(store: Path) -> int:
    """How many blocks are made."""
    return len(list((store / "status").glob("[0-9]*")))


def run(store: Path, archive: Path, bundle: Path, *words: str, kills: bool = False) -> Any:
    """One run of the command: its report, with the greatest memory of any of its processes."""
    command = [sys.executable, "-m", "stpl_deploy", "backfill", str(bundle), str(archive)]
    command += ["--out", str(store), "--engine", "onnx", "--json", *words]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = Peak(process.pid, store, kills=kills)
    text, _ = process.communicate()
    peak.stop()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    if kills and not peak.killed:
        raise SystemExit("no worker was killed: more --windows")
    return {
        **json.loads(text),
        "wall_s": round(time.perf_counter() - began, 2),
        "peak_mb": round(peak.bytes / 1e6),
    }


@contextmanager
def dask_cluster() -> Iterator[tuple[str, list[int]]]:
    """A local cluster of two workers: its address, and their processes."""
    from distributed import Client, LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        address = str(cluster.scheduler_address)
        with Client(address, set_as_default=False) as client:
            processes = list(client.run(os.getpid).values())
        yield address, processes


def on_dask(store: Path, archive: Path, bundle: Path) -> Any:
    """By a cluster of which one worker is killed."""
    with dask_cluster() as (address, processes):
        over = threading.Event()

        def kill() -> None:
            while not over.wait(0.05):
                if blocks_done(store) > 1:
                    os.kill(processes[0], 9)
                    return

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        report = run(store, archive, bundle, "--dask", address)
        over.set()
        thread.join()
    return report


def by_shards(store: Path, archive: Path, bundle: Path) -> Any:
    """Four shards, one after the other: the last one's report."""
    reports = [
        run(store, archive, bundle, "--threads", "1", "--shard", f"{part}/4")
        for part in (2, 4, 1, 3)
    ]
    last = reports[-1]
    last["wall_s"] = round(sum(one["wall_s"] for one in reports), 2)
    last["made"] = sum(one["made"] for one in reports)
    return last


def all_ways(folder: Path, archive: Path, bundle: Path) -> dict[str, Any]:
    """Every way -> its report."""
    two = ("--workers", "2", "--threads", "1")
    ways: dict[str, Callable[[Path], Any]] = {
        "one process": lambda store: run(store, archive, bundle, "--threads", "1"),
        "2 workers": lambda store: run(store, archive, bundle, *two),
        "2 workers, one killed": lambda store: run(store, archive, bundle, *two, kills=True),
        "4 shards": lambda store: by_shards(store, archive, bundle),
    }
    if importlib.util.find_spec("distributed") is not None:
        ways["Dask, 2 workers, one killed"] = lambda store: on_dask(store, archive, bundle)
    found: dict[str, Any] = {}
    first: dict[str, bytes] = {}
    for name, way in ways.items():
        store = folder / f"{name.replace(' ', '-').replace(',', '')}.zarr"
        report = way(store)
        made = content(store)
        first = first or made
        before = stamps(store)
        again = run(store, archive, bundle)
        report["equal"] = made == first
        report["second_run_writes"] = again["made"] or int(stamps(store) != before)
        found[name] = report
        shutil.rmtree(store)
    return found


def speed(folder: Path, archive: Path, bundle: Path) -> dict[str, Any]:
    """One process and two workers in turn, one thread each: how many times faster two are."""
    ratios = []
    for n in range(ROUNDS):
        one = run(folder / f"one-{n}.zarr", archive, bundle, "--threads", "1")
        two = run(folder / f"two-{n}.zarr", archive, bundle, "--workers", "2", "--threads", "1")
        ratios.append(one["wall_s"] / two["wall_s"])
    return {"rounds": ROUNDS, "median": round(float(np.median(ratios)), 2), "all": ratios}


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=BUNDLE)
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--small", action="store_true", help="200 windows, nothing is saved")
    asked = parser.parse_args()
    windows = 200 if asked.small else asked.windows
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        archive = make_archive(folder, asked.bundle, windows)
        times = speed(folder, archive, asked.bundle)
        ways = all_ways(folder, archive, asked.bundle)
    rows = [
        [name, f"{one['made']}", f"{one['wall_s']:g}", f"{one['peak_mb']}", str(one["equal"]),
         str(one["second_run_writes"])]
        for name, one in ways.items()
    ]  # fmt: skip
    columns = ["", "windows", "seconds", "peak MB", "equal", "second run writes"]
    print_table(f"{windows} windows of {asked.bundle.name}", columns, rows)
    print(f"2 workers are {times['median']} times one process ({ROUNDS} rounds)")
    if not asked.small:
        document = {
            "bundle": asked.bundle.name,
            "windows": windows,
            "cpu": cpu_name(),
            "cpus": usable_cpus(),
            "ways": {name: _kept(one) for name, one in ways.items()},
            "two_workers_over_one": times,
        }
        with atomic_file(RESULT) as file:
            file.write(document_text(document).encode())
    if not all(one["equal"] and not one["second_run_writes"] for one in ways.values()):
        raise SystemExit("stores differ, or a second run wrote")


def _kept(report: dict[str, Any]) -> dict[str, Any]:
    """Without times: the ways do not take turns, and are not to be compared by them."""
    left_out = ("out", "reasons", "seconds", "wall_s")
    return {key: value for key, value in report.items() if key not in left_out}


if __name__ == "__main__":
    main()
