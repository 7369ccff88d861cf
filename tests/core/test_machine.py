"""The machine's report, and what doctor makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from stpl_core import __version__, machine
from stpl_deploy.cli.doctor import extras

Cli = Callable[..., subprocess.CompletedProcess[str]]


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_report_is_plain_and_true() -> None:
    report = machine.describe()
    assert json.loads(json.dumps(report)) == {**report, "gpus": list(report["gpus"])}
    assert report["stpl_deploy"] == __version__
    assert report["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert report["cpu"]
    assert 0 < report["memory_gib"] <= psutil.virtual_memory().total / 2**30 + 0.1
    assert 1 <= report["usable_cpus"] <= (os.cpu_count() or 1)
    assert report["libraries"]["numpy"]
    assert report["libraries"]["onnxruntime-qnn"] is None


def test_the_report_imports_no_library() -> None:
    done = python(
        "import sys; from stpl_core.machine import describe; describe();"
        "print({'numpy', 'torch', 'onnx', 'onnxruntime', 'pydantic', 'typer'} & set(sys.modules))"
    )
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_usable_cpus_follow_the_affinity() -> None:
    done = python(
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from stpl_core.machine import usable_cpus; print(usable_cpus())"
    )
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release", "540.4.0"),
        ("GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)", None),
        ("", None),
    ],
)
def test_the_drivers_own_words(text: str, version: str | None) -> None:
    assert machine.nvidia_driver(text) == version


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
            "R36.4.3",
        ),
        ("# R35 (release), REVISION: 2.1, GCID: 32413640, BOARD: t186ref", "R35.2.1"),
        ("", None),
    ],
)
def test_the_jetsons_own_words(text: str, release: str | None) -> None:
    assert machine.jetson_release(text) == release


def test_two_builds_of_onnxruntime_clash() -> None:
    both = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.20.0", "numpy": "2"}
    (problem,) = machine.clashes(both)
    assert "onnxruntime and onnxruntime-gpu are both installed" in problem
    assert problem.endswith("pip install onnxruntime-gpu")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in problem
    assert machine.clashes({"onnxruntime": "1.20.0", "onnxruntime-gpu": None}) == []


def test_the_gpu_build_does_for_onnxruntime_itself() -> None:
    found = {item.extra: item for item in extras({"onnxruntime-gpu": "1.20.0"}, nvidia=True)}
    assert "onnxruntime" not in found["cpu"].missing
    assert {"cpu", "gpu", "train", "export"} <= set(found)
    for item in found.values():
        assert bool(item.fix) == bool(item.missing)


def test_no_gpu_build_is_proposed_where_there_is_no_gpu() -> None:
    for nvidia, words in ((False, "not for this machine"), (True, "pip uninstall -y onnxruntime")):
        found = {item.extra: item for item in extras({"onnxruntime": "1.20.0"}, nvidia=nvidia)}
        if found["gpu"].missing:
            assert words in found["gpu"].fix
        assert all("uninstall" not in item.fix for item in found.values() if item.extra != "gpu")
    assert found["cpu"].missing == ()


def test_doctor_tries_each_provider(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["works"] is True
    assert report["problems"] == []
    trials = {trial["provider"]: trial for trial in report["trials"]}
    assert trials["CPUExecutionProvider"] == {
        "provider": "CPUExecutionProvider", "works": True, "note": "", "engine": "onnx", "fix": "",
    }  # fmt: skip
    assert all(trial["note"] for trial in trials.values() if not trial["works"])
    assert report["machine"]["libraries"]["onnxruntime"]


def test_doctor_in_words(cli: Cli) -> None:
    done = cli("doctor")
    assert done.returncode == 0
    for word in ("this machine", "Python", "CPUExecutionProvider", "extras", "CPUs usable"):
        assert word in done.stdout


def test_doctor_without_an_engine_says_what_to_type() -> None:
    """A library that is installed and cannot be imported, as after a clash of two builds."""
    done = python(
        "import sys; sys.modules['onnxruntime'] = sys.modules['openvino'] = None;"
        "from stpl_deploy.cli import run; raise SystemExit(run(['doctor', '--json']))"
    )
    assert done.returncode == 4
    report = json.loads(done.stdout)
    assert report["works"] is False
    assert report["trials"] == []
    assert done.stderr.count("\n") == 1
    assert "no engine works" in done.stderr
    assert "pip install --force-reinstall onnxruntime" in done.stderr
