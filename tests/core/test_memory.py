"""Out of memory is a fault of the machine, however a library words it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stpl_core.errors import EnvironmentFault
from stpl_core.host.cgroup import memory_room
from stpl_core.host.memory import amount, memory_fault, memory_room_bytes, require_memory

TORCH = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError(TORCH), "4 GB"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 1048576000"), "1.05"),
        (MemoryError("Unable to allocate 7.45 GiB for an array with shape (1,)"), "8 GB"),
        (RuntimeError("std::bad_alloc"), "bad_alloc"),
        (ImportError("libx.so: failed to map segment from shared object"), "libx.so"),
        (OSError(12, "Cannot allocate memory"), "memory"),
        (RuntimeError("can't start new thread"), "thread"),
        (MemoryError(), "no block is left"),
    ],
)
def test_lacking_memory_is_recognised(error: Exception, asked: str) -> None:
    fault = memory_fault(error)
    assert fault is not None
    assert fault.exit_code == 4
    assert asked in fault.found
    assert "smaller batch" in fault.fix


def test_it_is_found_behind_another_error() -> None:
    try:
        try:
            raise RuntimeError(TORCH)
        except RuntimeError as error:
            raise EnvironmentFault("cannot load the graph") from error
    except EnvironmentFault as outer:
        fault = memory_fault(outer)
    assert fault is not None
    assert "4 GB" in fault.found


@pytest.mark.parametrize("error", [ValueError("bad_alloc"), RuntimeError("shape (3,)"), OSError(2)])
def test_other_errors_are_none(error: Exception) -> None:
    assert memory_fault(error) is None


def test_more_than_there_is_is_refused_with_the_setting() -> None:
    room = memory_room_bytes()
    assert room is not None
    assert "for a model" in require_memory(1000, "a model", "--batch 1")
    with pytest.raises(EnvironmentFault, match=r"needs about .* are left.*--batch 1"):
        require_memory(room * 2.0, "a model", "--batch 1")
    assert amount(1.5e9) == "1.5 GB"
    assert amount(12) == "12 bytes"


def test_ulimit_counts() -> None:
    script = (
        "import resource; from stpl_core.host.memory import memory_room_bytes as room\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20)); print(room())"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert 0 < int(out.stdout) < 400 << 20


def test_groups_count(tmp_path: Path) -> None:
    group = tmp_path / "fs" / "job"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("700\n")
    (group / "memory.stat").write_text("anon 300\nactive_file 100\ninactive_file 50\n")
    member = tmp_path / "cgroup"
    member.write_text("0::/job\n")
    assert memory_room(member, tmp_path / "fs") == 450
    (group / "memory.max").write_text("max\n")
    assert memory_room(member, tmp_path / "fs") is None
    old = tmp_path / "fs" / "memory" / "job"
    old.mkdir(parents=True)
    member.write_text("3:memory:/job\n")
    (old / "memory.limit_in_bytes").write_text("5000\n")
    (old / "memory.usage_in_bytes").write_text("2000\n")
    assert memory_room(member, tmp_path / "fs") == 3000
