"""kill -9 at random moments of everything that writes; then a full disk and a read-only one.

    python benchmarks/power_cuts.py [--times 50] [--only WORD ...] [--out RESULTS.json]

After each kill: what stands under its final name is whole. Then the same command again, to its end:
it recovers, and no leftover stays, neither beside the results nor in the temporary directory. One
process imports everything once and forks for each try, so that a kill meets the work and not the
imports. A full disk is a limit on the size of files (RLIMIT_FSIZE); a read-only one is a folder
without rights for a user without them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

DATA = Path(__file__).parents[1] / "tests" / "data"
TINY, RUN = DATA / "convlstm-tiny.bundle", DATA / "modernn-mini"
_FRAMES = 40
_MOST_S = 120.0
_SINKS = ("npz", "nc", "zarr", "tif", "png", "gif", "mp4", "jsonl")


@dataclass(frozen=True)
class Work:
    """A command line that writes, and how its results are judged."""

    words: list[str]
    whole: Callable[[Path], None]
    """Raises where something under its final name is not whole."""
    fresh: bool = True
    """Its results are removed before the next try; else it goes on with them."""
    again: list[str] = field(default_factory=list)
    """To go on after a kill, where that is another command."""


def frames(room: Path) -> Path:
    """An archive with times, 5 minutes apart."""
    import xarray as xr

    values = np.random.default_rng(0).random((_FRAMES, 16, 16)).astype(np.float32)
    time_ = np.datetime64("2024-01-01", "ns") + np.arange(_FRAMES) * np.timedelta64(5, "m")
    data = xr.Dataset(
        {"value": (("time", "y", "x"), values, {"units": "1"})}, coords={"time": time_}
    )
    data.to_netcdf(room / "in.nc", engine="netcdf4")
    return room / "in.nc"


def works(room: Path) -> dict[str, Work]:
    """All that writes, on small models."""
    source = str(frames(room))
    out = str(room / "out")
    stream = ["stream", str(TINY), source, "--threads", "1", "--policy", "pace"]
    found: dict[str, Work] = {
        "export": Work(["export", str(RUN), "--out", f"{out}/b"], bundle_is_whole),
        "parts split": Work(["parts", "split", str(RUN), "--out", f"{out}/p"], parts_are_whole),
        "parts join": Work(["parts", "join", f"{room}/parts", "--out", f"{out}/j"], run_is_whole),
        "train": Work(
            ["train", str(room / "small.toml"), "--out", f"{out}/run"], trained_is_whole,
            fresh=False, again=["train", "--resume", f"{out}/run"],
        ),
        "state file": Work(
            [*stream, "--state-file", f"{out}/s.state", "--sink", f"jsonl:{out}/a.jsonl"],
            results_are_whole, fresh=False,
        ),
    }  # fmt: skip
    for word in _SINKS:
        place = f"{out}/n.jsonl" if word == "jsonl" else f"{out}/{word}"
        found[f"stream to {word}"] = Work([*stream, "--sink", f"{word}:{place}"], results_are_whole)
    for end in ("nc", "npz", "zarr"):
        words = ["data", "convert", source, "--out", f"{out}/c.{end}"]
        found[f"data convert to {end}"] = Work(words, results_are_whole)
    return found


def bundle_is_whole(out: Path) -> None:
    """Opened with every checksum."""
    from stpl_core.bundle import open_bundle

    if (out / "b").exists():
        open_bundle(out / "b")


def parts_are_whole(out: Path) -> None:
    """Joined again."""
    from stpl_core.parts import join

    if (out / "p").exists():
        with tempfile.TemporaryDirectory() as folder:
            join(out / "p", Path(folder, "j"))


def run_is_whole(out: Path) -> None:
    """Every byte is there."""
    for path in RUN.iterdir():
        if (out / "j").exists():
            assert (out / "j" / path.name).read_bytes() == path.read_bytes(), path.name


def trained_is_whole(out: Path) -> None:
    """What is there opens."""
    from safetensors import safe_open

    from stpl_train.run import open_run

    run = out / "run"
    if run.exists():
        open_run(run)
        for path in visible(run):
            if path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    assert list(file.keys())
            if path.suffix == ".npz":
                np.load(path).close()


def results_are_whole(out: Path) -> None:
    """Every file is read to its end by another library."""
    for path in visible(out):
        end = path.suffix
        if end == ".npz":
            with np.load(path) as archive:
                for name in archive.files:
                    archive[name]
        elif end == ".nc":
            import netCDF4

            with netCDF4.Dataset(path) as file:
                for variable in file.variables.values():
                    variable[...]
        elif end in (".png", ".gif"):
            from PIL import Image

            with Image.open(path) as picture:
                for n in range(getattr(picture, "n_frames", 1)):
                    picture.seek(n)
                    picture.load()
        elif end == ".mp4":
            import av

            with av.open(str(path)) as film:
                assert sum(1 for _ in film.decode(video=0)) > 0
        elif end in (".tif", ".tiff"):
            import rasterio

            with rasterio.open(path) as file:
                file.read()
        elif end == ".jsonl":
            for line in path.read_text().splitlines():
                json.loads(line)
    for store in out.rglob("*.zarr"):
        if not any(part.startswith(".") for part in store.relative_to(out).parts):
            import xarray as xr

            with xr.open_zarr(store) as data:
                data.load()


def visible(out: Path) -> list[Path]:
    """Files under final names."""
    inside = [path for path in out.rglob("*") if path.is_file()]
    return [
        path for path in inside
        if not any(part.startswith(".") or part.endswith(".zarr")
                   for part in path.relative_to(out).parts)
    ]  # fmt: skip


def leftovers(room: Path) -> list[str]:
    """Hidden half-written names, beside results and in the temporary directory."""
    beside = [str(p.relative_to(room)) for p in (room / "out").rglob(".*")
              if p.name.endswith((".tmp", ".partial", ".newer", ".older", ".going"))]  # fmt: skip
    return beside + [f"tmp/{path.name}" for path in (room / "tmp").iterdir()]


def start(words: list[str], log: Path, limit: int | None = None, user: int | None = None) -> int:
    """Fork, and run a command line; the child's number."""
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
        if user is not None and os.getuid() == 0:
            os.setgid(user)
            os.setuid(user)
        from stpl_deploy.cli import run

        code = run(words)
        sys.stdout.flush()
        sys.stderr.flush()
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
    begin = time.monotonic()
    code = ended(start(work.words, room / "log"))
    length = time.monotonic() - begin
    if code:
        return {"fault": f"exit {code} undisturbed: {(room / 'log').read_text()[-300:]}"}
    for n in range(times):
        clear(room)
        child = start(work.words, room / "log")
        time.sleep(random.uniform(0.0, length))
        os.kill(child, signal.SIGKILL)
        found["killed" if ended(child) == -signal.SIGKILL else "already done"] += 1
        judged(work, room, found, faults, f"{n}, after the kill")
        found["with leftovers"] += bool(leftovers(room))
        words = work.words
        if work.again and (room / "out" / "run" / "recipe.toml").is_file():
            words = work.again
        elif work.fresh:
            remove_results(room / "out")
        code = ended(start(words, room / "log"))
        text = (room / "log").read_text()
        if code:
            found["not recovered"] += 1
            faults.append(f"{n}, again: exit {code}: {text[-200:]}")
        judged(work, room, found, faults, f"{n}, again")
        if left := leftovers(room):
            found["leftovers stay"] += 1
            faults.append(f"{n}: left {left[:3]}")
            for path in (room / "tmp").iterdir():
                shutil.rmtree(path, ignore_errors=True)
        found["said so"] += "left half-written" in text
    return {"seconds": round(length, 2), **found, "faults": faults[:10]}


