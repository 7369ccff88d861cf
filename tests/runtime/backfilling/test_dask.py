"""Backfill on a Dask cluster: the same store, also where a worker is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xarray")
pytest.importorskip("zarr")
distributed = pytest.importorskip("distributed", reason="distributed is in the extra dask")

from stpl_core.errors import UsageError  # noqa: E402
from stpl_runtime.backfilling.backfill import Hooks, run_backfill  # noqa: E402
from tests.runtime.backfilling.test_backfill import (  # noqa: E402
    content,
    options,
    small_blocks,
    write_archive,
)

__all__ = ["small_blocks"]


@pytest.fixture
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as started:
        yield started


def test_a_cluster_with_a_killed_worker(cluster: Any, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "frames")
    expected = run_backfill(options(archive, tmp_path / "inline.zarr"))
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        processes = list(client.run(os.getpid).values())

    def progress(done: int, of: int) -> None:
        if done and processes:
            os.kill(processes.pop(), signal.SIGKILL)
            processes.clear()

    out = tmp_path / "n.zarr"
    asked = options(archive, out, dask=cluster.scheduler_address)
    report = run_backfill(asked, Hooks(progress=progress))
    assert not processes
    assert report.counts == expected.counts
    assert content(out) == content(tmp_path / "inline.zarr")


def test_nobody_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stpl_runtime.backfilling.on_dask._CONNECT_S", 0.2)
    archive = write_archive(tmp_path / "frames", range(6))
    asked = options(archive, tmp_path / "n.zarr", dask="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        run_backfill(asked)
