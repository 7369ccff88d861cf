"""MQTT against real brokers: amqtt (3.1.1), and mosquitto where it is installed (5)."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("paho.mqtt.client")
from paho.mqtt.client import Client

from stpl_core.bundle import Bundle
from stpl_core.errors import SinkError, SourceLostError, UsageError
from stpl_core.frames import Frame
from stpl_runtime.links import mqtt
from stpl_runtime.options import Options
from stpl_runtime.sink import open_sink
from stpl_runtime.sinks.file_format import FileFormat
from stpl_runtime.sinks.mqtt import MqttSink
from stpl_runtime.source import BadFrame, SourceSpec, open_source
from tests.runtime.conftest import picture, slot_time
from tests.runtime.links.brokers import (
    Process,
    amqtt,
    free_port,
    is_prompt,
    make_certificate,
    mosquitto,
    reading,
    wait_until,
)
from tests.runtime.sinks.test_sinks import make_nowcast

STOP = threading.Event()
Make = Callable[[Process], Process]


@pytest.fixture
def made() -> Iterator[Make]:
    """Starts brokers, and ends them."""
    with starting() as start:
        yield start


@pytest.fixture(scope="module", params=["amqtt", "mosquitto"])
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """Serves all tests of this module: each has its own topic."""
    with starting() as start:
        folder = tmp_path_factory.mktemp(request.param)
        yield start((amqtt if request.param == "amqtt" else mosquitto)(folder))


@pytest.fixture(params=["amqtt", "mosquitto"])
def mortal(request: pytest.FixtureRequest, tmp_path: Path, made: Make) -> Process:
    """A broker that a test may kill."""
    return made((amqtt if request.param == "amqtt" else mosquitto)(tmp_path))


@contextmanager
def starting() -> Iterator[Make]:
    brokers: list[Process] = []

    def start(broker: Process) -> Process:
        brokers.append(broker)
        broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.close()


def npy(slot: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, picture(slot))
    return buffer.getvalue()


def name(slot: int) -> str:
    return f"f_{slot_time(slot):%Y%m%d%H%M}.npy"


def connected(port: int, version: str = "3.1.1") -> tuple[Client, mqtt.Broker]:
    options = Options("mqtt", {"version": version}, mqtt.OPTIONS)
    there = mqtt.Broker("mqtt", f"//127.0.0.1:{port}/x", options)
    return there.connect(mqtt.Session(), STOP), there


def publish(port: int, *messages: tuple[str, bytes], retain: bool = False, **facts: str) -> None:
    """Send messages, QoS 1; `facts` as the user properties of version 5."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    client, there = connected(port, "5" if facts else "3.1.1")
    properties = None
    if there.speaks_5:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = list(facts.items())
    for topic, content in messages:
        sent = client.publish(topic, content, 1, retain, properties)
        mqtt.spin(client, sent.is_published, 10.0, STOP, "not published")
    mqtt.close(client)


def spec_of(bundle: Bundle, **options: str) -> SourceSpec:
    return SourceSpec(bundle.manifest.frame, bundle.manifest.codec, options=options)


def same_frames(items: list[Any], slots: list[int]) -> None:
    assert [item.valid_time for item in items] == [slot_time(slot) for slot in slots]
    for item, slot in zip(items, slots, strict=True):
        np.testing.assert_array_equal(item.data, picture(slot))


def test_frames_of_a_topic_through_an_outage(mortal: Process, bundle: Bundle) -> None:
    """The broker is killed; the source is down, and up again within 2 s of its return."""
    word = f"mqtt://127.0.0.1:{mortal.port}/radar/+/frames/#"
    with reading(open_source(word, spec_of(bundle))) as source:
        source.wait_state("up")
        publish(mortal.port, *((f"radar/a/frames/{name(n)}", npy(n)) for n in range(3)))
        publish(mortal.port, ("radar/a/other", npy(9)))
        same_frames(source.wait_for(3), [0, 1, 2])
        mortal.stop()
        source.wait_state("down")
        reason = source.health.now().reason
        assert reason
        time.sleep(0.5)  # an outage lasts: some tries fail
        mortal.start()
        back = time.time()
        source.wait_state("up")
        assert source.health.now().reconnects >= 1
        assert is_prompt(source.health, back)
        publish(mortal.port, (f"radar/b/frames/{name(3)}", npy(3)))
        same_frames(source.wait_for(4), [0, 1, 2, 3])


