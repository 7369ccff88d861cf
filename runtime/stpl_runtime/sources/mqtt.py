"""MQTT: each message on a topic is one frame; see `sources.messages` for what may come along.

    mqtt://[USER:PASSWORD@]HOST[:1883]/TOPIC/WITH/+/AND/#
    mqtts://...                 TLS, 8883
    mqtt+ws://...               over WebSocket, 80; option path=/mqtt
    mqtt+wss://...              over WebSocket and TLS, 443

A message of QoS 1 is acknowledged once its frame was taken, and may come twice (the window settles
that). With `client_id=NAME` the broker keeps what comes while we are away, for `session` seconds.
A retained message is an old frame: it is left out unless `retained=yes`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from stpl_core.errors import SourceLostError
from stpl_runtime.links import mqtt
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import reconnecting
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.sources import messages
from stpl_runtime.sources.messages import Messages
from stpl_runtime.sources.queue_message import Message

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

OPTIONS = (*messages.OPTIONS, *mqtt.OPTIONS, "qos", "retained", "session", "keepalive")

_DAY_S = 86400.0
_TIMEOUT_S = 5.0
_ROOM = 4096
"""Bytes of a packet beside its content: topic and properties."""


def _open(scheme: str, rest: str, spec: SourceSpec) -> MqttSource:
    return MqttSource(scheme, rest, spec)


open_mqtt = partial(_open, "mqtt")
open_mqtts = partial(_open, "mqtts")
open_mqtt_ws = partial(_open, "mqtt+ws")
open_mqtt_wss = partial(_open, "mqtt+wss")


class MqttSource:
    """Keeps `stpl_runtime.source.Source`."""

    waits = False

    def __init__(self, scheme: str, rest: str, spec: SourceSpec) -> None:
        """Read the word; connects with `arrivals`.

        Raises:
            UsageError: no host, no topic, or an option that does not hold.
            MissingExtraError: paho-mqtt is not installed.
        """
        options = Options(scheme, spec.options, OPTIONS)
        self._broker = mqtt.Broker(scheme, rest, options)
        self.name, self.health = self._broker.name, Health()
        self._messages = Messages(spec, options, self._broker.host)
        self._qos = int(options.choice("qos", ("0", "1", "2"), "1"))
        self._retained = options.flag("retained")
        client_id = options.text("client_id")
        expiry_s = options.number("session", _DAY_S if client_id else 0.0, most=2**32 - 1)
        self._session = mqtt.Session(
            client_id=client_id,
            expiry_s=int(expiry_s) if client_id else 0,
            keepalive_s=int(options.number("keepalive", 10.0, least=1.0, most=65535.0)),
            most_bytes=self._messages.most_bytes + _ROOM,
            acknowledges=True,
        )
        self._was_up = False

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield what comes until `stop`; see the protocol.

        Raises:
            SourceLostError: the broker refuses the user or the topic at the very start.
        """
        try:
            yield from reconnecting(lambda: self._connected(stop), stop, self.health, (OSError,))
        finally:
            self._messages.close()

    def _connected(self, stop: threading.Event) -> Iterator[Arrival]:
        client = None
        try:
            client = self._broker.connect(self._session, stop)
            received: deque[MQTTMessage] = deque()
            client.on_message = lambda _client, _userdata, message: received.append(message)
            self._subscribe(client, stop)
            self._was_up = True
            self.health.up()
            while not stop.is_set():
                mqtt.serve(client)
                while received:
                    message = received.popleft()
                    if self._retained or not message.retain:
                        yield from self._arrivals(message)
                    client.ack(message.mid, message.qos)
        except mqtt.RefusedError as error:
            if self._was_up or not error.for_good:
                raise
            raise SourceLostError(
                f"{self.name}: {error}",
                expected="a user that may read this topic",
                fix="check user, password and topic",
            ) from error
        finally:
            if client is not None:
                mqtt.close(client)

    def _arrivals(self, received: MQTTMessage) -> Iterator[Arrival]:
        try:
            message = _message(received)
        except UnicodeDecodeError:  # paho reads the topic as it is asked for
            yield Arrival.now(BadFrame(self.name, "a message whose topic is not UTF-8"))
            return
        yield from self._messages.arrivals(message)

    def _subscribe(self, client: Client, stop: threading.Event) -> None:
        from paho.mqtt.subscribeoptions import SubscribeOptions

        answers: list[ReasonCode] = []
        client.on_subscribe = lambda *given: answers.extend(given[3])
        words: dict[str, Any] = {"qos": self._qos}
        if self._broker.speaks_5:
            # 2: the broker is not even asked for retained messages.
            handling = 0 if self._retained else 2
            words = {"options": SubscribeOptions(qos=self._qos, retainHandling=handling)}
        client.subscribe(self._broker.topic, **words)
        mqtt.spin(client, lambda: bool(answers), _TIMEOUT_S, stop, "no answer to SUBSCRIBE")
        if answers[0].is_failure:
            raise mqtt.RefusedError(f"{self._broker.topic} is refused", answers[0])


def _message(received: MQTTMessage) -> Message:
    properties = getattr(received.properties, "UserProperty", ())
    return Message(bytes(received.payload), received.topic, dict(properties))
