"""Thousands of hostile inputs for each kind, one at a time in a process that may fail:

    python -m tests.fuzz.campaign [KIND ...] [--inputs 20000] [--first 0] [--out RESULTS.jsonl]

Each input may use 5 s of computing and so much memory; may end in a refusal or be used; may open
what was named to the program, and ask nobody. What breaks this is printed with its kind and seed:
the same seed makes the same input again. One process: a full run takes hours.
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
_TICKS = os.sysconf("SC_CLK_TCK")


def _attempts(kind: str, seeds: range, folder: Path) -> None:
    """In the child: try every seed, a line of JSON for each."""
    from tests.fuzz.targets import TARGETS

    out = os.fdopen(os.dup(1), "w", buffering=1)
    for stream in (1, 2):  # libraries print to both
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    attempt = TARGETS[kind](folder)
    touched: list[str] = []
    sys.addaudithook(_hook(touched, folder))
    out.write('{"ready": true}\n')
    before = _peak()
    for seed in seeds:
        out.write(f'{{"try": {seed}}}\n')
        touched.clear()
        fault = ""
        try:
            result = attempt(seed)
        except BaseException as error:  # whatever comes out is what is looked for
            result, fault = "fault", _where(error)
        if touched:
            result, fault = "reached out", "; ".join(sorted(set(touched)))[:300]
        out.write(json.dumps({"seed": seed, "result": result, "fault": fault}) + "\n")
        if _peak() > before + _MOST_GROWTH:
            out.write(
                json.dumps({"seed": seed, "result": "memory", "fault": f"{_peak():,}"}) + "\n"
            )
            os._exit(0)
    os._exit(0)


def _peak() -> int:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(1024 * resource.getrusage(kind).ru_maxrss for kind in kinds)


def _where(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "/stpl_" in f.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "outside"
    text = str(error)
    if isinstance(error, AssertionError) and "Traceback" in text:
        lines = [line.strip() for line in text.splitlines() if "/stpl_" in line]
        place = lines[-1].rpartition("/")[2] if lines else place
        text = text.strip().splitlines()[-1]
    return f"{type(error).__name__} at {place}: {text[:200]}"


_ASKS = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "os.system", "os.exec",
         "os.posix_spawn", "os.link", "os.symlink", "pty.spawn", "webbrowser.open")  # fmt: skip


_SYSTEM = ("/usr/", "/proc/", "/sys/", "/dev/", "/etc/localtime", "/etc/os-release")


def _hook(touched: list[str], folder: Path) -> Any:
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
        elif event in _ASKS:
            touched.append(f"{event} {str(arguments)[:100]}")

    return note


class _Child:
    """One process that tries seeds, and its clock."""

    def __init__(self, kind: str, first: int, end: int, folder: Path) -> None:
        words = ["--child", kind, "--first", str(first), "--inputs", str(end - first)]
        environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1",
                       "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.campaign", *words, "--out", str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self._lines, self._rest = self.process.stdout, b""
        os.set_blocking(self._lines.fileno(), False)

    def lines(self, wait_s: float) -> list[dict[str, Any]] | None:
        """What came meanwhile; None: the process ended."""
        ready, _, _ = select.select([self._lines], [], [], wait_s)
        if not ready:
            return []
        got = self._lines.read()
        if not got:
            return None
        *whole, self._rest = (self._rest + got).split(b"\n")
        return [json.loads(line) for line in whole]

    def cpu_s(self) -> float:
        """Of the process and those that it started, alive or not."""
        total = 0.0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:  # its session
                total += sum(map(int, fields[11:13])) / _TICKS
                if stat.parent.name == str(self.process.pid):
                    total += sum(map(int, fields[13:15])) / _TICKS
        return total

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def campaign(kind: str, first: int, count: int, scratch: Path) -> dict[str, Any]:
    """Try `count` seeds of one kind; a child that ended or was ended is followed by another."""
    results: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    start, at, end = time.monotonic(), first, first + count
    while at < end and len(faults) < _MOST_FAULTS:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            at = _one_child(kind, at, end, folder, results, faults)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    done = sum(n for word, n in results.items() if word != "memory")
    return {
        "kind": kind, "first": first, "inputs": done, "results": dict(results), "faults": faults,
        "seconds": round(time.monotonic() - start),
    }  # fmt: skip


def _one_child(
    kind: str, at: int, end: int, folder: Path, results: Counter[str], faults: list[Any]
) -> int:
    """Returns the next seed."""
    child, trying = _Child(kind, at, end, folder), -1
    since, cpu = time.monotonic(), 0.0
    while True:
        found = child.lines(1.0)
        if found is None:
            code = child.process.wait()
            if at < end and code != 0:
                word = signal.Signals(-code).name if code < 0 else f"exit {code}"
                results["ended"] += 1
                faults.append({"seed": trying, "result": "ended", "fault": word})
                at = max(at, trying) + 1
            return at
        for line in found:
            since, cpu = time.monotonic(), child.cpu_s() if len(found) < 3 else cpu
            if "seed" in line:
                results[line["result"]] += 1
                at = line["seed"] + 1
                if line["fault"]:
                    faults.append(line)
                    if len(faults) >= _MOST_FAULTS:
                        child.kill()
                        return at
            elif "try" in line:
                trying = line["try"]
        if found:
            cpu = child.cpu_s()
        waited = time.monotonic() - since
        limit = _MOST_WALL_S if trying >= 0 else _START_WALL_S
        if waited > limit or (trying >= 0 and child.cpu_s() - cpu > _MOST_CPU_S):
            used = child.cpu_s() - cpu
            child.kill()
            results["hang"] += 1
            fault = f"{used:.1f} s of computing, {waited:.0f} s in all"
            faults.append({"seed": trying, "result": "hang", "fault": fault})
            return max(at, trying) + 1


def main() -> None:
    """Run what the command line names, one kind after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--child")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.child:
        seeds = range(options.first, options.first + options.inputs)
        _attempts(options.child, seeds, options.out)
    from tests.fuzz.targets import TARGETS

    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.kinds or TARGETS:
            result = campaign(kind, options.first, options.inputs, Path(scratch))
            line = json.dumps(result)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            if options.out:
                with options.out.open("a") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
