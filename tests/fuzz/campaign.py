"""Thousands of hostile inputs for each kind, one at a time in a process that may fail:

    python -m tests.fuzz.campaign [KIND ...] [--inputs 20000] [--first 0] [--minutes M]
                                  [--out RESULTS.jsonl]

Each input may use 5 s of computing and so much memory; may end in a refusal or be used; may open
what was named to the program, and ask nobody. What breaks this is printed with its kind and seed:
the same seed makes the same input again. A run goes on behind the seeds that RESULTS holds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

_MOST_CPU_S = 5.0
_MOST_WALL_S = 120.0
_MOST_GROWTH = 700 * 2**20
"""Bytes beyond what the process had before: the budget of the targets asks for far less."""
_START_WALL_S = 300.0
_MOST_FAULTS = 40
_MOST_GRIB = 2000
_TICKS = os.sysconf("SC_CLK_TCK")


def _attempts(kind: str, seeds: range, folder: Path) -> None:
    """In the child: try every seed; a line of JSON for each fault."""
    from tests.fuzz.targets import TARGETS

    tally = _tally(folder)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    attempt = TARGETS[kind](folder)
    for stream in (1, 2):  # libraries print to both
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    touched: list[str] = []
    sys.addaudithook(_hook(touched, folder, asks_names=kind == "server answers"))
    before = _peak()
    for seed in seeds:
        tally[_TRYING] = seed
        touched.clear()
        signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_S)  # ends this process
        result = fault = ""
        try:
            result = attempt(seed)
        except BaseException as error:  # whatever comes out is what is looked for
            result, fault = "fault", _where(error)
        if touched:
            result, fault = "reached out", "; ".join(sorted(set(touched)))[:300]
        signal.setitimer(signal.ITIMER_PROF, 0)
        if fault:
            out.write(json.dumps({"seed": seed, "result": result, "fault": fault}) + "\n")
        else:
            tally[_WORDS.index(result)] += 1
        tally[_GREW] = max(tally[_GREW], _peak() - before)
        if tally[_GREW] > _MOST_GROWTH:
            fault = f"{tally[_GREW]:,} bytes more than at the start"
            out.write(json.dumps({"seed": seed, "result": "memory", "fault": fault}) + "\n")
            break
    os._exit(0)


_TRYING, _GREW, _WORDS = 0, 1, ("trying", "grew", "refused", "used")


def _tally(folder: Path) -> Any:
    """Counts that both processes see: they cost nothing, and outlive the child."""
    import numpy as np

    path = folder.with_suffix(".tally")
    if not path.exists():
        np.array([-1, 0, 0, 0], np.int64).tofile(path)
    return np.memmap(path, np.int64, "r+", shape=(len(_WORDS),))


def _peak() -> int:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(1024 * resource.getrusage(kind).ru_maxrss for kind in kinds)


def _where(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "/stpl_" in f.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "outside"
    text = str(error)
    if isinstance(error, AssertionError) and ' File "' in text:
        lines = [line.strip() for line in text.splitlines() if "/stpl_" in line]
        place = lines[-1].rpartition("/")[2] if lines else place
        text = text.strip().splitlines()[-1]
    return f"{type(error).__name__} at {place}: {text[:200]}"


_ASKS = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "os.system", "os.exec",
         "os.posix_spawn", "os.link", "os.symlink", "pty.spawn", "webbrowser.open")  # fmt: skip


_SYSTEM = ("/usr/", "/proc/", "/sys/", "/dev/", "/etc/localtime", "/etc/os-release")


def _hook(touched: list[str], folder: Path, asks_names: bool) -> Any:
    """Note what is opened outside of what the program and the target need."""
    libraries = (sys.prefix, sys.base_prefix, *filter(None, sys.path), *_SYSTEM)
    here = str(Path(__file__).parents[2])
    allowed = (*libraries, str(folder), here, tempfile.gettempdir() + "/stpl")

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith(allowed):
                touched.append(f"open {path[:100]!r}")
        elif event == "subprocess.Popen":
            if "grib_process.py" not in str(arguments[1]):
                touched.append(f"Popen {str(arguments[1])[:100]}")
        elif event in _ASKS and not _may(event, arguments, asks_names):
            touched.append(f"{event} {str(arguments)[:100]}")

    return note


def _may(event: str, arguments: tuple[Any, ...], asks_names: bool) -> bool:
    """The targets that speak HTTP have their other end here; a redirect's host is looked up."""
    if event == "socket.getaddrinfo":
        return asks_names or arguments[0] == "127.0.0.1"
    return event == "socket.connect" and str(arguments[1][0]).startswith("127.0.0.1")


def seeds_of_a_process(kind: str, seeds: range) -> range:
    """All, but of GRIB: eccodes keeps memory of each message that it refuses.

    The product decodes one file in a process.
    """
    return seeds[:_MOST_GRIB] if kind == "grib" else seeds


