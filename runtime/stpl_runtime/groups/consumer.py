"""A member of a consumer group: its partitions, where it reads them from, and what is done.

The key of a record names its stream, so a stream lies in one partition and is read by one member.
The group's committed offset of a partition is the first record whose nowcast is not written yet.
A member that gets a partition goes back from there, as far as it takes to have every stream's
window (`_Partition`), and reads the log again: nothing else has to be kept of a stream.

Members join with the cooperative protocol: those partitions that stay with a member are read on
while others move. With `member=NAME` membership is static: a member that is back before the
session's timeout finds its partitions where they were, and nobody else notices.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from stpl_core.errors import UsageError
from stpl_runtime.links.reconnect import reconnecting
from stpl_runtime.source import Arrival, SourceSpec
from stpl_runtime.sources.kafka import (
    TICK_S,
    TIMEOUT_S,
    KafkaSource,
    message_of,
    passing_errors,
    text_of,
)

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition
    from confluent_kafka import Message as Record

_BEHIND = 64
"""Records that a member looks back at first."""
_WINDOWS = 2
"""Windows of every stream that it wants to find there: late frames change the older one."""
_FAR = 8
"""It looks back so many times that far at most: a stream that stopped long ago has no window."""
_COMMIT_S = 0.5
_SESSION_MS, _HEARTBEAT_MS = 10_000, 2_000


@dataclass(frozen=True)
class Taken:
    """A record of a stream."""

    partition: int
    offset: int
    stream: str
    arrivals: tuple[Arrival, ...]
    is_done: bool
    """Its nowcast was written, by whoever had the partition: it fills the window again."""


@dataclass
class _Partition:
    """One that this member holds."""

    number: int
    start: int
    """The first record that is not done."""
    low: int
    """The first one that the log still has."""
    first: int
    """Where reading begins."""
    phase: Literal["looking", "reading"] = "looking"
    keys: Counter[str] = field(default_factory=Counter)
    """While it looks: the records of each stream between `first` and `start`."""
    next: int = -1
    """The record after the newest one that is done."""
    committed: int = -1

    def is_enough(self, context: int) -> bool:
        """Whether windows can be filled from `first` on, or nothing is gained by going further."""
        wanted = _WINDOWS * context
        looked = self.start - self.first
        far = _FAR * wanted * max(1, len(self.keys))
        filled = bool(self.keys) and min(self.keys.values()) >= wanted
        return filled or self.first <= self.low or looked >= far


@dataclass
class GroupCounts:
    """How the group went for this member."""

    rebalances: int = 0
    partitions: int = 0
    """Held now."""
    of: int = 0
    """Of the topic."""
    refilled: int = 0
    """Records that were read again to fill windows."""
    lag: int = 0
    """Records of its partitions that are not done yet."""


class KafkaGroup(KafkaSource):
    """Records of the partitions that this member holds, in the order of each partition."""

    def __init__(
        self,
        rest: str,
        spec: SourceSpec,
        group: str,
        context: int,
        on_release: Callable[[set[int]], None],
        on_note: Callable[[str], None],
    ) -> None:
        """Read the word; connects with `taken`.

        Args:
            rest: what follows `kafka:`.
            spec: the frames that are expected.
            group: its name.
            context: T.
            on_release: given the partitions that it holds no longer.
            on_note: given a line about the group.

        Raises:
            UsageError: an option that does not hold, or has no meaning in a group.
        """
        given = dict(spec.options)
        if "group" in given:
            raise UsageError(
                "--group with --source-option group=NAME",
                expected="one of them",
                fix="leave --source-option group out",
            )
        self._member = given.pop("member", "")
        super().__init__(rest, replace(spec, options=given))
        self._group, self._context = group, context
        self._on_release, self._on_note = on_release, on_note
        self._behind = max(1, int(given.get("behind", _BEHIND)))
        self._settings |= self._group_settings(given)
        self._held: dict[int, _Partition] = {}
        self._consumer: Consumer | None = None
        self._keyed = self._reported = False
        self.counts = GroupCounts()
        self.is_busy = False
        """Set by the reader: it has other work, and does not wait for records."""

    def taken(self, stop: threading.Event) -> Iterator[Taken | None]:
        """Yield records until `stop`, and None now and then where there are none.

        Raises:
            SourceLostError: the broker refuses the user at the very start.
            UsageError: the records have no keys, or another member has this one's name.
        """
        from confluent_kafka import KafkaException

        try:
            yield from reconnecting(
                lambda: self._members(stop),
                stop,
                self.health,
                (KafkaException, OSError),
                between=(None,),
            )
        finally:
            self._messages.close()

    def done(self, taken: Taken) -> None:
        """The record's nowcast is written, or it made none."""
        held = self._held.get(taken.partition)
        if held is not None and not taken.is_done:
            held.next = taken.offset + 1

    def _group_settings(self, given: dict[str, str]) -> dict[str, Any]:
        usual = {"session.timeout.ms": _SESSION_MS, "heartbeat.interval.ms": _HEARTBEAT_MS}
        settings: dict[str, Any] = {
            "group.id": self._group,
            "enable.partition.eof": True,
            "partition.assignment.strategy": "cooperative-sticky",
            "on_commit": self._committed,
            **{name: value for name, value in usual.items() if name not in given},
        }
        if self._member:
            settings["group.instance.id"] = self._member
        return settings

    def _members(self, stop: threading.Event) -> Iterator[Taken | None]:
        """One connection."""
        from confluent_kafka import Consumer, KafkaException

        consumer = self._consumer = Consumer(self._settings)
        try:
            self.counts.of = len(self._partitions(consumer))
            consumer.subscribe(
                [self._topic],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            began = committed = monotonic()
            while not stop.is_set():
                record = consumer.poll(0.0 if self.is_busy else TICK_S)
                yield self._next_of(consumer, record)
                if monotonic() - committed >= _COMMIT_S:
                    self._commit_done(wait=False)
                    committed = monotonic()
                self._report_idle(monotonic() - began)
        except KafkaException as error:
            with suppress(KafkaException):
                consumer.poll(0.0)  # `error_cb` knows why
            self._refuse()
            self._refuse_member(error)
            raise OSError(self._trouble or text_of(error.args[0])) from error
        finally:
            with suppress(KafkaException):
                self._commit_done(wait=True)
            consumer.close()
            self._drop(set(self._held))

    def _next_of(self, consumer: Consumer, record: Record | None) -> Taken | None:
        """What a record is for the streams; None where it is nothing to them."""
        from confluent_kafka import KafkaError, KafkaException

        if record is None:
            return None
        error = record.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            if not error.retriable() and error.code() not in passing_errors():
                raise KafkaException(error)
            return None
        number, offset = record.partition(), record.offset()
        assert number is not None, "a record that was read"
        held = self._held.get(number)
        if held is None:  # it was given away while this one was on its way
            return None
        if held.phase == "looking" and not self._has_looked(consumer, held, record):
            return None
        if error is not None:
            return None
        assert offset is not None, "a record that was read"
        is_done = offset < held.start
        self.counts.refilled += is_done
        arrivals = tuple(self._messages.arrivals(message_of(record, keyed=True)))
        return Taken(number, offset, self._key(record), arrivals, is_done)

    def _has_looked(self, consumer: Consumer, held: _Partition, record: Record) -> bool:
        """Look at what lies before `start`; True once reading begins with this very record."""
        from confluent_kafka import TopicPartition

        offset = record.offset()
        if record.error() is None and offset is not None and offset < held.start:
            held.keys[self._key(record)] += 1
            return False
        if not held.is_enough(self._context):
            held.first = max(held.low, held.start - 2 * (held.start - held.first))
            held.keys.clear()
        else:
            held.phase = "reading"
        consumer.seek(TopicPartition(self._topic, held.number, held.first))
        return False

    def _key(self, record: Record) -> str:
        """The stream of a record.

        Raises:
            UsageError: it has no key, and none that came before had one.
        """
        key = record.key()
        if key:
            self._keyed = True
            return key.decode(errors="backslashreplace") if isinstance(key, bytes) else str(key)
        if not self._keyed:
            raise UsageError(
                f"{self.name} has records without a key",
                expected="the name of its stream as the key of each record, for --group",
                fix="send them with a key; or leave --group out: one process, one stream",
            )
        return ""

    def _assigned(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        """Called within `poll`: these partitions are ours from now on."""
        self.counts.rebalances += 1
        found = consumer.committed(list(places), timeout=TIMEOUT_S) if places else []
        for place in found:
            low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
            start = place.offset if place.offset >= 0 else self._first(consumer, place)
            start = min(max(start, low), high)
            held = _Partition(place.partition, start, low, max(low, start - self._behind))
            held.phase = "looking" if held.first < start else "reading"
            self._held[place.partition] = held
            self._next[place.partition] = start
            place.offset = held.first
        consumer.incremental_assign(found)
        self.counts.partitions = len(self._held)
        if found:
            numbers = ", ".join(str(place.partition) for place in found)
            self._on_note(f"{self.name}: got partition {numbers}")
            self._reported = False

    def _revoked(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        """Called within `poll` or `close`: others get them; what is done is committed before."""
        from confluent_kafka import KafkaException

        self.counts.rebalances += 1
        with suppress(KafkaException):
            self._commit_done(wait=True)
        self._give_up(consumer, places)

    def _lost(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        """Called within `poll`: others have them already, since we were not heard of."""
        self.counts.rebalances += 1
        self._on_note(f"{self.name}: lost its partitions, since the broker did not hear of it")
        self._give_up(consumer, places)

    def _give_up(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        self._drop({place.partition for place in places})
        consumer.incremental_unassign(list(places))

    def _drop(self, numbers: set[int]) -> None:
        for number in numbers:
            self._held.pop(number, None)
        self.counts.partitions = len(self._held)
        if numbers:
            self._on_release(numbers)

    def _commit_done(self, *, wait: bool) -> None:
        """Commit what is done, and count what is not."""
        from confluent_kafka import TopicPartition

        assert self._consumer is not None, "there are partitions"
        places = []
        lag = 0
        for held in self._held.values():
            place = TopicPartition(self._topic, held.number)
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            lag += max(0, high - max(held.next, held.start))
            if held.next > held.committed:
                place.offset = held.committed = held.next
                places.append(place)
        self.counts.lag = lag
        if places and wait:
            self._consumer.commit(offsets=places, asynchronous=False)
        elif places:
            self._consumer.commit(offsets=places, asynchronous=True)

    def _committed(self, error: Any, places: Sequence[TopicPartition]) -> None:
        """Called within `poll`: what the broker did not take is committed again."""
        if error is None:
            return
        for place in places:
            held = self._held.get(place.partition)
            if held is not None:
                held.committed = -1

    def _report_idle(self, waited_s: float) -> None:
        """Once: this member has nothing to do, since there are more of them than partitions."""
        if self._held or self._reported or waited_s < _SESSION_MS / 1000:
            return
        self._reported = True
        self._on_note(
            f"{self.name} has {self.counts.of} partition(s) and the group {self._group} more "
            "workers than that: this one waits until another ends"
        )

    def _refuse_member(self, error: BaseException) -> None:
        """Raise where another process has this one's name."""
        from confluent_kafka import KafkaError

        fault = error.args[0]  # a fatal error carries its reason as text alone
        fenced = fault.code() == KafkaError._FATAL and "fenced" in text_of(fault)
        if fenced or fault.code() == KafkaError.FENCED_INSTANCE_ID:
            raise UsageError(
                f"another worker of the group {self._group} is member={self._member}",
                expected="a name for each worker",
                fix="another --source-option member=NAME",
            ) from error
