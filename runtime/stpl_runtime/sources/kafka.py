"""Kafka: each record of a topic is one frame; see `sources.messages` for what may come along.

    kafka://[USER:PASSWORD@]HOST[:9092][,HOST...]/TOPIC

A nowcast needs every frame, so every partition is read by this one process: there is no group that
shares them, and no waiting for one after a crash. `group=NAME` keeps the place: the offset behind
which every frame was taken, less `behind` records (64, the room between source and window), which
come again after a crash; the window settles what is double. Without a group, reading starts at
`start`: `latest`, `earliest`, or `-N`, the last N records of each partition, which fills the
window at once.

With a user, the connection is SASL_SSL with PLAIN. An option with a dot in its name goes as it is
to librdkafka: `security.protocol=SSL`, `ssl.ca.location=FILE`, `sasl.mechanism=SCRAM-SHA-512`.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from stpl_core.errors import SourceLostError, UsageError
from stpl_core.readers.libraries import reads_with
from stpl_runtime.links.address import parse_address
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import FIRST_S, MOST_S, reconnecting, without_credentials
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, SourceSpec
from stpl_runtime.sources import messages
from stpl_runtime.sources.messages import Messages
from stpl_runtime.sources.queue_message import Message
from stpl_runtime.timing import EPOCH

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, TopicPartition
    from confluent_kafka import Message as Record

OPTIONS = (*messages.OPTIONS, "group", "start", "behind", "password_env")

TICK_S = 0.1
TIMEOUT_S = 5.0
_EXAMPLE = "kafka://HOST:9092/TOPIC"
_TIMED = re.compile(r"\d{8}[T_-]?\d{4}")


def open_source(rest: str, spec: SourceSpec) -> KafkaSource:
    """Open `kafka:REST`.

    Raises:
        UsageError: no host, no topic, or an option that does not hold.
        MissingExtraError: confluent-kafka is not installed.
    """
    return KafkaSource(rest, spec)


class KafkaSource:
    """Keeps `stpl_runtime.source.Source`; records wait at the broker while the queue is full."""

    waits = True

    def __init__(self, rest: str, spec: SourceSpec) -> None:
        """Read the word; connects with `arrivals`. See `open_source`."""
        with reads_with("kafka"):
            import confluent_kafka
        passed = {name: value for name, value in spec.options.items() if "." in name}
        options = Options("kafka", spec.options, (*OPTIONS, *passed))
        address = parse_address("kafka", rest, _EXAMPLE, options)
        self._topic = address.rest
        self.name, self.health = f"kafka://{address.hosts}/{self._topic}", Health()
        if not self._topic:
            raise UsageError(f"{self.name} names no topic", expected=_EXAMPLE, fix=_EXAMPLE)
        self._messages = Messages(spec, options, address.host_and_port(9092)[0])
        self._group = options.text("group")
        self._start = options.text("start", "latest")
        if not re.fullmatch(r"latest|earliest|-\d{1,9}", self._start):
            raise UsageError(
                f"kafka: --source-option start={self._start}",
                expected="latest, earliest or -N",
                fix="--source-option start=-20",
            )
        self._behind = int(options.number("behind", 64, most=1_000_000))
        self._settings = self._made_settings(address.hosts, address.user, address.password, passed)
        try:
            confluent_kafka.Consumer(self._settings).close()
        except confluent_kafka.KafkaException as error:
            raise UsageError(
                f"kafka: {text_of(error.args[0])}",
                expected="settings that librdkafka knows",
                fix="check the --source-option that has a dot",
            ) from error
        self._next: dict[int, int] = {}
        """Partition -> the offset to read next; survives a new connection."""
        self._taken: dict[int, deque[int]] = {}
        """Partition -> the newest offsets that are not committed yet."""
        self._trouble = ""
        self._refused = ""

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield what comes until `stop`; see the protocol.

        Raises:
            SourceLostError: the broker refuses the user at the very start.
        """
        from confluent_kafka import KafkaException

        failures = (KafkaException, OSError)
        try:
            yield from reconnecting(lambda: self._consumed(stop), stop, self.health, failures)
        finally:
            self._messages.close()

    def _made_settings(
        self, hosts: str, user: str, password: str, passed: dict[str, str]
    ) -> dict[str, Any]:
        sasl = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": user,
            "sasl.password": password,
        }
        most = max(self._messages.most_bytes, 2_000_000)  # librdkafka wants at least that
        return {
            "client.id": "stpl-deploy",
            "log_level": 0,  # what matters comes by error_cb
            **(sasl if user else {}),
            **passed,
            "bootstrap.servers": hosts,
            "group.id": self._group or "stpl-deploy",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",  # what we wanted is deleted: the oldest that is left
            "allow.auto.create.topics": False,
            "topic.metadata.refresh.interval.ms": 10_000,
            "reconnect.backoff.ms": int(FIRST_S * 1000),
            # It adds a fifth by chance, and is seen to be back with the next statistics.
            "reconnect.backoff.max.ms": int(MOST_S * 600),
            "statistics.interval.ms": 300,
            # Records wait at the broker, not here.
            "fetch.message.max.bytes": most,
            "fetch.max.bytes": most,
            "receive.message.max.bytes": most + 1_000_000,
            "queued.min.messages": 1,
            "fetch.queue.backoff.ms": 20,  # else the next record waits a second after each
            "queued.max.messages.kbytes": max(1024, most // 1000),
            "error_cb": self._note_error,
            "stats_cb": self._note_state,
        }

    def _consumed(self, stop: threading.Event) -> Iterator[Arrival]:
        from confluent_kafka import Consumer, KafkaException

        consumer = Consumer(self._settings)
        try:
            consumer.assign(self._places(consumer))
            self.health.up()
            while not stop.is_set():
                record = consumer.poll(TICK_S)
                if record is None:
                    continue
                error = record.error()
                if error is not None:
                    if not error.retriable() and error.code() not in passing_errors():
                        raise KafkaException(error)
                    continue
                yield from self._messages.arrivals(message_of(record))
                self._commit(consumer, record)
        except KafkaException as error:
            with suppress(KafkaException):
                consumer.poll(0.0)  # `error_cb` knows why
            self._refuse()
            raise OSError(self._trouble or text_of(error.args[0])) from error
        finally:
            consumer.close()

    def _places(self, consumer: Consumer) -> list[TopicPartition]:
        """Every partition, and where reading it begins; see `_partitions`."""
        places = self._partitions(consumer)
        kept = {}
        if self._group:
            committed = consumer.committed(places, timeout=TIMEOUT_S)
            kept = {place.partition: place.offset for place in committed if place.offset >= 0}
        for place in places:
            number = place.partition
            if number not in self._next:
                self._next[number] = kept.get(number, -1)
            if self._next[number] < 0:
                self._next[number] = self._first(consumer, place)
            place.offset = self._next[number]
        self._trouble = ""
        return places

    def _partitions(self, consumer: Consumer) -> list[TopicPartition]:
        """Every partition of the topic.

        Raises:
            KafkaException: the broker is not there, or has no such topic.
        """
        from confluent_kafka import KafkaException, TopicPartition

        found = consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
        if found.error is not None:
            self._trouble = f"no topic {self._topic}: {text_of(found.error)}"
            raise KafkaException(found.error)
        return [TopicPartition(self._topic, number) for number in sorted(found.partitions)]

    def _first(self, consumer: Consumer, place: TopicPartition) -> int:
        low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
        if self._start == "earliest":
            return int(low)
        back = 0 if self._start == "latest" else -int(self._start)
        return int(max(low, high - back))

    def _commit(self, consumer: Consumer, record: Record) -> None:
        """Note that a record was taken; commit what is `behind` records older."""
        from confluent_kafka import TopicPartition

        number, offset = record.partition(), record.offset()
        assert number is not None, "a record that was read"
        assert offset is not None, "a record that was read"
        self._next[number] = offset + 1
        if not self._group:
            return
        taken = self._taken.setdefault(number, deque())
        taken.append(offset)
        if len(taken) > self._behind:
            done = TopicPartition(self._topic, number, taken.popleft() + 1)
            consumer.commit(offsets=[done], asynchronous=True)

    def _note_error(self, error: KafkaError) -> None:
        """Called within `poll`: what librdkafka found of the brokers."""
        from confluent_kafka import KafkaError

        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.health.down(self._trouble or text_of(error))
            return
        self._trouble = text_of(error)
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            self._refused = self._trouble

    def _note_state(self, statistics: str) -> None:
        """Called within `poll`, three times a second: the state of every broker.

        Up where every partition that we read has a leader that is, or, while none has one, any.
        """
        found = json.loads(statistics)
        brokers = found.get("brokers", {}).values()
        up = {broker["nodeid"] for broker in brokers if broker["state"] == "UP"}
        topics = found.get("topics", {}).values()
        parts = [part for topic in topics for part in topic["partitions"].values()]
        # -1 is no leader, and a broker that has not given its number yet.
        leaders = {part["leader"] for part in parts if part["desired"]}
        silent = set() if leaders == {-1} else leaders - (up - {-1})
        if up and not silent:
            self.health.up()
            self._refused = self._trouble = ""
        elif leaders and self.health.now().state == "up":  # none: sent before we were there
            numbers = ", ".join(str(number) for number in sorted(silent) if number >= 0)
            lost = "a partition has no leader" if -1 in silent else "no broker answers"
            self.health.down(
                self._trouble or (f"no answer from broker {numbers}" if numbers else lost)
            )

    def _refuse(self) -> None:
        """Raise where the user is wrong, and never was right."""
        if self._refused and not self._next:
            raise SourceLostError(
                f"{self.name}: {self._refused}",
                expected="a user that may read this topic",
                fix="check user, password and sasl.mechanism",
            )


def passing_errors() -> tuple[int, ...]:
    """Errors that end by themselves, or that `error_cb` reports."""
    from confluent_kafka import KafkaError

    return (
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._AUTO_OFFSET_RESET,
    )


def text_of(error: KafkaError) -> str:
    """An error in one line."""
    return without_credentials(" ".join(str(error.str()).split()))


def message_of(record: Record, *, keyed: bool = False) -> Message:
    """A record as a message.

    Args:
        record: without an error.
        keyed: its key is the name of its stream, and never that of a file.
    """
    headers = cast("list[tuple[str, bytes | None]]", record.headers() or [])
    facts = {name: value.decode(errors="replace") for name, value in headers if value is not None}
    key = record.key()
    text = key.decode(errors="replace") if isinstance(key, bytes) else key or ""
    # A key such as `site42` says where a frame belongs; only one like a file name is its name.
    if text and not keyed and (PurePosixPath(text).suffix or _TIMED.search(text)):
        facts.setdefault("name", text)
    kind, stamp_ms = record.timestamp()
    value = record.value()
    content = value if isinstance(value, bytes) else str(value or "").encode()
    return Message(content, record.topic() or "", facts, _sent(stamp_ms) if kind else None)


def _sent(stamp_ms: int) -> datetime | None:
    """The time of a stamp; None where it is beyond the years 1 to 9999: producers send anything."""
    try:
        return EPOCH + timedelta(milliseconds=stamp_ms)
    except OverflowError:
        return None