class _Child:
    """One process that tries seeds, and its clock."""

    def __init__(self, kind: str, seeds: range, folder: Path) -> None:
        words = ["--child", kind, "--first", str(seeds.start), "--inputs", str(len(seeds))]
        environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1",
                       "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}  # fmt: skip
        self._folder, self.tally = folder, _tally(folder)
        self._log = folder.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.campaign", *words, "--out", str(folder)],
                stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        self._lines, self._rest = self.process.stdout, b""
        os.set_blocking(self._lines.fileno(), False)

    def faults(self, wait_s: float) -> list[dict[str, Any]] | None:
        """What came meanwhile; None: the process ended."""
        ready, _, _ = select.select([self._lines], [], [], wait_s)
        if not ready:
            return []
        got = self._lines.read()
        if not got:
            return None
        *whole, self._rest = (self._rest + got).split(b"\n")
        return [json.loads(line) for line in whole]

    def helpers_cpu_s(self) -> float:
        """Of the processes that it started for the present input."""
        total = 0.0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            if stat.parent.name == str(self.process.pid):
                continue
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:  # its session
                total += sum(map(int, fields[11:13])) / _TICKS
        return total

    def end(self) -> None:
        """Kill it with all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self) -> str:
        """Why it ended, where it could not begin."""
        return self._log.read_text(errors="replace").strip().rpartition("\n")[2][:300]


class Clock:
    """Seconds that this process ran; none pass while it is stopped. Look at it every second."""

    def __init__(self) -> None:
        self._last, self._seconds = time.monotonic(), 0.0

    def seconds(self) -> float:
        """Since it was made."""
        now = time.monotonic()
        self._seconds += min(now - self._last, 2.0)
        self._last = now
        return self._seconds


def campaign(kind: str, seeds: range, scratch: Path, clock: Clock, until: float) -> dict[str, Any]:
    """Try seeds of one kind up to a time; a child that ended or was ended is followed by another.

    Returns:
        what came of them, with the seed to go on at as `next`.
    """
    results: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    start, at, grew = clock.seconds(), seeds.start, 0
    while at < seeds.stop and len(faults) < _MOST_FAULTS and clock.seconds() < until:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        child = _Child(kind, seeds_of_a_process(kind, range(at, seeds.stop)), folder)
        try:
            found = _watched(child, clock, until)
            results.update(entry["result"] for entry in found)
            faults += found
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        tally = child.tally
        grew = max(grew, int(tally[_GREW]))
        results.update({word: int(tally[_WORDS.index(word)]) for word in ("refused", "used")})
        if tally[_TRYING] < 0:
            if clock.seconds() < until:
                faults.append({"seed": at, "result": "unprepared", "fault": child.last_words()})
            break
        # The one that was cut off by the time limit is tried again.
        at = sum(results[word] for word in results if word != "memory") + seeds.start
    return {
        "kind": kind, "first": seeds.start, "next": at, "results": dict(results),
        "grew_mb": round(grew / 2**20), "seconds": round(clock.seconds() - start),
        "faults": faults,
    }  # fmt: skip


def _watched(child: _Child, clock: Clock, until: float) -> list[dict[str, Any]]:
    """Wait for its end, or end it; its faults."""
    faults: list[dict[str, Any]] = []
    trying, since = -1, clock.seconds()
    while True:
        found = child.faults(1.0)
        if found is None:
            return faults + _how_it_ended(child)
        faults += found
        now = clock.seconds()
        if trying != child.tally[_TRYING]:
            trying, since = int(child.tally[_TRYING]), now
        waited_s = now - since
        if len(faults) >= _MOST_FAULTS or now > until:
            child.end()
            return faults
        helpers = child.helpers_cpu_s() if waited_s > 2 else 0.0
        if helpers > _MOST_CPU_S or waited_s > (_MOST_WALL_S if trying >= 0 else _START_WALL_S):
            child.end()
            fault = f"{helpers:.1f} s of computing in helpers, {waited_s:.0f} s in all"
            if trying < 0:  # it was still importing: no input hung
                return faults
            return [*faults, {"seed": trying, "result": "hang", "fault": fault}]


def _how_it_ended(child: _Child) -> list[dict[str, Any]]:
    code, trying = child.process.wait(), int(child.tally[_TRYING])
    if code == 0 or trying < 0:
        return []
    if code == -signal.SIGPROF:
        fault = f"more than {_MOST_CPU_S:g} s of computing"
        return [{"seed": trying, "result": "hang", "fault": fault}]
    if code == -signal.SIGXCPU:  # the limit that the decoding process of GRIB gives itself
        return [{"seed": trying, "result": "limited", "fault": "ended itself"}]
    word = signal.Signals(-code).name if code < 0 else f"exit {code}"
    return [{"seed": trying, "result": "ended", "fault": word}]


def main() -> None:
    """Run what the command line names, one kind after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--child")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.child:
        _attempts(options.child, range(options.first, options.first + options.inputs), options.out)
    from tests.fuzz.targets import TARGETS

    clock, until = Clock(), 60 * options.minutes
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.kinds or TARGETS:
            first = next_seed(options.out, kind, options.first)
            seeds = range(first, options.first + options.inputs)
            if not seeds or clock.seconds() > until:
                continue
            line = json.dumps(campaign(kind, seeds, Path(scratch), clock, until))
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            if options.out:
                with options.out.open("a") as file:
                    file.write(line + "\n")


def next_seed(results: Path | None, kind: str, first: int) -> int:
    """Where a campaign goes on that wrote these results."""
    if results is None or not results.exists():
        return first
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return max([first, *(line["next"] for line in lines if line["kind"] == kind)])


if __name__ == "__main__":
    main()
