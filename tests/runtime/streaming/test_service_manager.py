"""What systemd reads from a real datagram socket, from start to end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stpl_core.bundle import Bundle
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.streaming.service_manager import ServiceManager
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from tests.runtime.conftest import CADENCE_S, ListSource, make_frame

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The manager's socket, and what NOTIFY_SOCKET holds."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@stpl-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        listening.settimeout(10)
        yield listening, name


def received(listening: socket.socket) -> dict[str, str]:
    text = listening.recv(65536).decode()
    return dict(line.split("=", 1) for line in text.split("\n"))


def everything(listening: socket.socket) -> list[dict[str, str]]:
    listening.settimeout(0)
    found = []
    try:
        while True:
            found.append(received(listening))
    except BlockingIOError:
        return found


def test_a_stream_reports_its_life(
    manager: tuple[socket.socket, str], bundle: Bundle, session: Session
) -> None:
    listening, name = manager
    ledger = Ledger()
    nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, ledger=ledger)
    over = threading.Event()
    frames = [make_frame(n) for n in range(10)]
    source = ListSource(frames, pause=lambda n: over.wait() if n == 9 else None)
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "40000"}
    running = Streams([Stream(nowcaster, source, ledger=ledger)], ServiceManager(environment))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    assert received(listening) == {"READY": "1", "STATUS": "waiting for frames"}
    while True:  # until the counts of all frames are there; `settimeout` ends it otherwise
        found = received(listening)
        assert found["WATCHDOG"] == "1"
        if "received 9 = 9 used" in found["STATUS"]:
            break
    running.stop()
    over.set()
    thread.join(20)
    last = everything(listening)[-1]
    assert last == {"STOPPING": "1", "STATUS": "ending"}


def test_a_page_that_stays_up_still_gives_signs_of_life(manager: tuple[socket.socket, str]) -> None:
    listening, name = manager
    running = Streams((), ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "40000"}))
    running.ended = "the source ended"
    thread = threading.Thread(target=running.wait_for_stop, daemon=True)
    thread.start()
    assert received(listening) == {"WATCHDOG": "1", "STATUS": "the source ended"}
    running.stop()
    thread.join(20)
    assert everything(listening)[-1]["STOPPING"] == "1"


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}])
def test_no_watchdog_that_is_not_ours_is_fed(
    manager: tuple[socket.socket, str], watchdog: dict[str, str]
) -> None:
    listening, name = manager
    ServiceManager({"NOTIFY_SOCKET": name, **watchdog}).alive(lambda: "two\nlines")
    assert received(listening) == {"STATUS": "two lines"}


def test_without_a_manager_nothing_is_asked_for() -> None:
    def never() -> str:
        raise AssertionError("no status is wanted")

    alone = ServiceManager({})
    alone.ready()
    alone.alive(never)
    alone.stopping()


def test_a_manager_that_is_gone_ends_no_stream(tmp_path: Path) -> None:
    gone = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    gone.ready()
    gone.alive(lambda: "on")


def test_the_unit_asks_for_what_is_sent() -> None:
    unit = Path(__file__).parents[3] / "runtime" / "deploy" / "stpl-stream@.service"
    lines = unit.read_text().splitlines()
    assert "Type=notify" in lines
    assert any(line.startswith("WatchdogSec=") for line in lines)
