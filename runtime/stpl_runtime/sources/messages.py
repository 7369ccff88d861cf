"""What the message queues share: from one message to frames.

A message's content is what a file holds: .npy, .png, ODIM HDF5 and whatever else a reader reads.
Its kind is known by the end of its name, or by its first bytes. Along with it may come, as MQTT 5
user properties, Kafka headers, or the JSON part of a ZeroMQ message:

    name          a file name: gives the kind by its end, and the time where it has 12 or 14 digits
    valid_time    when the frame was observed, ISO 8601; UTC where it says nothing else
    dtype, shape  the content is a bare array: `float32` and `[16, 16]`, row by row

Without a name, a Kafka record's key stands for it, else the topic. The time is that in the data,
else that in the name (a topic only where it has such digits, or by --time-format), else
`valid_time`; else, only where the option asks for it, `time=sent` (the queue's own stamp) or
`time=arrival`. A message that has none is bad.

Options of all three: `time`, `suffix` (the end of names that have none, `.grib2`), `max_mb` (larger
messages are bad), `resize`, and `fetch=yes`: a message is a notification, and the frame lies behind
its URL (`sources.notifications`).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath

import numpy as np

from stpl_core.errors import FrameError, StplError, UsageError
from stpl_core.frames import Frame
from stpl_runtime.ingest.decoding import Decoder, file_suffixes
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.sources.notifications import Fetcher
from stpl_runtime.sources.queue_message import Message
from stpl_runtime.timing import time_from_text

OPTIONS = ("time", "suffix", "max_mb", "resize", "fetch", "timeout")
"""Names for `--source-option` that all queues have."""
MAX_MB = 64.0

_DIGITS = re.compile(r"\d{8}[T_-]?\d{4}")
_UNSAFE = re.compile(r"[^\w.+-]")


class Messages:
    """Decodes the messages of one source."""

    def __init__(self, spec: SourceSpec, options: Options, near: str = "") -> None:
        """Read the options that all queues have.

        Args:
            spec: the frames that are expected.
            options: of the source.
            near: the host that the messages come from.

        Raises:
            UsageError: one that does not hold, or a wrong time format.
        """
        self._decoder = Decoder(spec, options.resize("none"))
        self._time = options.choice("time", ("data", "sent", "arrival"), "data")
        self._suffix = options.text("suffix")
        self._by_format = spec.time_format is not None
        self.most_bytes = int(options.number("max_mb", MAX_MB, least=0.001, most=2000.0) * 1e6)
        """Of one message."""
        timeout_s = options.number("timeout", 10.0, least=0.1)
        self._fetcher = Fetcher(self.most_bytes, timeout_s, near) if options.flag("fetch") else None

    def arrivals(self, message: Message) -> Iterator[Arrival]:
        """The frames of a message, or what is wrong with it; never nothing."""
        arrived = Arrival.now(BadFrame(message.topic, ""))
        for item in self._items(message, arrived.arrived_at):
            yield Arrival(item, arrived.arrived, arrived.arrived_at)

    def close(self) -> None:
        """Close what `fetch` holds open."""
        if self._fetcher is not None:
            self._fetcher.close()

    def _items(self, message: Message, arrived_at: datetime) -> list[Frame] | list[BadFrame]:
        try:
            if self._fetcher is not None:
                message = self._fetcher.fetched(message)
            if len(message.content) > self.most_bytes:
                raise FrameError(
                    f"a message of {len(message.content):,} bytes",
                    expected=f"at most {self.most_bytes:,}",
                    fix="--source-option max_mb=MEGABYTES",
                )
            if not message.content:
                raise FrameError(
                    "the message is empty", expected="a frame", fix="send no empty messages"
                )
            content, name = message.content, self._name(message)
            if "dtype" in message.facts:
                content, name = _npy(message), f"{name.removesuffix('.npy')}.npy"
            return self._decoder.from_bytes(content, name, self._known_time(message, arrived_at))
        except UsageError as error:  # also an index where no cadence is known: it is theirs
            return [BadFrame(message.facts.get("name") or message.topic, _reason(error))]
        except StplError:
            raise
        except Exception as error:  # what others send makes the libraries raise what they like
            reason = without_credentials(" ".join(str(error).split())) or type(error).__name__
            return [BadFrame(message.topic, f"a message that cannot be used: {reason}")]

    def _name(self, message: Message) -> str:
        name = message.facts.get("name", "")
        has_time = self._by_format or _DIGITS.search(message.topic)
        if not name:
            topic = message.topic.lower()
            suffix = next((end for end in file_suffixes() if topic.endswith(end)), "")
            name = message.topic if has_time else f"message{suffix}"
        last = _UNSAFE.sub("_", PurePosixPath(name).name)[-150:].lstrip(".") or "message"
        return last if last.lower().endswith(self._suffix.lower()) else f"{last}{self._suffix}"

    def _known_time(self, message: Message, arrived_at: datetime) -> datetime | None:
        text = message.facts.get("valid_time")
        if text:
            return parse_time(text)
        if self._time == "sent":
            return message.sent
        return arrived_at if self._time == "arrival" else None


def parse_time(text: str) -> datetime:
    """A message's time; see `time_from_text`.

    Raises:
        FrameError: it is none.
    """
    try:
        return time_from_text(text)
    except ValueError:
        raise FrameError(
            f"valid_time is {text[:40]!r}",
            expected="a time in ISO 8601",
            fix="send it as 2026-01-31T12:00:00Z",
        ) from None


def _npy(message: Message) -> bytes:
    """A bare array as .npy.

    Raises:
        FrameError: dtype, shape and content do not go together.
    """
    facts = message.facts
    try:
        shape = json.loads(facts.get("shape", ""))
        array = np.frombuffer(message.content, np.dtype(facts["dtype"])).reshape(shape)
    except (ValueError, TypeError) as error:
        raise FrameError(
            f"{len(message.content):,} bytes are no {facts['dtype'][:20]} array: {error}",
            expected="dtype and shape as numpy has them",
            fix="send array.dtype.str and list(array.shape)",
        ) from error
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _reason(error: UsageError) -> str:
    if "holds no time" not in error.found:
        return str(error)
    return (
        "a message that holds no time; expected a name with 12 or 14 digits, or valid_time; "
        "try: send it along, or --source-option time=arrival"
    )
