"""One message of any queue: MQTT, Kafka or ZeroMQ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Message:
    """One message of any queue."""

    content: bytes
    topic: str
    facts: Mapping[str, str] = field(default_factory=dict)
    """What came along, see `sources.messages`; other names are not read."""
    sent: datetime | None = None
    """The queue's own stamp."""
