"""examples/ray_streams.py on a cluster of Ray: an actor is killed, then the node of another."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from tests.runtime.conftest import CADENCE_S, bundle, picture, session, slot_time
from tests.runtime.links.brokers import wait_until

pytest.importorskip("ray", reason="ray is not installed: make venv-ray")

__all__ = ["bundle", "session"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_streams.py"
STREAMS = ("a", "b", "c", "d")


def data_of(stream: str, slot: int) -> Array:
    return picture(100 * (1 + STREAMS.index(stream)) + slot)


class Streams:
    """A folder of frames for each stream, and the nowcasts that lie on the shared disk."""

    def __init__(self, root: Path) -> None:
        self.root, self.shared = root, root / "shared"
        for name in STREAMS:
            (root / name).mkdir()

    @property
    def words(self) -> list[str]:
        return [f"{name}={self.root / name}" for name in STREAMS]

    def send(self, *slots: int) -> None:
        for slot in slots:
            for name in STREAMS:
                file = self.root / name / f"r{slot_time(slot):%Y%m%d%H%M}.npy"
                np.save(file.with_suffix(".part.npy"), data_of(name, slot))
                file.with_suffix(".part.npy").rename(file)

    def made(self) -> dict[tuple[str, str], Path]:
        """(stream, file) -> its nowcast."""
        found = self.shared.glob("nowcasts/*/*.npz")
        return {(path.parent.name, path.name): path for path in found}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, and three nodes with one each: the third is spare."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the paths of its sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 starves beside other tests
    monkeypatch.setenv("RAY_health_check_initial_delay_ms", "1000")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")  # a node that is away is soon missed
    small = {"object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(3):
        made.add_node(num_cpus=1, **small)
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


class Driver:
    """The example as a process."""

    def __init__(self, address: str, bundle: Bundle, streams: Streams) -> None:
        words = [sys.executable, EXAMPLE, bundle.path, streams.shared]
        words += [*streams.words, "--cadence", CADENCE_S]
        self._log = streams.root / "driver.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, words)), stdout=log, stderr=log,
                env={**os.environ, "RAY_ADDRESS": address},
            )  # fmt: skip

    def starts(self) -> list[tuple[int, str]]:
        """(process, node) of each start of an actor."""
        assert self.process.poll() is None, self._log.read_text()
        found = re.findall(r"streams in process (\d+) on node (\w+)", self._log.read_text())
        return [(int(process), node) for process, node in found]


def undisturbed(bundle: Bundle, session: Session, slots: range) -> list[Array]:
    """The nowcasts of one process: of each stream in turn, in order."""
    made = []
    for name in STREAMS:
        nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S)
        for slot in slots:
            nowcaster.put(Frame(slot_time(slot), data_of(name, slot)))
            if (nowcast := nowcaster.issue()) is not None:
                made.append(nowcast.frames)
    return made


@pytest.mark.slow
def test_an_actor_is_killed_and_a_node_goes_away(
    cluster: Any, bundle: Bundle, session: Session, tmp_path: Path
) -> None:
    """Every nowcast is there, with the bits of one undisturbed process."""
    streams = Streams(tmp_path)
    streams.send(*range(5))
    driver = Driver(cluster.address, bundle, streams)
    try:
        wait_until(lambda: len(streams.made()) == 8 and len(driver.starts()) == 2, 240.0)
        os.kill(driver.starts()[0][0], signal.SIGKILL)
        streams.send(5)
        wait_until(lambda: len(streams.made()) == 12 and len(driver.starts()) == 3, 240.0)
        (lost,) = [node for node in cluster.worker_nodes if node.node_id == driver.starts()[1][1]]
        cluster.remove_node(lost, allow_graceful=False)
        streams.send(6)
        wait_until(lambda: len(streams.made()) == 16 and len(driver.starts()) == 4, 240.0)
        assert driver.starts()[3][1] != lost.node_id
    finally:
        driver.process.kill()  # an end in good order takes Ray a minute on a busy CPU
        driver.process.wait()
    files = [path for _, path in sorted(streams.made().items())]
    for path, expected in zip(files, undisturbed(bundle, session, range(7)), strict=True):
        with np.load(path) as file:
            np.testing.assert_array_equal(file["frames"], expected, err_msg=str(path))
