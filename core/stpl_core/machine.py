"""What this machine is: the report that `doctor` prints and benchmarks store.

Standard library only; nothing here imports the libraries it reports on: versions come from their
installed metadata.
"""

from __future__ import annotations

import os
import platform
import re
import signal
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from stpl_core import __version__
from stpl_core.host.cgroup import cpu_quota

ORT_BUILDS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)
"""Distributions that all install the package `onnxruntime`: two of them overwrite each other."""

LIBRARIES = (
    "numpy",
    *ORT_BUILDS,
    "torch",
    "lightning-fabric",
    "onnx",
    "onnxscript",
    "tensorrt",
    "tensorrt-rtx",
    "openvino",
)


@dataclass(frozen=True)
class Machine:
    """One machine and the libraries that matter on it."""

    stpl_deploy: str
    python: str
    system: str
    """Operating system and kernel."""
    arch: str
    cpu: str
    """The processor's name, or the board's where the processor does not give one."""
    usable_cpus: int
    memory_gib: float
    """What this process may use: physical memory or the cgroup's limit."""
    nvidia_driver: str | None
    gpus: tuple[str, ...]
    """NVIDIA GPUs by name."""
    jetson: str | None
    """Jetson Linux release, such as `R36.4.3`."""
    libraries: dict[str, str | None]
    """Distribution -> version; None where it is not installed."""


def examine() -> Machine:
    """Look at this machine."""
    return Machine(
        stpl_deploy=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()}",
        arch=platform.machine(),
        cpu=cpu_name(),
        usable_cpus=usable_cpus(),
        memory_gib=round(memory_bytes() / 2**30, 1),
        nvidia_driver=nvidia_driver(_text("/proc/driver/nvidia/version")),
        gpus=_gpus(),
        jetson=jetson_release(_text("/etc/nv_tegra_release")),
        libraries={name: installed_version(name) for name in LIBRARIES},
    )


def describe() -> dict[str, Any]:
    """The report of `examine` as plain values, for JSON."""
    return asdict(examine())


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def clashes(libraries: dict[str, str | None]) -> list[str]:
    """Warn where several builds of ONNX Runtime share the one package folder.

    Args:
        libraries: distribution -> version, None where it is not installed.
    """
    builds = [name for name in ORT_BUILDS if libraries.get(name)]
    if len(builds) < 2:
        return []
    names = " ".join(builds)
    found = f"{' and '.join(builds)} are both installed and overwrite each other's files"
    return [f"{found}; try: pip uninstall -y {names} && pip install {builds[-1]}"]


def usable_cpus() -> int:
    """CPUs that this process may run on: affinity mask, then the cgroup's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        count = os.cpu_count() or 1
    return max(1, min(count, int(cpu_quota() or count)))


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask a program to end: Ctrl-C, SIGTERM, and the end of its terminal.

    SIGHUP is left out where it is ignored already, as under `nohup`.
    """
    asked = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        asked.append(hangup)
    return tuple(asked)


def memory_bytes() -> int:
    """Memory that this process may use, in bytes; 0 where the system does not report it."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        total = 0
    limit = _text("/sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def cpu_name() -> str:
    """The processor's name; on boards whose kernel gives none, the board's."""
    named = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    board = _text("/proc/device-tree/model").strip("\0\n ")
    return (named[1].strip() if named else board) or platform.processor() or platform.machine()


def nvidia_driver(version_file: str) -> str | None:
    """Driver version from the text of /proc/driver/nvidia/version."""
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", version_file, re.MULTILINE)
    return found[1] if found else None


def _gpus() -> tuple[str, ...]:
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = (re.search(r"^Model:\s*(.+)$", _text(file), re.MULTILINE) for file in files)
    return tuple(model[1].strip() for model in models if model)


def jetson_release(release_file: str) -> str | None:
    """Jetson Linux release from the text of /etc/nv_tegra_release."""
    found = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", release_file)
    return f"R{found[1]}.{found[2]}" if found else None


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
