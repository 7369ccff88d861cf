"""kill -9 at random moments of everything that writes; then a full disk and a read-only one.

    python -m benchmarks.power_cuts [--times 50] [--only WORD ...] [--out RESULTS.json]

After each kill: what stands under its final name is whole. Then the same command again, to its end:
it recovers, and no leftover stays, neither beside the results nor in the temporary directory. One
process imports everything once and forks for each try, so that a kill meets the work and not the
imports: four of five after its first file was there. A full disk is a limit on the size of files
(RLIMIT_FSIZE); a read-only one is a folder without rights. For root there are disks of their own
(tmpfs): one that fills up, one that is read-only from the start, and one that turns so while it is
written.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.what_writes import RUN, Work, tiny_recipe, works

_MOST_S = 600.0
_MOST_TRIES = 4
"""For each kill: a process may have ended before."""
_OTHERS = "torchinductor_"
"""What torch itself keeps in the temporary directory."""


def leftovers(room: Path) -> list[str]:
    """Hidden half-written names, beside results and in the temporary directory."""
    beside = [str(p.relative_to(room)) for p in (room / "out").rglob(".*")
              if p.name.endswith((".tmp", ".partial", ".newer", ".older", ".going"))]  # fmt: skip
    inside = [path.name for path in (room / "tmp").iterdir()]
    return beside + [f"tmp/{name}" for name in inside if not name.startswith(_OTHERS)]


def start(
    words: list[str], log: Path, limit: int | None = None, modules: Path | None = None
) -> int:
    """Fork, and run a command line; the child's number.

    Args:
        words: of the command line.
        log: where its output goes.
        limit: most bytes of a file.
        modules: where it writes the names of what it imported.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        from stpl_deploy.cli import run

        code = run(words)
        sys.stdout.flush()
        sys.stderr.flush()
        if modules is not None:
            modules.write_text("\n".join(list(sys.modules)))
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code; negative: a signal; a process that hangs is killed and counts as 99."""
    until = time.monotonic() + _MOST_S
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 99


def clear(room: Path) -> None:
    """An empty place for results."""
    shutil.rmtree(room / "out", ignore_errors=True)
    (room / "out").mkdir()


def judged(work: Work, room: Path, found: Counter[str], faults: list[str], what: str) -> None:
    """Note whether what stands under final names is whole."""
    try:
        work.whole(room / "out")
    except Exception as error:  # whatever a library raises for what is half-written
        found["half-written"] += 1
        faults.append(f"{what}: {type(error).__name__}: {error}"[:300])


def kills(name: str, work: Work, room: Path, times: int) -> dict[str, Any]:
    """Kill at random moments, judge, run again to the end, judge."""
    found, faults, random = Counter[str](), list[str](), Random(name)
    clear(room)
    code = ended(start(work.words, room / "log", modules=room / "modules"))
    if code:
        return {"fault": f"exit {code} undisturbed: {(room / 'log').read_text()[-300:]}"}
    import_all(room / "modules")
    writes, length = phases(work, room)
    for n in range(_MOST_TRIES * times):
        if found["killed"] == times:
            break
        clear(room)
        begin, child = time.monotonic(), start(work.words, room / "log")
        wait_until(child, begin + random.uniform(writes if n % 5 else 0.0, length))
        took = time.monotonic() - begin
        os.kill(child, signal.SIGKILL)
        if ended(child) == -signal.SIGKILL:
            found["killed"] += 1
        else:  # it works faster by now: what comes next is killed earlier
            found["already done"] += 1
            length, writes = min(length, took), writes * min(1.0, took / length)
        judged(work, room, found, faults, f"{n}, after the kill")
        left = [name for name in leftovers(room) if not name.startswith("tmp/")]
        found["with leftovers beside results"] += bool(left)
        _again(work, room, found, faults, str(n))
        for path in (room / "tmp").iterdir():
            shutil.rmtree(path, ignore_errors=True)
        found["said so"] += "left half-written" in (room / "log").read_text()
    return {"seconds": round(length, 2), "first file": round(writes, 2), **found,
            "faults": faults[:10]}  # fmt: skip


def import_all(names: Path) -> None:
    """Import what a child imported, so that its successors start at their work."""
    for name in names.read_text().splitlines():
        with suppress(Exception):  # parts of a package that are not modules by themselves
            importlib.import_module(name)


def has_ended(child: int) -> bool:
    """Whether it has; its exit code stays to be asked for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_until(child: int, moment: float) -> None:
    """Up to a moment of the monotonic clock, or the child's end."""
    while time.monotonic() < moment and not has_ended(child):
        time.sleep(0.002)


def phases(work: Work, room: Path) -> tuple[float, float]:
    """Seconds up to the first file among the results, and up to the end."""
    clear(room)
    begin = time.monotonic()
    child = start(work.words, room / "log")
    while not any((room / "out").iterdir()) and not has_ended(child):
        time.sleep(0.002)
    writes = time.monotonic() - begin
    ended(child)
    return writes, time.monotonic() - begin


def remove_results(out: Path) -> None:
    """Results that stand go, as a user would do; what is hidden stays."""
    for path in out.iterdir():
        if not path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def faulty_disks(work: Work, room: Path) -> dict[str, Any]:
    """A disk that fills up at several sizes, and one that cannot be written to."""
    found, faults = Counter[str](), list[str]()
    for limit in (3000, 10_000, 30_000, 100_000):  # the log needs up to two thousand
        clear(room)
        code = ended(start(work.words, room / "log", limit=limit))
        text = (room / "log").read_text()
        _one_line(found, faults, f"full at {limit}", code, text)
        judged(work, room, found, faults, f"full at {limit}")
        if left := leftovers(room):
            found["leftovers stay"] += 1
            faults.append(f"full at {limit}: left {left[:3]}")
    if os.getuid() != 0:  # root may write everywhere
        clear(room)
        (room / "out").chmod(0o555)
        code = ended(start(work.words, room / "log"))
        _one_line(found, faults, "read-only", code, (room / "log").read_text())
        (room / "out").chmod(0o777)
    return {**found, "faults": faults[:10]}


