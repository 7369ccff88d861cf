"""The page after a restart, of an archive and of old data, with real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from stpl_core.bundle import Bundle
from tests.runtime.conftest import picture
from tests.runtime.page.serving import Events, fetch


@contextmanager
def serving(*words: object) -> Iterator[int]:
    """`stpl-deploy serve` -> the port of its page; killed at the end, as by a power cut."""
    command = [sys.executable, "-m", "stpl_deploy", "serve", *map(str, words), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("page: http://"), line + process.stderr.read()
            yield int(line.rsplit(":", 1)[1].strip().rstrip("/"))
        finally:
            process.send_signal(signal.SIGKILL)


def pulse_of(port: int, holds: Any) -> Any:
    """The first pulse for which `holds`, of the only stream."""
    with Events.listen(port) as sent:
        return sent.until("pulse", lambda pulse: holds(pulse["streams"][""]))["streams"][""]


def write(folder: Path, first: datetime, count: int) -> None:
    for n in range(count):
        at = first + timedelta(minutes=5 * n)
        np.save(folder / f"{at:%Y%m%d%H%M}.npy", picture(n))


def test_a_restart_shows_what_there_was(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    now = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    write(folder, now - timedelta(minutes=35), 8)
    words = (bundle.path, folder, "--cadence", 300, "--state-file", tmp_path / "radar.state")
    words = (*words, "--policy", "queue")
    newest = tmp_path / "radar.state.newest"
    with serving(*words) as port:
        pulse_of(port, lambda one: one["nowcasts"]["made"] == 5)
        with Events.listen(port) as sent:
            sent.until("stream", lambda facts: facts["skill"] and sum(_frames(facts)) == 9)
        before = fetch(port, "/nowcast/latest")[2]
        assert newest.is_file()
    with serving(*words) as port:
        status, _, after = fetch(port, "/nowcast/latest")
        assert status == 200
        assert json.loads(after)["quantity"] == json.loads(before)["quantity"]
        with Events.listen(port) as sent:
            facts = sent.until("stream")
        assert facts["nowcast"]["is_restored"]
        assert facts["nowcast"]["past"]
        assert fetch(port, "/" + facts["nowcast"]["past"][0]["url"])[0] == 200
        status, _, body = fetch(port, "/healthz")
        one = json.loads(body)["streams"][""]
        assert (status, one["status"]) == (200, "degraded")
        assert "before the restart" in one["reasons"][0]
        assert one["frame"]["arrived_s_ago"] > 0
        write(folder, now + timedelta(minutes=5), 1)
        pulse_of(port, lambda one: one["status"] == "ok")


def _frames(facts: Any) -> list[int]:
    found: list[int] = facts["skill"]["total"]["frames"]
    return found


def test_old_data_is_stale_and_an_archive_is_a_replay(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder, datetime(2010, 8, 26, 12, tzinfo=timezone.utc), 6)
    words = (bundle.path, folder, "--cadence", 300)
    with serving(*words) as port:
        one = pulse_of(port, lambda one: one["frame"] and one["counts"]["used"] == 6)
        assert one["status"] == "stale"
        assert "years ago, 2010-08-26T12:25:00Z" in one["reasons"][0]
        assert fetch(port, "/healthz")[0] == 503
        assert not one["is_replay"]
    with serving(*words, "--max-age", "none") as port:
        pulse_of(port, lambda one: one["frame"] and one["status"] == "ok")
    replay = (bundle.path, f"replay:{folder}", "--source-option", "speed=100", "--cadence", 300)
    with serving(*replay) as port:
        one = pulse_of(port, lambda one: one["frame"])
        assert (one["status"], one["is_replay"]) == ("ok", True)
