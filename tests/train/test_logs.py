"""TensorBoard's curves where the disk fails."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard")

from stpl_train.logs import open_scalars


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What threads fail with."""
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", found.append)
    return found


def test_a_disk_that_turns_read_only_is_told_once_and_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[Any]
) -> None:
    """The thread that writes printed one of its own, beside the line of the program."""
    from tensorboard.summary.writer import record_writer

    scalars = open_scalars(tmp_path / "curves", 0)
    scalars.loss(1, 0.5)

    def refuse(self: Any, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(record_writer.RecordWriter, "write", refuse)
    with pytest.raises(OSError, match="Read-only"):
        for n in range(2, 10_000):
            scalars.loss(n, 0.5)
    assert told == []


def test_the_errors_of_other_threads_are_told(tmp_path: Path, told: list[Any]) -> None:
    scalars = open_scalars(tmp_path / "curves", 0)

    def fail() -> None:
        raise OSError("of another")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    scalars.close()
    assert [str(one.exc_value) for one in told] == ["of another"]
