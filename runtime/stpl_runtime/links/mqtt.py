"""A connection to an MQTT broker, for the source and for the sink.

Version 5 is tried first, since its messages may carry their time; a broker that does not speak it
is asked for 3.1.1 (option `version=3.1.1` begins there). The network is read by whoever calls
`client.loop`: no thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stpl_core.errors import UsageError
from stpl_core.readers.libraries import reads_with
from stpl_runtime.links.address import parse_address
from stpl_runtime.options import Options

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

OPTIONS = ("ca", "cert", "key", "path", "password_env", "client_id", "version")
"""What both the source and the sink have."""
PORTS = {"mqtt": 1883, "mqtts": 8883, "mqtt+ws": 80, "mqtt+wss": 443}
"""Scheme -> its usual port."""

_TIMEOUT_S = 5.0
"""For each step of connecting."""
_TICK_S = 0.1
_OTHER_VERSION = 132
_FOR_GOOD = (133, 134, 135, 138, 140)
"""Refusals that no waiting ends: client identifier, password, rights, banned, method."""


class BrokerError(ConnectionError):
    """The connection broke, or was refused."""


class RefusedError(BrokerError):
    """The broker refused."""

    def __init__(self, what: str, code: ReasonCode) -> None:
        """Say what it refused, and why."""
        super().__init__(f"{what}: {code}")
        self.for_good = code.value in _FOR_GOOD


@dataclass(frozen=True)
class Session:
    """How a client presents itself."""

    client_id: str = ""
    """The same one finds its session again; empty: a new one each time."""
    expiry_s: int = 0
    """How long the broker keeps what came while the client was away; 0 forgets it."""
    keepalive_s: int = 10
    """A broker that does not answer for about so long is lost; 0 never asks."""
    most_bytes: int = 0
    """Of one message; 0 for any."""
    acknowledges: bool = False
    """Messages are acknowledged by `client.ack`, not when they arrive."""


class Broker:
    """Where a broker is and how one is let in; `name` is without credentials."""

    def __init__(self, scheme: str, rest: str, options: Options) -> None:
        """Read `SCHEME:REST`.

        Args:
            scheme: one of `PORTS`.
            rest: what follows it: `//[USER:PASSWORD@]HOST[:PORT]/TOPIC`.
            options: with the names of `OPTIONS`.

        Raises:
            UsageError: no host, no topic, or an option that does not hold.
            MissingExtraError: paho-mqtt is not installed.
        """
        with reads_with("mqtt"):
            import paho.mqtt.client  # noqa: F401
        example = f"{scheme}://HOST/TOPIC"
        self._address = parse_address(scheme, rest, example, options)
        self.host, self.port = self._address.host_and_port(PORTS[scheme])
        self.topic = self._address.rest
        self.name = f"{scheme}://{self._address.hosts}/{self.topic}"
        if not self.topic:
            raise UsageError(f"{self.name} names no topic", expected=example, fix=example)
        self._tls = scheme in ("mqtts", "mqtt+wss")
        self._web = scheme in ("mqtt+ws", "mqtt+wss")
        self._path = options.text("path", "/mqtt")
        self._files: dict[str, Any] = {
            "ca_certs": options.text("ca") or None,
            "certfile": options.text("cert") or None,
            "keyfile": options.text("key") or None,
        }
        version = options.choice("version", ("5", "3.1.1", "auto"), "auto")
        self._is_old = version == "3.1.1"
        """Whether it speaks 3.1.1 and not 5."""
        self._is_known = version != "auto"

    def connect(self, session: Session, stop: threading.Event) -> Client:
        """A client that the broker has let in.

        Raises:
            RefusedError: it refused.
            OSError: it is not there, or broke off (`BrokerError` is one).
            UsageError: the files for TLS cannot be read.
        """
        client = self._client(session)
        answers: list[tuple[bool, ReasonCode]] = []

        def connected(
            _client: Client,
            _userdata: object,
            flags: ConnectFlags,
            code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            answers.append((flags.session_present, code))

        client.on_connect = connected
        try:
            client.connect(self.host, self.port, **self._words(session))
            spin(client, lambda: bool(answers), _TIMEOUT_S, stop, "no answer to CONNECT")
        except BrokerError:
            if not answers:
                if not self._is_known:
                    self._is_old = not self._is_old  # some close at a version they do not know
                raise
        code = answers[0][1]
        if code.is_failure:
            close(client)
            if code.value == _OTHER_VERSION and not (self._is_old or self._is_known):
                self._is_old = True
                return self.connect(session, stop)
            raise RefusedError(f"{self.host}:{self.port} refuses the connection", code)
        self._is_known = True
        return client

    @property
    def speaks_5(self) -> bool:
        """Whether messages may carry properties; known once connected."""
        return not self._is_old

    def _client(self, session: Session) -> Client:
        from paho.mqtt.client import Client, MQTTv5, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=session.client_id,
            clean_session=not session.expiry_s if self._is_old else None,
            protocol=MQTTv311 if self._is_old else MQTTv5,
            transport="websockets" if self._web else "tcp",
            reconnect_on_failure=False,
            manual_ack=session.acknowledges,
        )
        client.connect_timeout = _TIMEOUT_S
        if self._web:
            client.ws_set_options(path=self._path)
        if self._tls:
            try:
                client.tls_set(**self._files)
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"{self.name}: the certificates cannot be used: {error}",
                    expected="PEM files: ca, or cert and key",
                    fix="check the paths",
                ) from error
        if self._address.user or self._address.password:
            client.username_pw_set(self._address.user, self._address.password or None)
        return client

    def _words(self, session: Session) -> dict[str, Any]:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        words: dict[str, Any] = {"keepalive": session.keepalive_s}
        if not self._is_old:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's is untyped
            if session.expiry_s:
                properties.SessionExpiryInterval = session.expiry_s
            if session.most_bytes:
                properties.MaximumPacketSize = session.most_bytes
            words.update(clean_start=not session.expiry_s, properties=properties)
        return words


def spin(
    client: Client, done: Callable[[], bool], timeout_s: float, stop: threading.Event, reason: str
) -> None:
    """Serve the network until `done()`.

    Raises:
        BrokerError: the connection broke, `stop` was set, or it took too long, for `reason`.
    """
    until = time.monotonic() + timeout_s
    while not done():
        serve(client)
        if stop.is_set() or time.monotonic() > until:
            close(client)
            raise BrokerError(reason)


def serve(client: Client) -> None:
    """Wait a moment for the network and do what it brings.

    Raises:
        BrokerError: the connection broke.
    """
    from paho.mqtt.client import error_string
    from paho.mqtt.enums import MQTTErrorCode

    code = client.loop(_TICK_S)
    if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
        raise BrokerError(error_string(code).rstrip("."))


def close(client: Client) -> None:
    """Say goodbye where the connection stands, and close the socket."""
    client.on_disconnect = None
    client.disconnect()
    client.loop(0.01)