def real_disks(work: Work, room: Path, times: int) -> dict[str, Any]:
    """A disk of its own that fills up, is read-only, or turns so; then there is room again."""
    found, faults, random = Counter[str](), list[str](), Random(str(work.words[:2]))
    clear(room)
    begin = time.monotonic()
    ended(start(work.words, room / "log"))
    length = time.monotonic() - begin
    whole = sum(4 + path.stat().st_size // 1024 for path in (room / "out").rglob("*"))  # kB
    for n in range(times):
        size, what = random.randint(4, max(5, whole)), f"{n}, full"
        with disk(room, size) as change:
            _tried(work, room, found, faults, f"{what} at {size} kB")
            change(f"remount,size={8 * whole + 10_000}k")
            _again(work, room, found, faults, what)
        with disk(room, 8 * whole + 10_000) as change:
            what, wait_s = f"{n}, read-only", random.uniform(0.0, length) * (n > 0)
            child = start(work.words, room / "log")
            until = time.monotonic() + wait_s
            # The system turns no disk read-only while a file on it is open for writing.
            while time.monotonic() < until or not change("remount,ro"):
                if has_ended(child):
                    break
                time.sleep(0.002)
            _judged_end(ended(child), work, room, found, faults, what)
            change("remount,rw")
            _again(work, room, found, faults, what)
    return {**found, "faults": faults[:10]}


@contextmanager
def disk(room: Path, kilobytes: int) -> Iterator[Callable[[str], bool]]:
    """A small disk in the place of the results; what changes it returns whether that went."""
    clear(room)
    place = str(room / "out")
    size = f"size={kilobytes}k,mode=777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], check=True)

    def change(how: str) -> bool:
        done = subprocess.run(["mount", "-o", how, place], capture_output=True, check=False)
        return done.returncode == 0

    try:
        yield change
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def has_disks(room: Path) -> bool:
    """Whether this user may make one here."""
    try:
        with disk(room, 100):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _tried(work: Work, room: Path, found: Counter[str], faults: list[str], what: str) -> None:
    _judged_end(ended(start(work.words, room / "log")), work, room, found, faults, what)


def _judged_end(
    code: int, work: Work, room: Path, found: Counter[str], faults: list[str], what: str
) -> None:
    _one_line(found, faults, what, code, (room / "log").read_text())
    judged(work, room, found, faults, what)


def _again(work: Work, room: Path, found: Counter[str], faults: list[str], what: str) -> None:
    """The same command, or the one that goes on; it must reach its end."""
    words = work.words
    if work.again and (room / "out" / "run" / "recipe.toml").is_file():
        words = work.again
    elif work.fresh:
        remove_results(room / "out")
    code = ended(start(words, room / "log"))
    if code:
        found["not recovered"] += 1
        faults.append(f"{what}, again: exit {code}: {(room / 'log').read_text()[-300:]}")
    judged(work, room, found, faults, f"{what}, again")
    if left := leftovers(room):
        found["leftovers stay"] += 1
        faults.append(f"{what}: left {left[:3]}")


def _one_line(found: Counter[str], faults: list[str], what: str, code: int, text: str) -> None:
    found["went well" if code == 0 else f"exit {code}"] += 1
    if "Traceback" in text or code not in (0, 2, 4):
        found["not one line"] += 1
        faults.append(f"{what}: exit {code}: {text[-300:]}")


def main() -> None:
    """Try all, print a line of JSON for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--disks", type=int, default=10, help="tries on disks of their own")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch  # noqa: F401  # imported once, for every child

    import stpl_deploy.cli.verbs  # noqa: F401

    room = Path(tempfile.mkdtemp(prefix="power-"))
    room.chmod(0o755)
    (room / "tmp").mkdir(mode=0o1777)
    (room / "tmp").chmod(0o1777)
    os.environ["TMPDIR"], tempfile.tempdir = str(room / "tmp"), str(room / "tmp")
    os.environ["HOME"] = str(room)
    (room / "small.toml").write_text(tiny_recipe(60, 10, 5))
    from stpl_core.machine import describe
    from stpl_core.parts import split
    from stpl_core.safety import half_written

    split(RUN, room / "parts", 20_000)
    results: dict[str, Any] = {}
    for name, work in works(room).items():
        if options.only and not any(word in name for word in options.only):
            continue
        half_written._looked.clear()
        results[name] = {"kills": kills(name, work, room, options.times)}
        if name != "train":
            results[name]["disks"] = faulty_disks(work, room)
        if options.disks and has_disks(room):
            results[name]["own disks"] = real_disks(work, room, options.disks)
        sys.stdout.write(json.dumps({name: results[name]}) + "\n")
        sys.stdout.flush()
        if options.out:  # piece by piece: what was tried before stays
            before = json.loads(options.out.read_text()) if options.out.exists() else {}
            together = {"machine": describe(), **before, **results}
            options.out.write_text(json.dumps(together, indent=1) + "\n")
    shutil.rmtree(room, ignore_errors=True)


if __name__ == "__main__":
    main()
