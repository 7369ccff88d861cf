"""Fresh environments with one extra of the wheel each: made, measured and removed again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.support_matrix import ROOT

TIMES = 7
"""Processes, of which the fastest counts: what else the machine does only adds to it."""
_NEWEST = "3.13"
"""The Python that every extra is asked for whole."""
_IMPORT = """
import time
began = time.perf_counter()
import stpl_deploy
print(time.perf_counter() - began)
"""
_CUDA = ("nvidia-", "cuda-")


@dataclass(frozen=True)
class Row:
    """One extra on one Python."""

    extras: str
    python: str
    """Such as 3.11."""
    version: str
    """Of the Python, such as 3.11.7."""
    reason: str = ""
    """Why it was not installed; empty where it was."""
    without: tuple[str, ...] = ()
    """Libraries of the extra that it does not ask for on this Python."""
    packages: int = 0
    mb: float = 0.0
    """Of site-packages, with the .pyc files that pip makes; 1 MB is 10^6 bytes."""
    install_s: float = 0.0
    """With every package fetched over the network: pip's cache is off."""
    import_s: float = 0.0
    """`import stpl_deploy`, in a process of its own; the fastest."""
    help_s: float = 0.0
    """`stpl-deploy --help` from start to end; the fastest."""
    load: float = 0.0
    """Processes that waited for a CPU in the minute before the end, this one among them; 0: it was
    not noted, and the starts were not timed."""


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, in `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def asked_for(wheel: Path, extras: str, python: str) -> dict[str, str]:
    """Libraries that the wheel's metadata ask for, with their versions; not what these ask for."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(file.read(name).decode())
    own, lines = str(metadata["Name"]), metadata.get_all("Requires-Dist", [])
    requirements = [Requirement(line) for line in lines]
    found: dict[str, str] = {}
    todo, seen = ["", *extras.split(",")], set[str]()
    while todo:
        seen.add(extra := todo.pop())
        here = {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
        for one in requirements:
            if one.marker is not None and not one.marker.evaluate(here):
                continue
            if one.name == own:
                todo += sorted(one.extras - seen)
            else:
                found[one.name] = f"{one.name}{one.specifier}"
    return found


def measure(wheel: Path, extras: str, python: str, base: str) -> Row:
    """Install it in an environment of its own, look at it, and remove it.

    Args:
        wheel: of this checkout.
        extras: as between the brackets, such as `cpu,page`.
        python: such as 3.11.
        base: its executable.
    """
    asked = asked_for(wheel, extras, python)
    missing = asked_for(wheel, extras, _NEWEST).keys() - asked.keys()
    facts = (extras, python, _run([base, "-c", "import platform as p; print(p.python_version())"]))
    with tempfile.TemporaryDirectory(prefix="install-") as folder:
        _run([base, "-m", "venv", "--without-pip", folder])
        home = Path(folder)
        words = [*_pip(home), f"{wheel}[{extras}]"]
        if "torch" in asked and (reason := _only_cuda(base, asked["torch"])):
            return Row(*facts, reason)
        began = time.perf_counter()
        done = run_apart(words)
        seconds = time.perf_counter() - began
        if done.returncode:
            return Row(*facts, why(done.stderr))
        return _measured(home, facts, tuple(sorted(missing)), seconds)


def _measured(
    home: Path, facts: tuple[str, str, str], missing: tuple[str, ...], install_s: float
) -> Row:
    (packages,) = (home / "lib").glob("python*/site-packages")
    sizes = [path.lstat().st_size for path in packages.rglob("*") if not path.is_dir()]
    started = [str(home / "bin" / "python"), "-c", _IMPORT]
    shown = [str(home / "bin" / "stpl-deploy"), "--help"]
    load = os.getloadavg()[0]
    return Row(
        *facts,
        without=missing,
        packages=len([*packages.glob("*.dist-info")]),
        mb=round(sum(sizes) / 1e6, 1),
        install_s=round(install_s, 1),
        import_s=round(min(float(_run(started)) for _ in range(TIMES)), 4),
        help_s=round(min(_wall(shown) for _ in range(TIMES)), 4),
        load=round(load, 1),
    )


@cache
def _only_cuda(base: str, torch: str) -> str:
    """Why PyTorch is not fetched for this Python; empty where there is a build for CPUs."""
    with tempfile.TemporaryDirectory(prefix="install-") as folder:
        _run([base, "-m", "venv", "--without-pip", folder])
        words = [*_pip(Path(folder)), torch, "--dry-run", "--report", "-"]
        done = run_apart(words)
    if done.returncode:
        return why(done.stderr)
    names = [one["metadata"]["name"].lower() for one in json.loads(done.stdout)["install"]]
    if not any(name.startswith(_CUDA) for name in names):
        return ""
    return "The PyTorch for this Python comes with CUDA on this index: not installed"


def _pip(home: Path) -> list[str]:
    """This Python's pip, for an environment that has none."""
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
    return [*pip, "--no-cache-dir", "--disable-pip-version-check", "--quiet"]


def why(stderr: str) -> str:
    """The last error of pip in one line, without addresses and paths."""
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR: ")]
    line = (errors or stderr.strip().splitlines() or ["no word"])[-1].removeprefix("ERROR: ")
    return re.sub(r"(\w+:)?//?\S+/\S*", "...", line)[:160]


def run_apart(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it where no checkout is found before the installed package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env=kept | environment
    )


def _run(command: Sequence[str]) -> str:
    done = run_apart(command)
    done.check_returncode()
    return done.stdout.strip()


def _wall(command: Sequence[str]) -> float:
    began = time.perf_counter()
    _run(command)
    return time.perf_counter() - began
