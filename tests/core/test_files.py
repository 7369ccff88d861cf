"""Files and directories are whole or not there at all, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stpl_core.errors import UsageError
from stpl_core.files import atomic_directory, atomic_file, refuse_existing, sha256_of


class Fault(Exception):
    """What a test throws."""


def names(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.bin"
    with atomic_file(out) as file:
        file.write(b"one")
        file.flush()
        assert not out.exists()
    assert out.read_bytes() == b"one"
    assert names(out.parent) == ["a.bin"]


@pytest.mark.parametrize("fault", [Fault, KeyboardInterrupt, SystemExit])
def test_a_fault_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    out = tmp_path / "a.bin"
    out.write_bytes(b"old")
    with pytest.raises(fault), atomic_file(out) as file:
        file.write(b"new")
        raise fault
    assert out.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_directory(out) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "a").write_bytes(b"1")
        assert names(tmp_path) == [partial.name]
        assert partial.name.startswith(".")
    assert (out / "deep" / "a").read_bytes() == b"1"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("fault", [Fault, KeyboardInterrupt, SystemExit])
def test_a_fault_leaves_no_directory(tmp_path: Path, fault: type[BaseException]) -> None:
    with pytest.raises(fault), atomic_directory(tmp_path / "out") as partial:
        (partial / "a").write_bytes(b"1")
        raise fault
    assert names(tmp_path) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "file") as file:
            file.write(b"")
        with atomic_directory(tmp_path / "directory"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o750


KILLED = """
import os, signal, sys
from pathlib import Path
from stpl_core.files import atomic_directory, atomic_file
out = Path(sys.argv[2])
with globals()["atomic_" + sys.argv[1]](out) as target:
    if sys.argv[1] == "file":
        target.write(b"half"), target.flush()
    else:
        (target / "manifest.json").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_kill_9_leaves_only_a_hidden_name(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, kind, out], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".out.")
    # The same command again is not in its own way.
    if kind == "file":
        with atomic_file(out) as file:
            file.write(b"whole")
    else:
        with atomic_directory(out) as partial:
            (partial / "manifest.json").write_bytes(b"whole")
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The kernel's own error, by a file that has no room."""
    out = tmp_path / "a.bin"
    with pytest.raises(OSError, match="No space left"), atomic_file(out) as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        file.write(b"x" * 100_000)
    assert names(tmp_path) == []


def test_what_is_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "full", "dangling"):
        with pytest.raises(UsageError, match="already exists") as caught:
            refuse_existing(tmp_path / name)
        assert caught.value.exit_code == 2
        with pytest.raises(UsageError), atomic_directory(tmp_path / name):
            raise AssertionError("the block must not run")
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty")
    with atomic_directory(tmp_path / "empty") as partial:
        (partial / "a").write_bytes(b"")
    assert names(tmp_path / "empty") == ["a"]


def test_a_directory_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="already exists"), atomic_directory(out) as partial:
        (partial / "ours").write_bytes(b"")
        out.mkdir()
        (out / "theirs").write_bytes(b"")
    assert names(out) == ["theirs"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("below", ["a", "a/b"])
def test_a_file_on_the_way_is_reported(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / below
    with pytest.raises(UsageError, match="is not a directory"), atomic_file(out):
        raise AssertionError("the block must not run")
    with pytest.raises(UsageError, match="is not a directory"), atomic_directory(out):
        raise AssertionError("the block must not run")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_checksums(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
