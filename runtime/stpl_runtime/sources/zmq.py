"""ZeroMQ: each message of a publisher is one frame; see `sources.messages` for what may come along.

    zmq://HOST:PORT[/TOPIC]     subscribes to everything that begins with TOPIC
    zmq+ipc:///PATH/OF/SOCKET   the same on one machine; option topic=TOPIC
    type=pull                   takes from a PUSH socket, which waits while we are away
    bind=yes                    we are the fixed end, and HOST is an address of ours, or *

Parts of a message: `[content]`, `[topic, content]` or `[topic, JSON, content]`, the JSON an object
with what comes along. Between `hwm` messages (16) and our being slow, a publisher drops what is too
much, and nobody can count it. ZeroMQ itself connects again, and is asked how it stands.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from stpl_core.errors import SourceLostError, UsageError
from stpl_core.readers.libraries import reads_with
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import FIRST_S, MOST_S, without_credentials
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.sources import messages
from stpl_runtime.sources.messages import Messages
from stpl_runtime.sources.queue_message import Message

if TYPE_CHECKING:
    import zmq

OPTIONS = (*messages.OPTIONS, "type", "bind", "topic", "hwm")

_TICK_MS = 100
_HEARTBEAT_MS = 2000
"""A peer that vanished without a word is noticed after about so long."""


def _open(scheme: str, rest: str, spec: SourceSpec) -> ZmqSource:
    return ZmqSource(scheme, rest, spec)


open_zmq = partial(_open, "zmq")
open_zmq_ipc = partial(_open, "zmq+ipc")


class ZmqSource:
    """Keeps `stpl_runtime.source.Source`."""

    waits = False

    def __init__(self, scheme: str, rest: str, spec: SourceSpec) -> None:
        """Read the word; connects with `arrivals`.

        Raises:
            UsageError: no address, or an option that does not hold.
            MissingExtraError: pyzmq is not installed.
        """
        with reads_with("zmq"):
            import zmq  # noqa: F401
        options = Options(scheme, spec.options, OPTIONS)
        self.name, self.health = without_credentials(f"{scheme}:{rest}"), Health()
        if scheme == "zmq":
            address, _, topic = rest.removeprefix("//").partition("/")
            self._endpoint = f"tcp://{address}"
            fits = address.rpartition(":")[2].isdigit() and address.rpartition(":")[0]
        else:
            address, topic = rest.removeprefix("//"), ""
            self._endpoint, fits = f"ipc://{address}", address
        if not fits:
            example = "zmq://HOST:PORT/TOPIC" if scheme == "zmq" else "zmq+ipc:///PATH"
            raise UsageError(f"{self.name} has no address", expected=example, fix=example)
        self._topic = options.text("topic", topic).encode()
        self._pulls = options.choice("type", ("sub", "pull"), "sub") == "pull"
        self._binds = options.flag("bind")
        self._hwm = int(options.number("hwm", 16, least=1, most=1_000_000))
        near = address.rpartition(":")[0] if scheme == "zmq" else "localhost"
        self._messages = Messages(spec, options, near)
        self._peers = 0

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield what comes until `stop`; see the protocol.

        Raises:
            SourceLostError: the address cannot be used.
        """
        import zmq

        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            socket = self._socket(context)
            monitor = socket.get_monitor_socket()
            self._begin(socket)
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            while not stop.is_set():
                ready = dict(poller.poll(_TICK_MS))
                if monitor in ready:
                    self._note(monitor)
                if socket in ready:
                    yield from self._taken(socket.recv_multipart())
        finally:
            context.destroy(linger=0)
            self._messages.close()

    def _socket(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        import zmq

        socket = context.socket(zmq.PULL if self._pulls else zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, self._hwm)
        socket.setsockopt(zmq.RECONNECT_IVL, int(FIRST_S * 1000))
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(MOST_S * 1000))
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2 * _HEARTBEAT_MS)
        socket.setsockopt(zmq.IPV6, 1)
        # Somewhat larger ones are reported as bad; from this size on the peer is hung up on.
        socket.setsockopt(zmq.MAXMSGSIZE, 4 * self._messages.most_bytes)
        if not self._pulls:
            socket.setsockopt(zmq.SUBSCRIBE, self._topic)
        return socket

    def _begin(self, socket: zmq.Socket[bytes]) -> None:
        import zmq

        try:
            (socket.bind if self._binds else socket.connect)(self._endpoint)
        except zmq.ZMQError as error:
            raise SourceLostError(
                f"{self.name} cannot be used: {error.strerror}",
                expected="an address of ours, and free" if self._binds else "HOST:PORT",
                fix="check the address",
            ) from error
        if self._binds:
            self.health.up()

    def _note(self, monitor: zmq.Socket[bytes]) -> None:
        """Keep the health by what ZeroMQ says of its connections."""
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        event = recv_monitor_message(monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._peers += 1
            self.health.up()
        elif event == zmq.EVENT_DISCONNECTED:
            self._peers = max(0, self._peers - 1)
            if not self._peers and not self._binds:
                self.health.down("the connection ended")
        elif event == zmq.EVENT_CONNECT_RETRIED and not self._peers:
            self.health.down(f"no answer from {self.name}")

    def _taken(self, parts: list[bytes]) -> Iterator[Arrival]:
        topic = parts[0].decode(errors="replace") if len(parts) > 1 else ""
        topic = topic or self._endpoint
        try:
            if len(parts) > 3:
                raise ValueError(f"{len(parts)} parts")
            facts = json.loads(parts[1]) if len(parts) == 3 else {}
            if not isinstance(facts, dict):
                raise ValueError("its second part is no JSON object")
        except (ValueError, RecursionError) as error:
            reason = f"a message that is not understood: {error}; expected topic, JSON, content"
            yield Arrival.now(BadFrame(topic, reason))
            return
        texts = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in facts.items()
        }
        yield from self._messages.arrivals(Message(parts[-1], topic, texts))