def test_a_broker_that_is_not_there_yet(tmp_path: Path, bundle: Bundle, made: Make) -> None:
    late = amqtt(tmp_path)
    word = f"mqtt://someone:secret@127.0.0.1:{late.port}/radar/#"
    with reading(open_source(word, spec_of(bundle, version=late.version))) as source:
        source.wait_state("down")
        assert "secret" not in source.health.now().reason + source.source.name
        made(late)
        source.wait_state("up")
        publish(late.port, (f"radar/{name(0)}", npy(0)))
        same_frames(source.wait_for(1), [0])


def test_retained_messages_are_old_frames(broker: Process, bundle: Bundle) -> None:
    publish(broker.port, (f"kept/{name(0)}", npy(0)), retain=True)
    word = f"mqtt://127.0.0.1:{broker.port}/kept/#"
    with (
        reading(open_source(word, spec_of(bundle, version=broker.version))) as plain,
        reading(
            open_source(word, spec_of(bundle, version=broker.version, retained="yes"))
        ) as asked,
    ):
        same_frames(asked.wait_for(1), [0])
        plain.wait_state("up")
        publish(broker.port, (f"kept/{name(1)}", npy(1)))
        *first, last = asked.wait_for(2)
        if last.valid_time == slot_time(0):  # QoS 1 may bring it twice
            *first, last = asked.wait_for(3)
        same_frames([first[0], last], [0, 1])
        same_frames(plain.wait_for(1), [1])


def test_a_client_id_keeps_what_comes_while_we_are_away(
    tmp_path: Path, bundle: Bundle, made: Make
) -> None:
    broker = made(mosquitto(tmp_path))
    word = f"mqtt://127.0.0.1:{broker.port}/radar/#"
    spec = spec_of(bundle, client_id="nowcaster")
    with reading(open_source(word, spec)) as source:
        source.wait_state("up")
    publish(broker.port, *((f"radar/{name(n)}", npy(n)) for n in range(4)))
    with reading(open_source(word, spec)) as source:
        same_frames(source.wait_for(4), [0, 1, 2, 3])


def test_what_was_not_taken_is_sent_again(tmp_path: Path, bundle: Bundle, made: Make) -> None:
    """The stream dies while it holds a frame that nobody took: the broker still has it."""
    broker = made(mosquitto(tmp_path))
    word = f"mqtt://127.0.0.1:{broker.port}/radar/#"
    spec = spec_of(bundle, client_id="nowcaster")
    stop = threading.Event()
    first = open_source(word, spec)
    arrivals = first.arrivals(stop)
    sender = threading.Thread(
        target=lambda: (
            wait_until(lambda: first.health.now().state == "up"),
            publish(broker.port, *((f"radar/{name(n)}", npy(n)) for n in range(2))),
        )
    )
    sender.start()
    same_frames([next(arrivals).item], [0])
    sender.join()
    arrivals.close()  # type: ignore[attr-defined]  # a generator
    with reading(open_source(word, spec)) as source:
        same_frames(source.wait_for(2), [0, 1])


def test_the_time_comes_along_in_version_5(tmp_path: Path, bundle: Bundle, made: Make) -> None:
    broker = made(mosquitto(tmp_path))
    word = f"mqtt://127.0.0.1:{broker.port}/radar/site42"
    with reading(open_source(word, spec_of(bundle))) as source:
        source.wait_state("up")
        publish(broker.port, ("radar/site42", npy(5)), valid_time=slot_time(5).isoformat())
        publish(broker.port, ("radar/site42", npy(6)), name=name(6))
        publish(broker.port, ("radar/site42", npy(7)))
        *frames, bad = source.wait_for(3)
        same_frames(frames, [5, 6])
        assert bad == BadFrame(
            "radar/site42",
            "a message that holds no time; expected a name with 12 or 14 digits, or valid_time; "
            "try: send it along, or --source-option time=arrival",
        )


def test_arrival_is_a_time_only_where_asked_for(broker: Process, bundle: Bundle) -> None:
    word = f"mqtt://127.0.0.1:{broker.port}/cam"
    with reading(
        open_source(word, spec_of(bundle, version=broker.version, time="arrival"))
    ) as source:
        source.wait_state("up")
        publish(broker.port, ("cam", npy(5)), ("cam", b"no frame"))
        frame, bad = source.wait_for(2)
        assert frame.valid_time == source.got[0].arrived_at
        assert isinstance(bad, BadFrame)


