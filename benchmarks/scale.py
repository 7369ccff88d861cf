"""What scaling out costs and how fast it recovers; writes benchmarks/results/scale.json.

`benchmarks/scale_table.py --write` puts it into docs/scale.md.

    python benchmarks/scale.py [--small]

Recovery: three `stream --group` processes share 12 streams on a real broker of Kafka's protocol
(Tansu), with the settings that a user gets. One is killed (-9), one joins, one ends. Given are the
seconds from that moment until every stream has the nowcast of a frame that was sent right then. For
a broker that is away for 5 s, librdkafka's mock cluster, which keeps its records over that, and the
seconds from its return. Every nowcast is compared, bit for bit, with that of one undisturbed
process.

Overhead: milliseconds from a frame to its nowcast, in this process, through a group of Kafka, and
by a Triton server where there is one (`make venv-triton`), on the same bundle. Beside it, a record
of the same broker that nothing is made of: Tansu answers a consumer that waits late.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.files import atomic_file
from stpl_core.machine import cpu_name, usable_cpus
from stpl_core.options import EngineOptions, FrameOptions, StreamOptions
from stpl_deploy.cli.reports.output import document_text, print_table
from stpl_runtime.engine import Session, open_session
from stpl_runtime.groups.opening import open_group
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.streaming.status import Status
from tests.runtime.conftest import make_frame
from tests.runtime.groups.topic import (
    BUNDLE,
    Start,
    Topic,
    Worker,
    count,
    expected,
    mock_topic,
    real_topic,
    same,
    workers,
    written,
)
from tests.runtime.links.brokers import tansu, wait_until
from tests.runtime.sources.test_kafka import Cluster

RESULT = Path(__file__).parent / "results" / "scale.json"
STREAMS, PARTITIONS, AWAY_S = 12, 6, 5.0
USUAL = ("start=earliest",)


class Course:
    """Slots that are sent one after the other, and the nowcasts that are there by then."""

    def __init__(self, topic: Topic, out: Path, context: int) -> None:
        """Send what fills the windows."""
        self._topic, self._out, self._context = topic, out, context
        self.slots = context
        topic.send(*range(context))

    def seconds(self, event: Callable[[], object]) -> float:
        """From the end of `event` until every stream has the nowcast of a frame sent then."""
        event()
        began = time.monotonic()
        self._topic.send(self.slots)
        self.slots += 1
        self.wait()
        return round(time.monotonic() - began, 2)

    def wait(self) -> None:
        """Until every nowcast is there."""
        made = (self.slots - self._context + 1) * STREAMS
        wait_until(lambda: count(self._out) == made, 120.0)


def recovery(folder: Path, bundle: Bundle, session: Session) -> dict[str, float]:
    """Event -> seconds."""
    broker = tansu(folder)
    broker.start()
    try:
        topic = real_topic(f"127.0.0.1:{broker.port}", PARTITIONS, STREAMS)
        with three(topic, folder / "out", bundle, session) as (course, running, start):

            def join() -> None:
                running.append(start())
                running[-1].wait_for("got partition")

            return {
                "nothing": course.seconds(lambda: None),
                "one is killed -9": course.seconds(running[0].process.kill),
                "one joins": course.seconds(join),
                "one ends": course.seconds(running[1].process.terminate),
            }
    finally:
        broker.close()


def outage(folder: Path, bundle: Bundle, session: Session) -> dict[str, float]:
    """The same of a broker that is away."""
    cluster = Cluster()
    topic = mock_topic(cluster, PARTITIONS, STREAMS)

    def away() -> None:
        cluster.set_down()
        time.sleep(AWAY_S)
        cluster.set_up()

    with three(topic, folder / "away", bundle, session) as (course, _, _):
        found = {f"the broker was away for {AWAY_S:g} s": course.seconds(away)}
    cluster.close()
    return found


@contextmanager
def three(
    topic: Topic, out: Path, bundle: Bundle, session: Session
) -> Iterator[tuple[Course, list[Worker], Start]]:
    """Processes that share the streams, with full windows; in the end every nowcast is compared."""
    course = Course(topic, out, bundle.manifest.context)
    with workers(topic, out, USUAL) as start:
        running = [start() for _ in range(3)]
        for worker in running:
            worker.wait_for("got partition")
        course.wait()
        yield course, running, start
    same(written(out), expected(bundle, session, range(course.slots), topic.streams))


class _Times(Status):
    """Notes when nowcasts are made."""

    def __init__(self) -> None:
        super().__init__()
        self.made = threading.Semaphore(0)

    def line(self, line: str, event: str = "note", level: Any = "info", **facts: Any) -> None:
        """Nothing is printed."""

    def nowcast(self, nowcast: Nowcast, counts: Any, skipped: int) -> None:
        """One is there."""
        self.made.release()


def in_process(bundle: Bundle, session: Session, rounds: int) -> float:
    """Median milliseconds from a frame to its nowcast, the work ahead done before."""
    nowcaster = Nowcaster(bundle, session, cadence_s=300.0)
    nowcaster.warm_up()
    times = []
    for slot in range(rounds + bundle.manifest.context):
        while nowcaster.idle_step():
            pass
        frame = make_frame(slot, bundle.manifest.frame)
        began = time.perf_counter()
        nowcaster.put(frame)
        if nowcaster.issue() is not None:
            times.append(1000.0 * (time.perf_counter() - began))
    return float(np.median(times))


def in_a_group(folder: Path, bundle: Bundle, rounds: int) -> float:
    """The same, from the moment when the frame is sent to the topic."""
    broker, status = tansu(folder), _Times()
    broker.start()
    with closing(broker):
        topic = real_topic(f"127.0.0.1:{broker.port}", 1, 1)
        asked = StreamOptions(
            sources=(topic.word,),
            group="nowcasts",
            backend=EngineOptions(engine="onnx", threads=1),
            reading=FrameOptions(cadence=300.0),
            source_options=USUAL,
        )
        with open_group(bundle, asked, status) as opened:
            thread = threading.Thread(target=opened.worker.run, daemon=True)
            thread.start()
            times = list(_rounds(topic, status, bundle.manifest.context, rounds))
            opened.worker.stop()
            thread.join()
    return float(np.median(times))


def of_the_broker(folder: Path, rounds: int) -> float:
    """Median milliseconds of a record through the broker alone."""
    from confluent_kafka import Consumer

    broker = tansu(folder)
    broker.start()
    with closing(broker):
        hosts = f"127.0.0.1:{broker.port}"
        topic, times = real_topic(hosts, 1, 1), []
        settings = {"bootstrap.servers": hosts, "group.id": "x", "auto.offset.reset": "earliest"}
        consumer = Consumer(settings)
        consumer.subscribe(["radar"])
        for slot in range(rounds + 1):
            time.sleep(0.05)
            began = time.perf_counter()
            topic.send(slot)
            while consumer.poll(0.1) is None:
                pass
            times.append(1000.0 * (time.perf_counter() - began))
        consumer.close()
    return float(np.median(times[1:]))  # the first waits for the group


def _rounds(topic: Topic, status: _Times, context: int, rounds: int) -> Iterator[float]:
    """Milliseconds from a frame that is sent to its nowcast."""
    topic.send(*range(context))
    assert status.made.acquire(timeout=60.0)
    for slot in range(context, context + rounds):
        time.sleep(0.05)  # the work ahead is done, as between two frames of a radar
        began = time.perf_counter()
        topic.send(slot)
        assert status.made.acquire(timeout=60.0)
        yield 1000.0 * (time.perf_counter() - began)


def by_triton(folder: Path, bundle: Bundle, rounds: int) -> float | None:
    """The same, by a server on this machine; None where there is none."""
    import pytest

    from stpl_export.triton.config import Serving
    from stpl_export.triton.repository import write_repository
    from tests.export.triton.server import TritonServer

    models = folder / "models"
    write_repository(bundle, models, Serving(bundle.path.stem, backend="python"))
    try:
        server = TritonServer(models, folder / "triton")
    except pytest.skip.Exception:
        return None
    try:
        server.start()
        word = f"triton:{server.address}"
        session = open_session(bundle, ("step", "forecast"), engine=word)
        found = in_process(bundle, session, rounds)
        session.close()
    finally:
        server.stop()
    return found


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="5 rounds, nothing is saved")
    asked = parser.parse_args()
    rounds = 5 if asked.small else 200
    bundle = open_bundle(BUNDLE)
    session = open_session(bundle, ("step", "forecast"), engine="onnx", threads=1)
    with tempfile.TemporaryDirectory() as scratch:
        found = recovery(Path(scratch), bundle, session)
        found |= outage(Path(scratch), bundle, session)
        ways = {
            "in process": in_process(bundle, session, rounds),
            "a record of the broker alone": of_the_broker(Path(scratch), rounds),
            "Kafka group": in_a_group(Path(scratch), bundle, rounds),
            "Triton": by_triton(Path(scratch), bundle, rounds),
        }
    rows = [[name, f"{seconds:g}"] for name, seconds in found.items()]
    print_table(f"{STREAMS} streams, 3 processes", ["event", "seconds"], rows)
    rows = [[name, "no server" if ms is None else f"{ms:.2f}"] for name, ms in ways.items()]
    print_table(f"frame to nowcast, {bundle.path.name}", ["way", "ms"], rows)
    if not asked.small:
        document = {
            "bundle": bundle.path.name,
            "cpu": cpu_name(),
            "cpus": usable_cpus(),
            "streams": STREAMS,
            "processes": 3,
            "recovery_s": found,
            "frame_to_nowcast_ms": ways,
            "rounds": rounds,
        }
        with atomic_file(RESULT) as file:
            file.write(document_text(document).encode())


if __name__ == "__main__":
    main()
