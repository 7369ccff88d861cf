"""The log as lines to read and as JSON: the same events, one object a line, by level."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from stpl_core.bundle import Bundle
from stpl_core.log import LogOptions, log, set_log
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.source import BadFrame
from stpl_runtime.streaming.stream import Stream
from tests.runtime.conftest import CADENCE_S, ListSource, make_frame, run_alone


@pytest.fixture(autouse=True)
def plain_again() -> Iterator[None]:
    yield
    set_log(LogOptions())


def run_with(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str], options: LogOptions
) -> list[str]:
    set_log(options)
    items = [*(make_frame(n) for n in range(7)), BadFrame("x.h5", "no \x1b[31m frame\n of it")]
    ledger = Ledger()
    nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, ledger=ledger)
    run_alone(Stream(nowcaster, ListSource(items), ledger=ledger))
    return capsys.readouterr().err.splitlines()


def test_json_is_an_object_a_line(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in run_with(bundle, session, capsys, LogOptions("json"))]
    for line in lines:
        assert list(line)[:4] == ["time", "level", "event", "message"]
        assert datetime.fromisoformat(line["time"].replace("Z", "+00:00")).tzinfo is not None
    by_event: dict[str, Any] = {line["event"]: line for line in lines}
    assert by_event["bad frame"]["level"] == "warning"
    assert by_event["bad frame"]["frame"] == "x.h5"
    nowcast = by_event["nowcast"]
    assert nowcast["level"] == "info"
    assert nowcast["counts"]["received"] >= nowcast["counts"]["used"] > 0
    assert nowcast["latency_ms"] > 0


def test_debug_has_a_line_for_each_frame(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    options = LogOptions("json", "debug")
    lines = [json.loads(line) for line in run_with(bundle, session, capsys, options)]
    frames = [line for line in lines if line["event"] == "frame"]
    assert [line["verdict"] for line in frames] == ["used"] * 7
    assert frames[0]["valid_time"] == "20260131T235000Z"


def test_frames_of_another_size_are_mentioned_once(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = {"resized": "area mean of 640 x 480 pixels"}
    items = [replace(make_frame(n), notes=notes) for n in range(3)]
    ledger = Ledger()
    nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, ledger=ledger)
    run_alone(Stream(nowcaster, ListSource(items), ledger=ledger))
    logged = capsys.readouterr().err
    size = "x".join(map(str, items[0].data.shape))
    assert logged.count(f"frames are the area mean of 640 x 480 pixels, as {size};") == 1


@pytest.mark.parametrize("kind", ["plain", "json"])
def test_a_level_leaves_out_what_is_below_it(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str], kind: Any
) -> None:
    lines = run_with(bundle, session, capsys, LogOptions(kind, "warning"))
    assert len(lines) == 1
    assert "x.h5" in lines[0]
    assert run_with(bundle, session, capsys, LogOptions(kind, "error")) == []


def test_plain_is_the_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log("a line", "note", "warning", frame="x")
    assert capsys.readouterr().err == "a line\n"


def test_a_number_that_json_lacks_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    set_log(LogOptions("json"))
    log("a line", latency_ms=float("nan"), empty="", none=None)
    line = json.loads(capsys.readouterr().err)
    assert line["latency_ms"] is None
    assert "empty" not in line
    assert "none" not in line