def test_larger_messages_are_bad_or_never_sent(broker: Process, bundle: Bundle) -> None:
    word = f"mqtt://127.0.0.1:{broker.port}/large/#"
    with reading(
        open_source(word, spec_of(bundle, version=broker.version, max_mb="0.02"))
    ) as source:
        source.wait_state("up")
        publish(broker.port, (f"large/{name(0)}", bytes(30_000)), (f"large/{name(1)}", npy(1)))
        wait_until(lambda: any(isinstance(arrival.item, Frame) for arrival in source.got))
        *bad, frame = [arrival.item for arrival in source.got]
        same_frames([frame], [1])
        if bad:  # in version 5 the broker is asked not to send it
            assert len(bad) == 1
            assert "30,000 bytes; expected at most 20,000" in bad[0].reason


def test_a_wrong_password_ends_it_at_the_start(
    tmp_path: Path, bundle: Bundle, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passwords"
    lines = ("listener PORT 127.0.0.1", "allow_anonymous false", f"password_file {file}")
    broker = mosquitto(tmp_path, *lines)
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("no mosquitto_passwd here")
    subprocess.run([tool, "-b", "-c", file, "radar", "s3cret"], check=True)
    file.chmod(0o644)
    made(broker)
    there = f"127.0.0.1:{broker.port}/radar/#"
    for word in (f"mqtt://radar:wr0ng@{there}", f"mqtt://{there}"):
        with reading(open_source(word, spec_of(bundle))) as source:
            with pytest.raises(SourceLostError, match=r"[Nn]ot authorized") as caught:
                source.wait_for(1)
            assert "wr0ng" not in str(caught.value)
    monkeypatch.setenv("RADAR_PASSWORD", "s3cret")
    spec = spec_of(bundle, password_env="RADAR_PASSWORD")
    with reading(open_source(f"mqtt://radar@{there}", spec)) as source:
        source.wait_state("up")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself -> it, its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.parametrize("scheme", ["mqtts", "mqtt+ws", "mqtt+wss"])
def test_tls_and_websockets(
    scheme: str, tmp_path: Path, bundle: Bundle, made: Make, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    lines = ["listener PORT 127.0.0.1", "allow_anonymous true"]
    if "ws" in scheme:
        lines.append("protocol websockets")
    tls = scheme in ("mqtts", "mqtt+wss")
    if tls:
        lines += [f"certfile {cert}", f"keyfile {key}"]
    plain = free_port()
    lines += [f"listener {plain} 127.0.0.1", "protocol mqtt"]
    broker = made(mosquitto(tmp_path, *lines))
    spec = spec_of(bundle, **({"ca": str(cert)} if tls else {}), path="/mqtt")
    with reading(open_source(f"{scheme}://localhost:{broker.port}/radar/#", spec)) as source:
        source.wait_state("up")
        publish(plain, (f"radar/{name(0)}", npy(0)))
        same_frames(source.wait_for(1), [0])
    if tls:  # who does not know the certificate does not talk to it
        unknown = open_source(f"{scheme}://localhost:{broker.port}/radar/#", spec_of(bundle))
        with reading(unknown) as source:
            source.wait_state("down")
            assert "certificate" in source.health.now().reason


class Files(BaseHTTPRequestHandler):
    """Serves what notifications speak of."""

    def do_GET(self) -> None:
        slot = int(self.path.split("?")[0].rsplit("_", 1)[1].split(".")[0])
        content = npy(slot) if slot < 5 else b""
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_notifications_are_followed(broker: Process, bundle: Bundle) -> None:
    pytest.importorskip("httpx")
    import base64

    with HTTPServer(("127.0.0.1", 0), Files) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        web = f"http://127.0.0.1:{server.server_port}"

        def wis2(slot: int, **more: Any) -> bytes:
            links = [
                {"rel": "license", "href": "https://nowhere.invalid/licence"},
                {"rel": "canonical", "href": f"{web}/f_{slot}.npy?token=s3cret"},
            ]
            properties = {"datetime": slot_time(slot).isoformat(), **more}
            return json.dumps({"links": links, "properties": properties}).encode()

        inline = {"encoding": "base64", "value": base64.b64encode(npy(2)).decode()}
        plain = {"url": f"{web}/f_1.npy", "valid_time": slot_time(1).isoformat()}
        sent = [wis2(0), json.dumps(plain).encode(), wis2(2, content=inline), wis2(9), b"[]"]
        word = f"mqtt://127.0.0.1:{broker.port}/ORD/#"
        with reading(
            open_source(word, spec_of(bundle, version=broker.version, fetch="yes"))
        ) as source:
            source.wait_state("up")
            publish(broker.port, *(("ORD/opera", content) for content in sent))
            items = source.wait_for(5)
        server.shutdown()
        serving.join()
    same_frames(items[:3], [0, 1, 2])
    assert "404" in items[3].reason
    assert "s3cret" not in items[3].reason
    assert "no notification" in items[4].reason


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("mqtt://host", "names no topic; expected mqtt://HOST/TOPIC"),
        ("mqtt://me:secret@/topic", "names no host"),
        ("mqtt:host/topic", "try: mqtt://host/topic"),
        ("mqtt://host:x/topic", "has the port x"),
        ("mqtt+wws://me:secret@host/topic", r"unknown source .* try: mqtt\+wss?://\*\*\*@host"),
    ],
)
def test_words_that_are_not_right(word: str, reason: str, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        open_source(word, spec_of(bundle))
    assert "secret" not in str(caught.value)


def test_options_that_are_not_right(bundle: Bundle) -> None:
    for option, reason in (("qoss", "no option qoss"), ("qos", "expected one of 0, 1, 2")):
        with pytest.raises(UsageError, match=reason):
            open_source("mqtt://host/topic", spec_of(bundle, **{option: "7"}))


def test_the_sink_publishes_and_outlives_its_broker(
    mortal: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(
        f"mqtt,timeout=8,version={mortal.version}:mqtt://me:secret@127.0.0.1:{mortal.port}/out"
    )
    assert sink.name == f"mqtt:mqtt://127.0.0.1:{mortal.port}/out"
    client, _ = connected(mortal.port, mortal.version)
    got: list[Any] = []
    client.on_message = lambda _client, _userdata, message: got.append(message)
    client.subscribe("out/#", 1)
    mqtt.serve(client)
    sink.write(make_nowcast())
    mqtt.spin(client, lambda: len(got) == 2, 10.0, STOP, "nothing came")
    frames, line = got
    assert (frames.topic, line.topic) == ("out/nowcast.npz", "out/nowcast.json")
    with np.load(io.BytesIO(frames.payload)) as archive:
        np.testing.assert_array_equal(archive["frames"], make_nowcast().frames)
    assert json.loads(line.payload)["issue_time"] == "2026-01-31T23:50:00Z"
    if hasattr(line.properties, "UserProperty"):  # version 5
        facts = dict(line.properties.UserProperty)
        assert facts["valid_time"] == "2026-01-31T23:50:00Z"
    mqtt.close(client)
    mortal.stop()
    mortal.start()  # the sink does not know yet
    sink.write(make_nowcast(minutes=5))
    assert isinstance(sink, MqttSink)
    assert sink._client is not None
    sink._client.socket().shutdown(socket.SHUT_WR)  # writing finds out, as after a reset
    sink.write(make_nowcast(minutes=10))
    with monkeypatch.context() as patch:  # more than the protocol has room for
        patch.setattr(FileFormat, "bytes_of", lambda *_: bytes(2**28))
        with pytest.raises(SinkError, match="Payload too large"):
            sink.write(make_nowcast())
    sink.write(make_nowcast(minutes=15))
    mortal.stop()
    impatient = open_sink(
        f"mqtt,timeout=0.3,version={mortal.version}:mqtt://127.0.0.1:{mortal.port}/out"
    )
    with pytest.raises(SinkError, match=r"within 0\.3 s"):
        impatient.write(make_nowcast())
    sink.close()
    impatient.close()


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("mqtt:mqtt://host/a/#", "has a wildcard"),
        ("mqtt:host/a", "is given host/a"),
        ("mqtt,format=jpg:mqtt://host/a", "expected one of npz, nc, png, tif, none"),
        ("mqtt,retain:mqtt://host/a", "is no option"),
    ],
)
def test_sinks_that_are_not_right(word: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        open_sink(word)
