"""Nowcasts to an MQTT broker, QoS 1: what it is in JSON, and its frames.

    mqtt:mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC        TOPIC/nowcast.json and TOPIC/nowcast.npz
    mqtt,format=nc:mqtts://HOST/TOPIC                    TOPIC/nowcast.nc
    mqtt,format=none:...                                 the JSON alone
    mqtt,retain=yes:...                                  late subscribers get the newest one

Of several streams, each has its own topic, TOPIC/<stream>/. The frames come first, so that they are
there when the JSON (`sinks.summary`) is read. In version 5 both carry the user properties `name`
and `valid_time`, the issue time, as our own source reads them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from stpl_core.errors import SinkError, UsageError
from stpl_runtime.links import mqtt
from stpl_runtime.links.reconnect import Backoff
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.options import Options
from stpl_runtime.sink import KeepsFiles, SinkSpec
from stpl_runtime.sinks.file_format import attachments
from stpl_runtime.sinks.summary import summary_line
from stpl_runtime.timing import utc_text

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

_OPTIONS = (*mqtt.OPTIONS, "format", "retain", "timeout")


def open_sink(rest: str, spec: SinkSpec | None = None) -> MqttSink:
    """`mqtt:URL`; see above.

    Raises:
        UsageError: no URL, or an option that is not right.
        MissingExtraError: paho-mqtt is not installed.
    """
    return MqttSink(rest, (spec or SinkSpec()).options)


class MqttSink:
    """Keeps `stpl_runtime.sink.Sink`."""

    def __init__(self, url: str, given: Mapping[str, str]) -> None:
        """Read the word; connects with the first nowcast. See `open_sink`."""
        options = Options("the sink mqtt", given, _OPTIONS, "--sink mqtt,")
        scheme, _, rest = url.partition(":")
        if scheme not in mqtt.PORTS:
            raise UsageError(
                f"--sink mqtt: is given {scheme}",
                expected=f"one of {', '.join(f'{name}://' for name in mqtt.PORTS)}",
                fix="--sink mqtt:mqtt://HOST/TOPIC",
            )
        self._broker = mqtt.Broker(scheme, rest, options)
        self.name = f"mqtt:{self._broker.name}"
        if set("+#") & set(self._broker.topic):
            raise UsageError(
                f"{self.name} has a wildcard",
                expected="a topic to publish to",
                fix="write it without + and #",
            )
        self.beside: tuple[KeepsFiles, ...] = ()
        kinds = attachments()
        self._format = kinds.get(options.choice("format", (*kinds, "none"), "npz"))
        if self._format is not None:
            self._format.check_installed()
        self._retain = options.flag("retain")
        self._timeout_s = options.number("timeout", 10.0, least=0.1, most=600.0)
        # No pings: nobody reads the network between two nowcasts. What broke is found by writing.
        self._session = mqtt.Session(client_id=options.text("client_id"), keepalive_s=0)
        self._client: Client | None = None
        self._stop = threading.Event()

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`; returns when the broker has taken it."""
        messages = self._messages(nowcast)
        backoff, until = Backoff(), time.monotonic() + self._timeout_s
        while True:
            try:
                return self._publish(nowcast, messages, until)
            except ValueError as error:  # paho's own checks
                raise SinkError(
                    f"{self.name}: {error}",
                    expected="a topic, and a message of less than 256 MiB",
                    fix="--sink mqtt,format=none: sends the JSON alone",
                ) from error
            except OSError as error:
                self._client, reason = None, str(error)
                hopeless = isinstance(error, mqtt.RefusedError) and error.for_good
                if hopeless or time.monotonic() > until or self._stop.is_set():
                    raise SinkError(
                        f"{self.name}: {reason}",
                        expected=f"a broker that takes it within {self._timeout_s:g} s",
                        fix="check that it is up, and the rights of the user",
                    ) from error
            backoff.wait(self._stop)

    def close(self) -> None:
        """End what is being tried, and the connection."""
        self._stop.set()
        if self._client is not None:
            mqtt.close(self._client)
            self._client = None

    def _messages(self, nowcast: Nowcast) -> list[tuple[str, str, bytes]]:
        """Topic, file name and content of each."""
        topic = self._broker.topic
        if nowcast.stream:
            topic = f"{topic}/{quote(nowcast.stream, safe=' ')}"
        made = []
        if self._format is not None:
            suffix = self._format.suffixes[0]
            made.append((f"{topic}/nowcast{suffix}", suffix, self._format.bytes_of(nowcast)))
        made.append((f"{topic}/nowcast.json", ".json", summary_line(nowcast, self.beside)))
        return [(where, f"{nowcast.name}{suffix}", content) for where, suffix, content in made]

    def _publish(
        self, nowcast: Nowcast, messages: list[tuple[str, str, bytes]], until: float
    ) -> None:
        if self._client is None:
            self._client = self._broker.connect(self._session, self._stop)
        client = self._client
        answers: list[ReasonCode] = []
        client.on_publish = lambda *given: answers.append(given[3])
        for topic, name, content in messages:
            properties = self._properties(nowcast, name)
            sent = client.publish(topic, content, 1, self._retain, properties)
            if sent.rc:  # `is_published` would make an error of its own of it
                mqtt.close(client)
                raise mqtt.BrokerError("the connection was lost")
            left_s = max(until - time.monotonic(), 0.1)
            mqtt.spin(client, sent.is_published, left_s, self._stop, "no answer to PUBLISH")
            if answers and answers[-1].is_failure:
                mqtt.close(client)
                raise mqtt.RefusedError(f"{topic} is refused", answers[-1])

    def _properties(self, nowcast: Nowcast, name: str) -> Properties | None:
        if not self._broker.speaks_5:
            return None
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        facts = [("name", name)]
        if nowcast.issue_time is not None:
            facts.append(("valid_time", utc_text(nowcast.issue_time)))
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's is untyped
        properties.UserProperty = facts
        return properties
