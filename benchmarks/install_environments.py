"""Fresh environments with one extra of the wheel each: made, measured and removed again."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.support_matrix import ROOT

TIMES = 5
"""Processes for each median, after one that warms the disk."""
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
    """`import stpl_deploy`, in a process of its own; median."""
    help_s: float = 0.0
    """`stpl-deploy --help` from start to end; median."""


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, in `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def asked_for(wheel: Path, extras: str, python: str) -> set[str]:
    """Libraries that the wheel's metadata ask for, without those that these ask for."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(file.read(name).decode())
    own, lines = str(metadata["Name"]), metadata.get_all("Requires-Dist", [])
    requirements = [Requirement(line) for line in lines]
    found: set[str] = set()
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
                found.add(one.name)
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
    missing = asked_for(wheel, extras, _NEWEST) - asked
    facts = (extras, python, _run([base, "-c", "import platform as p; print(p.python_version())"]))
    with tempfile.TemporaryDirectory(prefix="install-") as folder:
        _run([base, "-m", "venv", "--without-pip", folder])
        home = Path(folder)
        pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
        pip += ["--no-cache-dir", "--disable-pip-version-check", "--quiet"]
        words = [*pip, f"{wheel}[{extras}]"]
        if "torch" in asked and (reason := _only_cuda(pip, words)):
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
    imports = [float(_run(started)) for _ in range(TIMES + 1)][1:]
    helps = [_wall([str(home / "bin" / "stpl-deploy"), "--help"]) for _ in range(TIMES + 1)][1:]
    return Row(
        *facts,
        without=missing,
        packages=len([*packages.glob("*.dist-info")]),
        mb=round(sum(sizes) / 1e6, 1),
        install_s=round(install_s, 1),
        import_s=round(statistics.median(imports), 3),
        help_s=round(statistics.median(helps), 3),
    )


def _only_cuda(pip: Sequence[str], words: Sequence[str]) -> str:
    """Why PyTorch is not fetched here; empty where there is a build for CPUs."""
    done = run_apart([*words, "--dry-run", "--report", "-"])
    if done.returncode:
        return why(done.stderr)
    names = [one["metadata"]["name"].lower() for one in json.loads(done.stdout)["install"]]
    cuda = [name for name in names if name.startswith(_CUDA)]
    if not cuda:
        return ""
    return f"PyTorch for this Python comes with CUDA here ({len(cuda)} packages more): not fetched"


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
