"""ZeroMQ against real publishers in this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

zmq = pytest.importorskip("zmq")

from stpl_core.bundle import Bundle  # noqa: E402
from stpl_core.errors import SourceLostError, UsageError  # noqa: E402
from stpl_runtime.source import BadFrame, SourceSpec, open_source  # noqa: E402
from tests.runtime.conftest import picture, slot_time  # noqa: E402
from tests.runtime.links.brokers import Reading, free_port, is_prompt, reading  # noqa: E402
from tests.runtime.links.test_mqtt import name, npy, same_frames  # noqa: E402


class Sender:
    """A publisher (or pusher) that comes and goes."""

    def __init__(self, endpoint: str, kind: int, *, binds: bool = True) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 8)
        (self._socket.bind if binds else self._socket.connect)(endpoint)

    def send(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def subscription(self) -> bytes:
        """What somebody asked an XPUB for."""
        assert self._socket.poll(20_000)
        return bytes(self._socket.recv())

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def facts(slot: int) -> bytes:
    return json.dumps({"valid_time": slot_time(slot).isoformat()}).encode()


def spec_of(bundle: Bundle, **options: str) -> SourceSpec:
    return SourceSpec(bundle.manifest.frame, bundle.manifest.codec, options=options)


def joined(sender: Sender, source: Reading) -> None:
    """Wait until a subscription is in force: a publisher drops what nobody wants yet."""
    source.wait_state("up")
    assert sender.subscription() == b"\x01radar"


def test_a_publisher_through_an_outage(bundle: Bundle) -> None:
    port = free_port()
    word = f"zmq://127.0.0.1:{port}/radar"
    with reading(open_source(word, spec_of(bundle))) as source:
        source.wait_state("down")  # nobody is there yet
        with Sender(f"tcp://127.0.0.1:{port}", zmq.XPUB) as sender:
            joined(sender, source)
            for slot in range(3):
                sender.send(b"radar/a", facts(slot), npy(slot))
            sender.send(b"camera", facts(7), npy(7))  # another topic
            sender.send(f"radar/{name(3)}".encode(), npy(3))  # its name has the time
            same_frames(source.wait_for(4), [0, 1, 2, 3])
        source.wait_state("down")
        with Sender(f"tcp://127.0.0.1:{port}", zmq.XPUB) as sender:
            back = time.time()
            joined(sender, source)
            assert source.health.now().reconnects == 2
            assert is_prompt(source.health, back)
            sender.send(b"radar/a", facts(4), npy(4))
            same_frames(source.wait_for(5), [0, 1, 2, 3, 4])


def test_push_waits_while_we_are_away(bundle: Bundle, tmp_path: Path) -> None:
    endpoint = f"{tmp_path}/socket"
    with Sender(f"ipc://{endpoint}", zmq.PUSH, binds=False) as sender:
        for slot in range(5):
            sender.send(b"radar", facts(slot), npy(slot))
        word = f"zmq+ipc://{endpoint}"
        with reading(open_source(word, spec_of(bundle, type="pull", bind="yes"))) as source:
            same_frames(source.wait_for(5), list(range(5)))


@pytest.fixture
def pushed(bundle: Bundle) -> Iterator[tuple[Sender, Reading]]:
    port = free_port()
    spec = spec_of(bundle, type="pull", max_mb="0.01")
    with (
        Sender(f"tcp://127.0.0.1:{port}", zmq.PUSH) as sender,
        reading(open_source(f"zmq://127.0.0.1:{port}", spec)) as source,
    ):
        yield sender, source


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T23:50", "2026-01-31T23:50:00.0Z", "2026-02-01 00:50:00+01:00",
     "2026-01-31t23:50:00.00000000z"],
)  # fmt: skip
def test_times_as_they_are_sent(text: str) -> None:
    from stpl_runtime.sources.messages import parse_time

    assert parse_time(text) == slot_time(0)


def test_bare_arrays_with_dtype_and_shape(pushed: tuple[Sender, Reading]) -> None:
    sender, source = pushed
    array = picture(5)
    facts = {"dtype": array.dtype.str, "shape": list(array.shape), "valid_time": "2026-02-01T00:15"}
    sender.send(b"cam", json.dumps(facts).encode(), array.tobytes())
    same_frames(source.wait_for(1), [5])


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((b"t", b"{", npy(0)), "a message that is not understood"),
        ((b"t", b"[]", npy(0)), "its second part is no JSON object"),
        ((b"t", b"{}", b"", npy(0)), "4 parts"),
        ((b"t", b'{"valid_time": "noon"}', npy(0)), "valid_time is 'noon'"),
        ((b"t", b'{"valid_time": 12}', npy(0)), "valid_time is '12'"),
        ((npy(0),), "a message that holds no time"),
        ((b"t", facts(0), bytes(20_000)), "20,000 bytes; expected at most 10,000"),
        ((b"t", b'{"dtype": "f4", "shape": [3, 3]}', bytes(16)), "16 bytes are no f4 array"),
        ((b"t", b'{"dtype": "O", "shape": [2]}', bytes(16)), "16 bytes are no O array"),
        ((b"t", b'{"dtype": "f4", "shape": "x"}', bytes(16)), "16 bytes are no f4 array"),
        ((b"t", b'{"name": "f_7.npy"}', npy(0)), "ends in an index and no cadence is known"),
        ((b"t", facts(0), npy(0)[:-8]), "cannot be read as .npy"),
        ((b"t", facts(0), b""), "the message is empty"),
        ((b"t", b'{"name": "../../x/..", "valid_time": "2026-01-01"}', b"?"), "message"),
    ],
)
def test_what_is_no_frame_is_bad_and_the_rest_comes_through(
    pushed: tuple[Sender, Reading], parts: tuple[bytes, ...], reason: str
) -> None:
    sender, source = pushed
    sender.send(*parts)
    sender.send(b"t", facts(1), npy(1))
    bad, frame = source.wait_for(2)
    assert isinstance(bad, BadFrame)
    assert reason in bad.reason
    same_frames([frame], [1])


@pytest.mark.parametrize("word", ["zmq://host", "zmq://:5555", "zmq://host:5555x", "zmq+ipc:"])
def test_words_that_are_not_right(word: str, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="has no address"):
        open_source(word, spec_of(bundle))


def test_an_address_that_is_taken(bundle: Bundle) -> None:
    port = free_port()
    taken = open_source(f"zmq://127.0.0.1:{port}", spec_of(bundle, bind="yes"))
    with (
        Sender(f"tcp://127.0.0.1:{port}", zmq.PUB),
        reading(taken) as source,
        pytest.raises(SourceLostError, match="Address already in use"),
    ):
        source.wait_for(1)


def test_what_waits_is_bounded(bundle: Bundle) -> None:
    """Nobody takes anything: a pusher is held up after so many, and memory with it."""
    port = free_port()
    source = open_source(f"zmq://127.0.0.1:{port}", spec_of(bundle, type="pull", hwm="4"))
    arrivals = source.arrivals(threading.Event())
    with Sender(f"tcp://127.0.0.1:{port}", zmq.PUSH) as sender:
        content = np.zeros(200_000, np.uint8).tobytes()
        first = threading.Thread(target=sender.send, args=(b"t", facts(0), npy(0)))
        first.start()  # waits for somebody to push to
        same_frames([next(arrivals).item], [0])
        first.join()
        sent = 0
        try:
            while sent < 2000:
                sender._socket.send_multipart((b"t", b"{}", content), flags=zmq.NOBLOCK)
                sent += 1
                time.sleep(0.001)
        except zmq.Again:
            pass
        assert sent < 200
    arrivals.close()  # type: ignore[attr-defined]  # a generator
