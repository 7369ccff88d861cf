"""Half-written files and directories: swept after a kill, left alone while their process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stpl_core.files import atomic_directory, atomic_file
from stpl_core.safety import half_written
from stpl_core.safety.half_written import scratch_directory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="by age there, in an hour")

WRITING = """
import sys
from pathlib import Path
from stpl_core import files
from stpl_core.safety import half_written
kind, path = sys.argv[1], Path(sys.argv[2])
with getattr(half_written if kind == "scratch_directory" else files, kind)(
    "try" if kind == "scratch_directory" else path
) as out:
    (out / "a").write_text("half") if isinstance(out, Path) else out.write(b"half")
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def writing(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of writing, killed at the end."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WRITING, kind, str(path)]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture(autouse=True)
def first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that has just started, with a temporary directory of its own."""
    monkeypatch.setattr(half_written, "_looked", {})
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


def write(kind: str, path: Path) -> None:
    half_written._looked.clear()
    if kind == "atomic_file":
        with atomic_file(path) as file:
            file.write(b"whole")
    elif kind == "atomic_directory":
        with atomic_directory(path) as folder:
            (folder / "a").write_text("whole")
    else:
        with scratch_directory("try") as folder:
            (folder / "a").write_text("whole")


@pytest.mark.parametrize("kind", ["atomic_file", "atomic_directory", "scratch_directory"])
def test_what_a_killed_process_left_goes_and_a_living_ones_stays(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    place, path = tmp_path / "place", tmp_path / "place" / "out"
    place.mkdir()
    folder = tmp_path / "tmp" if kind == "scratch_directory" else place
    (place / ".other.0a1b2c3d.tmp").write_text("another's name: not looked at")

    def half() -> list[str]:
        names = (name for name in os.listdir(folder) if name not in ("out", ".other.0a1b2c3d.tmp"))
        return sorted(names)

    with writing(kind, path):
        assert len(half()) == 1
        write(kind, path)
        assert len(half()) == 1  # the living process still has it
        assert not caplog.messages
        if path.is_dir():
            (path / "a").unlink()
            path.rmdir()
    assert len(half()) == 1
    write(kind, path)
    assert not half()
    if kind != "scratch_directory":
        assert "a process that was killed left half-written" in caplog.text
        assert (path if path.is_file() else path / "a").read_text() == "whole"


def test_others_things_are_left_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "kept").write_text("kept")
    left = tmp_path / ".out.0a1b2c3d.partial"
    left.symlink_to(secret)
    (tmp_path / ".out.tmp").write_text("kept")
    write("atomic_file", tmp_path / "out")
    assert (secret / "kept").read_text() == "kept"
    assert left.is_symlink()
    assert (tmp_path / ".out.tmp").is_file()


def test_where_nothing_can_be_locked_age_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    young, old = tmp_path / ".out.0a1b2c3d.tmp", tmp_path / ".out.0a1b2c3e.tmp"
    for path in (young, old):
        path.write_text("half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    write("atomic_file", tmp_path / "out")
    assert young.exists()
    assert not old.exists()


def test_what_is_swept_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that start at once sweep what the others have made and do not hold yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opens, swept = os.open, list[Path]()

    def late(path: Path, *flags: int, **more: int) -> int:
        if not swept and Path(path).name.startswith("stpl-frame-"):
            swept.append(Path(path))
            Path(path).rmdir()
        return opens(path, *flags, **more)

    monkeypatch.setattr("os.open", late)
    with scratch_directory("frame") as made:
        assert made.is_dir()
        assert made not in swept
        assert len(swept) == 1
    assert list(tmp_path.glob("stpl-*")) == []
