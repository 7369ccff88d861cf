"""Kafka: a real broker of its protocol (Tansu), and librdkafka's mock cluster for outages.

Tansu keeps its records in memory, so what survives a broker's death is shown on the mock cluster,
which speaks the protocol on a real port of loopback and can be switched off and on.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")
import confluent_kafka
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stpl_core.bundle import Bundle
from stpl_core.errors import SourceLostError, UsageError
from stpl_runtime.source import BadFrame, SourceSpec, open_source
from stpl_runtime.sources.kafka import KafkaSource, _sent
from tests.runtime.conftest import slot_time
from tests.runtime.links.brokers import free_port, is_prompt, reading, tansu, wait_until
from tests.runtime.links.test_mqtt import name, npy, same_frames

QUIET = {"log_level": 0}


class Cluster:
    """librdkafka's mock cluster."""

    def __init__(self, brokers: int = 1) -> None:
        (library,) = Path(confluent_kafka.__file__).parent.parent.glob(
            "confluent_kafka.libs/librdkafka*.so*"
        )
        self._lib = ctypes.CDLL(str(library))
        self._lib.rd_kafka_new.restype = ctypes.c_void_p
        self._lib.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        self._lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p(self._lib.rd_kafka_new(0, None, None, 0))
        self._cluster = ctypes.c_void_p(self._lib.rd_kafka_mock_cluster_new(self._handle, brokers))
        self.hosts = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def add_topic(self, topic: str, partitions: int = 1) -> None:
        self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)

    def lead(self, partition: int, broker: int) -> None:
        """Of the topic `radar`."""
        self._lib.rd_kafka_mock_partition_set_leader(self._cluster, b"radar", partition, broker)

    def set_down(self, broker: int = 1) -> None:
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def set_up(self, broker: int = 1) -> None:
        self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._handle)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if not list(
        Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/*rdkafka*")
    ):
        pytest.skip("this confluent-kafka does not carry its own librdkafka")
    one = Cluster(getattr(request, "param", 1))
    yield one
    one.close()


Send = Callable[..., None]


@pytest.fixture
def sender() -> Iterator[Callable[[str], Send]]:
    """Makes a function that sends records; `send(key, value, headers, partition)`."""
    made: list[Producer] = []

    def to(hosts: str) -> Send:
        producer = Producer({"bootstrap.servers": hosts, **QUIET})
        made.append(producer)

        def send(key: str | None, value: bytes, partition: int = 0, **headers: str) -> None:
            more = {"headers": headers} if headers else {}
            producer.produce("radar", key=key, value=value, partition=partition, **more)
            assert producer.flush(20.0) == 0

        return send

    yield to
    made.clear()


def spec_of(bundle: Bundle, **options: str) -> SourceSpec:
    return SourceSpec(bundle.manifest.frame, bundle.manifest.codec, options=options)


def test_a_real_broker(tmp_path: Path, bundle: Bundle, sender: Callable[[str], Send]) -> None:
    """Records, the place in the topic, and the broker's death and return."""
    broker = tansu(tmp_path)
    hosts = f"127.0.0.1:{broker.port}"
    word = f"kafka://{hosts}/radar"

    def add_topic() -> None:
        admin = AdminClient({"bootstrap.servers": hosts, **QUIET})
        admin.create_topics([NewTopic("radar", 1, 1)])["radar"].result(20.0)

    broker.start()
    try:
        with reading(open_source(word, spec_of(bundle))) as source:
            source.wait_state("down")
            assert "no topic radar" in source.health.now().reason
            add_topic()
            source.wait_state("up")
        send = sender(hosts)
        for slot in range(5):
            send(name(slot), npy(slot))
        spec = spec_of(bundle, group="nowcaster", start="earliest", behind="2")
        with reading(open_source(word, spec)) as source:
            same_frames(source.wait_for(5), list(range(5)))
            wait_until(lambda: source.source._next == {0: 5})  # type: ignore[attr-defined]
        send(name(5), npy(5))
        with reading(open_source(word, spec)) as source:  # the last two come again
            same_frames(source.wait_for(3), [3, 4, 5])
        with reading(open_source(word, spec_of(bundle, start="-2"))) as source:
            same_frames(source.wait_for(2), [4, 5])
            broker.stop()
            source.wait_state("down")
            broker.start()
            back = time.time()
            source.wait_state("up")
            assert source.health.now().reconnects >= 1
            assert is_prompt(source.health, back)
    finally:
        broker.close()


def test_an_outage_loses_no_record(
    cluster: Cluster, bundle: Bundle, sender: Callable[[str], Send]
) -> None:
    cluster.add_topic("radar")
    send = sender(cluster.hosts)
    with reading(open_source(f"kafka://{cluster.hosts}/radar", spec_of(bundle))) as source:
        source.wait_state("up")
        for slot in range(3):
            send(name(slot), npy(slot))
        same_frames(source.wait_for(3), [0, 1, 2])
        cluster.set_down()
        source.wait_state("down")
        assert source.health.now().reason
        cluster.set_up()
        back = time.time()
        source.wait_state("up")
        assert is_prompt(source.health, back)
        for slot in (3, 4):
            send(name(slot), npy(slot))
        same_frames(source.wait_for(5), [0, 1, 2, 3, 4])


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_one_broker_of_two_is_down(
    cluster: Cluster, bundle: Bundle, sender: Callable[[str], Send]
) -> None:
    """Half of the frames do not come: that is an outage, though a broker answers."""
    cluster.add_topic("radar", 2)
    for partition in (0, 1):
        cluster.lead(partition, partition + 1)
    send = sender(cluster.hosts)
    with reading(open_source(f"kafka://{cluster.hosts}/radar", spec_of(bundle))) as source:
        source.wait_state("up")
        for slot in (0, 1):
            send(name(slot), npy(slot), partition=slot)
        source.wait_for(2)
        cluster.set_down(2)
        source.wait_state("down")
        for slot in (2, 3):  # what the other one has comes, and is no return
            send(name(slot), npy(slot), partition=0)
            source.wait_for(slot + 1)
            source.wait_state("down")
        cluster.set_up(2)
        back = time.time()
        source.wait_state("up")
        assert is_prompt(source.health, back)
        assert source.health.now().reconnects == 1
        send(name(4), npy(4), partition=1)
        assert len(source.wait_for(5)) == 5


def _statistics(brokers: dict[int, str], *leaders: int, desired: bool = True) -> str:
    parts = [
        {"partition": n, "leader": leader, "desired": desired} for n, leader in enumerate(leaders)
    ]
    parts.append({"partition": -1, "leader": -1, "desired": False})  # for what has none yet
    return json.dumps(
        {
            "brokers": {str(n): {"nodeid": n, "state": state} for n, state in brokers.items()},
            "topics": {"radar": {"partitions": {str(p["partition"]): p for p in parts}}},
        }
    )


def test_what_statistics_say(bundle: Bundle) -> None:
    """The mock cluster has no partition without a leader, nor one that was added later."""
    source = open_source("kafka://127.0.0.1:1/radar", spec_of(bundle))
    assert isinstance(source, KafkaSource)

    def after(statistics: str) -> tuple[str, str]:
        source._note_state(statistics)
        return source.health.now().state, source.health.now().reason

    source.health.up()
    begun = _statistics({1: "INIT", -1: "UP"}, 1, desired=False)
    assert after(begun) == ("up", "")
    assert after(_statistics({1: "INIT"}, 1, desired=False)) == (
        "up",
        "",
    )  # too early
    assert after(_statistics({1: "UP", 2: "UP"}, 1, 2)) == ("up", "")
    assert after(_statistics({1: "UP", -1: "UP"}, 1, -1)) == ("down", "a partition has no leader")
    assert after(_statistics({-1: "UP", 1: "INIT"}, -1, -1)) == ("up", "")
    assert after(_statistics({1: "UP", 2: "DOWN"}, 1, 2)) == ("down", "no answer from broker 2")
    assert after(_statistics({1: "UP", 2: "UP"}, 1, 2)) == ("up", "")
    assert after(_statistics({1: "DOWN"}, -1)) == ("down", "no broker answers")


def test_every_partition_is_read_and_the_place_is_kept(
    cluster: Cluster, bundle: Bundle, sender: Callable[[str], Send]
) -> None:
    cluster.add_topic("radar", 3)
    send = sender(cluster.hosts)
    for slot in range(9):
        send(name(slot), npy(slot), partition=slot % 3)
    word = f"kafka://{cluster.hosts}/radar"
    spec = spec_of(bundle, group="nowcaster", start="earliest", behind="0")

    def slots_of(items: list[Any]) -> list[int]:
        return sorted(
            round((item.valid_time - slot_time(0)).total_seconds() / 300) for item in items
        )

    with reading(open_source(word, spec)) as source:
        assert slots_of(source.wait_for(9)) == list(range(9))
        wait_until(lambda: source.source._next == {0: 3, 1: 3, 2: 3})  # type: ignore[attr-defined]
    send(name(9), npy(9))
    with reading(open_source(word, spec)) as source:
        assert slots_of(source.wait_for(1)) == [9]


def test_time_by_header_by_stamp_and_none(
    cluster: Cluster, bundle: Bundle, sender: Callable[[str], Send]
) -> None:
    cluster.add_topic("radar")
    send = sender(cluster.hosts)
    send("site42", npy(3), valid_time=slot_time(3).isoformat())
    send("site42", npy(4), name=name(4))
    send("site42", npy(5))
    send(None, b"no frame", valid_time=slot_time(5).isoformat())
    send(None, bytes(30_000), valid_time=slot_time(5).isoformat())
    word = f"kafka://{cluster.hosts}/radar"
    options = {"start": "earliest", "max_mb": "0.02"}
    with reading(open_source(word, spec_of(bundle, **options))) as source:
        *frames, untimed, broken, large = source.wait_for(5)
    same_frames(frames, [3, 4])
    assert isinstance(untimed, BadFrame)
    assert "holds no time" in untimed.reason
    assert isinstance(broken, BadFrame)
    assert "30,000 bytes; expected at most 20,000" in large.reason
    with reading(open_source(word, spec_of(bundle, time="sent", **options))) as source:
        stamped = source.wait_for(3)[2]
        assert abs(stamped.valid_time.timestamp() - time.time()) < 300.0


def test_a_user_that_the_broker_does_not_know(tmp_path: Path, bundle: Bundle) -> None:
    broker = tansu(tmp_path, "--authentication")
    broker.start()
    options = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512"}
    word = f"kafka://me:hush@127.0.0.1:{broker.port}/radar"
    try:
        with (
            reading(open_source(word, spec_of(bundle, **options))) as source,
            pytest.raises(SourceLostError, match="SASL authentication error") as caught,
        ):
            source.wait_for(1)
        assert "hush" not in str(caught.value)
    finally:
        broker.close()


def test_a_broker_that_is_not_there(bundle: Bundle) -> None:
    word = f"kafka://me:secret@127.0.0.1:{free_port()}/radar"
    options = {"security.protocol": "SASL_PLAINTEXT"}
    source = open_source(word, spec_of(bundle, **options))
    with reading(source) as there:
        there.wait_state("down")
        assert "Connection refused" in there.health.now().reason
        assert "secret" not in there.health.now().reason + source.name


@pytest.mark.parametrize(
    ("word", "options", "reason"),
    [
        ("kafka://host:9092", {}, "names no topic"),
        ("kafka://me:secret@/radar", {}, "names no host"),
        ("kafka://host/radar", {"start": "soon"}, "expected latest, earliest or -N"),
        ("kafka://host/radar", {"grup": "x"}, "no option grup"),
        ("kafka://host/radar", {"ssl.nonsense": "x"}, "No such configuration property"),
        ("kafka://host/radar", {"password_env": "NOT_THERE"}, "the environment has no NOT_THERE"),
    ],
)
def test_words_that_are_not_right(
    word: str, options: dict[str, str], reason: str, bundle: Bundle
) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        open_source(word, spec_of(bundle, **options))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("stamp_ms", "year"), [(0, 1970), (9 * 10**17, None), (-9 * 10**17, None)])
def test_a_stamp_of_any_producer(stamp_ms: int, year: int | None) -> None:
    found = _sent(stamp_ms)
    assert (None if found is None else found.year) == year