def remove_results(out: Path) -> None:
    """Results that stand go, as a user would do; what is hidden stays."""
    for path in out.iterdir():
        if not path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def faulty_disks(work: Work, room: Path) -> dict[str, Any]:
    """A disk that fills up at several sizes, and one that cannot be written to."""
    found, faults = Counter[str](), list[str]()
    for limit in (1000, 3000, 10_000, 30_000, 100_000):  # the log needs some hundred
        clear(room)
        code = ended(start(work.words, room / "log", limit=limit))
        text = (room / "log").read_text()
        _one_line(found, faults, f"full at {limit}", code, text)
        judged(work, room, found, faults, f"full at {limit}")
        if left := leftovers(room):
            found["leftovers stay"] += 1
            faults.append(f"full at {limit}: left {left[:3]}")
    clear(room)
    (room / "out").chmod(0o555)
    code = ended(start(work.words, room / "log", user=65534))
    _one_line(found, faults, "read-only", code, (room / "log").read_text())
    (room / "out").chmod(0o777)
    return {**found, "faults": faults[:10]}


def _one_line(found: Counter[str], faults: list[str], what: str, code: int, text: str) -> None:
    found["went well" if code == 0 else f"exit {code}"] += 1
    if "Traceback" in text or code not in (0, 2, 4):
        found["not one line"] += 1
        faults.append(f"{what}: exit {code}: {text[-300:]}")


_RECIPE = """
[model]
name = "convlstm"
hidden = [4]
kernel = 3
patch = 2
[data]
source = "moving-mnist"
frame = [1, 8, 8]
digit_size = 4
context = 3
horizon = 3
digits = 1
validation_sequences = 4
[training]
iterations = 60
batch = 4
lr = 1e-2
validate_every = 10
checkpoint_every = 5
"""


def main() -> None:
    """Try all, print a line of JSON for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=50)
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
    (room / "small.toml").write_text(_RECIPE)
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
        sys.stdout.write(json.dumps({name: results[name]}) + "\n")
        sys.stdout.flush()
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    shutil.rmtree(room, ignore_errors=True)


if __name__ == "__main__":
    main()
