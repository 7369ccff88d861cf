"""A topic of many streams, what comes of it, and processes that share it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stpl_core.bundle import Bundle
from stpl_core.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from tests.runtime.conftest import DATA, make_frame, slot_time
from tests.runtime.links.brokers import wait_until
from tests.runtime.links.test_mqtt import npy
from tests.runtime.sources.test_kafka import Cluster

BUNDLE = DATA / "convlstm-tiny.bundle"
QUICK = (
    "session.timeout.ms=2000",
    "heartbeat.interval.ms=200",
    "start=earliest",
    "topic.metadata.refresh.interval.ms=500",
)

Made = dict[tuple[str, int], Any]
"""(stream, slot) -> frames."""


def stream_names(count: int) -> tuple[str, ...]:
    return tuple(f"radar/{n}" for n in range(count))


def number_of(stream: str) -> int:
    return int(stream.rpartition("/")[2])


def picture_slot(stream: str, slot: int) -> int:
    """The slot whose picture stands for this one: another for each stream."""
    return 100 * (1 + number_of(stream)) + slot


class Topic:
    """Every stream has pictures of its own."""

    def __init__(self, hosts: str, partitions: int, streams: int) -> None:
        self.hosts, self.streams = hosts, stream_names(streams)
        self._partitions = partitions
        self._producer = Producer({"bootstrap.servers": hosts, "log_level": 0})

    def send(self, *slots: int, streams: Sequence[str] | None = None) -> None:
        for slot in slots:
            for stream in streams or self.streams:
                self.put(stream, slot, npy(picture_slot(stream, slot)))
        assert self._producer.flush(20.0) == 0

    def put(self, stream: str, slot: int, value: bytes, *, keyed: bool = True) -> None:
        self._producer.produce(
            "radar",
            key=stream if keyed else None,
            value=value,
            partition=number_of(stream) % self._partitions,
            headers={"valid_time": slot_time(slot).isoformat()},
        )
        self._producer.poll(0.0)

    def committed(self) -> list[int]:
        """The offset that the group has committed in each partition; below 0 for none."""
        settings = {"bootstrap.servers": self.hosts, "group.id": "nowcasts", "log_level": 0}
        consumer = Consumer(settings)
        try:
            places = [TopicPartition("radar", n) for n in range(self._partitions)]
            return [place.offset for place in consumer.committed(places, timeout=20.0)]
        finally:
            consumer.close()

    @property
    def word(self) -> str:
        return f"kafka://{self.hosts}/radar"


def mock_topic(cluster: Cluster, partitions: int, streams: int) -> Topic:
    cluster._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster._cluster, 200)
    cluster.add_topic("radar", partitions)
    return Topic(cluster.hosts, partitions, streams)


def real_topic(hosts: str, partitions: int, streams: int) -> Topic:
    admin = AdminClient({"bootstrap.servers": hosts, "log_level": 0})
    admin.create_topics([NewTopic("radar", partitions, 1)])["radar"].result(20.0)
    return Topic(hosts, partitions, streams)


def expected(bundle: Bundle, session: Session, slots: range, streams: Sequence[str]) -> Made:
    """Every nowcast that one undisturbed process would make."""
    made = {}
    for stream in streams:
        nowcaster = Nowcaster(bundle, session, cadence_s=300.0)
        for slot in slots:
            nowcaster.put(Frame(slot_time(slot), make_frame(picture_slot(stream, slot)).data))
            nowcast = nowcaster.issue()
            if nowcast is not None:
                made[stream, slot] = nowcast.frames
    return made


def count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*/*.npz"))


def written(folder: Path) -> Made:
    """What lies in the folders of the sink `npz`."""
    found = {}
    for path in folder.glob("*/*.npz"):
        with np.load(path) as file:
            slot = next(n for n in range(99) if f"{slot_time(n):%Y%m%dT%H%M%S}" in path.name)
            found[unquote(path.parent.name), slot] = file["frames"]
    return found


def same(found: Made, wanted: Made) -> None:
    assert sorted(found) == sorted(wanted)
    for place, frames in wanted.items():
        np.testing.assert_array_equal(found[place], frames, err_msg=str(place))


class Worker:
    """`stream --group` as a process of its own."""

    def __init__(
        self, topic: Topic, out: Path, name: str, options: Sequence[str], *more: str
    ) -> None:
        words = [sys.executable, "-m", "stpl_deploy", "stream", str(BUNDLE), topic.word]
        words += ["--group", "nowcasts", "--sink", f"npz:{out}", "--cadence", "300"]
        words += ["--threads", "1", "--engine", "onnx", "--log-format", "json", "--json", *more]
        for option in options:
            words += ["--source-option", option]
        self.report, self._lines = out.parent / f"{name}.out", out.parent / f"{name}.err"
        with self.report.open("w") as stdout, self._lines.open("w") as stderr:
            self.process = subprocess.Popen(words, stdout=stdout, stderr=stderr, text=True)

    @property
    def lines(self) -> str:
        return self._lines.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.lines or self.process.poll() is not None, 60.0)
        assert text in self.lines


Start = Callable[..., Worker]


@contextmanager
def workers(topic: Topic, out: Path, options: Sequence[str] = QUICK) -> Iterator[Start]:
    """A function that starts one more; all are killed at the end."""
    started: list[Worker] = []

    def start(*more: str) -> Worker:
        started.append(Worker(topic, out, f"w{len(started)}", options, *more))
        return started[-1]

    try:
        yield start
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.wait(10.0)
