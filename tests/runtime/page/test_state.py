"""What the page and `/healthz` say of a stream: its source, alarms, gaps, several at once."""

from __future__ import annotations

import gc
import json
import re
import sys
import threading
import time
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from stpl_core.bundle import Bundle
from stpl_core.drawing.colours import colour_map
from stpl_runtime.engine import Session
from stpl_runtime.page.stream_view import Look, StreamView
from tests.runtime.conftest import make_frame, picture, slot_time
from tests.runtime.page.serving import Served, pixels, serve
from tests.runtime.watching.test_skill import made_at

T = 4


def test_healthz_follows_the_source(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session) as page:
        page.give(0, 4)
        page.settle(2)
        assert page.get("/healthz")[0] == 200
        page.taps[0].health.down("unplugged")
        status, _, body = page.get("/healthz")
        stream = json.loads(body)["streams"][""]
        assert (status, stream["status"], stream["reasons"]) == (
            503,
            "down",
            ["source down: unplugged"],
        )
        page.taps[0].health.up()
        assert json.loads(page.get("/healthz")[2])["status"] == "ok"
        assert b'stpl_source_reconnects_total{stream=""} 1.0' in page.get("/metrics")[2]
        page.watch.ended("the source ended")
        status, _, body = page.get("/healthz")
        assert (status, json.loads(body)["status"]) == (503, "stale")
        assert page.get("/")[0] == 200  # the page goes on


def test_every_time_ends_in_z(bundle: Bundle, session: Session) -> None:
    """Of `/healthz`, of the events, and of the nowcast as JSON."""
    with serve(bundle, session) as page:
        page.give(0, 5)
        page.settle(3)
        page.hub.problem("one to show")
        with page.events() as sent:
            events = [sent.until("hello"), sent.until("stream", lambda f: f["problems"])]
            events.append(sent.until("pulse"))
        texts = [json.dumps(event) for event in events]
        texts += [page.get(path)[2].decode() for path in ("/healthz", "/nowcast/latest")]
    for text in texts:
        times = re.findall(r"\d{4}-\d\d-\d\dT[^\"]*", text)
        assert times
        assert all(re.fullmatch(r"[-\d]{10}T[:\d]{8}(\.\d+)?Z", time) for time in times), times


def test_an_alarm_degrades(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights against a scene that stands still: persistence makes no error."""
    with serve(bundle, session, alarm=3) as page:
        for slot in range(12):
            frame = make_frame(slot)
            page.taps[0].give(type(frame)(frame.valid_time, picture(1), source_id="still"))
        page.settle(9)
        status, _, body = page.get("/healthz")
        assert (status, json.loads(body)["status"]) == (200, "degraded")
        assert b'stpl_alarm{stream=""} 1.0' in page.get("/metrics")[2]
        with page.events() as sent:
            facts = sent.until("stream", lambda f: f["problems"])
        assert "worse than by persistence" in facts["problems"][0]["line"]
    assert capsys.readouterr().err.count("alarm: 3 frames in a row") == 1


def test_a_stale_stream(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, stale_s=1e-6) as page:
        page.give(0, 4)
        page.settle(2)
        status, _, body = page.get("/healthz")
        assert (status, json.loads(body)["status"]) == (503, "stale")


def test_several_streams(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, ("north", "south")) as page:
        page.give(0, 6, tap=0)
        page.give(100, 104, tap=1)
        page.settle(4, 0)
        page.settle(2, 1)
        with page.events("south") as sent:
            hello = sent.until("hello")
            facts = sent.until("stream", lambda f: f["nowcast"])
        assert [stream["name"] for stream in hello["streams"]] == ["north", "south"]
        wanted = slot_time(104).isoformat().replace("+00:00", "Z")
        assert facts["nowcast"]["issue_time"] == wanted
        png = page.get(f"/{facts['nowcast']['past'][-1]['url']}")[2]
        np.testing.assert_array_equal(pixels(png), colour_map("1", 0, 1).picture(picture(104)[0]))
        north = json.loads(page.get("/nowcast/latest?stream=north")[2])
        assert (north["stream"], north["issue_time"][:10]) == ("north", "2026-02-01")
        page.taps[1].health.down("gone")
        document = json.loads(page.get("/healthz")[2])
        assert document["status"] == "down"  # the worst of them
        assert document["streams"]["north"]["status"] == "ok"
        with page.events("west") as sent:
            assert sent.status == 404
        body = page.get("/nowcast/latest?stream=west")[2]
        assert body == b"no stream 'west'; there are north, south\n"


def test_a_stream_may_have_any_name(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, ("a-雨",)) as page:
        page.give(0, 4)
        assert page.watch.skill is not None
        while page.hub.views["a-雨"].latest is None:
            time.sleep(0.01)
        status, headers, body = page.get(f"/nowcast/latest?stream={quote('a-雨')}")
        assert (status, json.loads(body)["stream"]) == (200, "a-雨")
        again = {"If-None-Match": headers["etag"]}
        assert page.get("/nowcast/latest", again)[0] in (200, 304)
        assert "a-雨".encode() in page.get("/metrics")[2]


def test_a_clock_that_is_set_back_is_followed() -> None:
    look = Look("m", "grey", "1", 0.0, 1.0, context=4, horizon=3, shape=(1, 16, 16))
    view = StreamView(look)
    now = slot_time(2000)
    for slot in range(1000, 1006):
        view.frame(make_frame(slot), "used", now)
    view.nowcast(made_at(1005))
    view.frame(make_frame(1003), "used", now)  # a late one
    assert view.arrived is not None
    assert view.arrived.valid_time == slot_time(1005)
    for slot in range(3):
        view.frame(make_frame(slot), "used", now)
    assert view.arrived.valid_time == slot_time(2)
    observed = view.facts("")["observed"]
    wanted = [slot_time(slot).isoformat().replace("+00:00", "Z") for slot in range(3)]
    assert [one["time"] for one in observed] == wanted


def test_gaps_and_stand_ins_are_shown(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session) as page:
        page.give(0, 4)
        page.give(7, 11)
        page.settle(4)
        with page.events() as sent:
            slots = sent.until("stream", lambda f: len(f["slots"]) == 12)["slots"]
        assert [n for n, slot in enumerate(slots) if slot["fate"] == "missing"] == [5, 6]


def test_stand_ins_are_shown_as_what_they_are(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, on_gap="bridge") as page:
        page.give(0, 4)
        page.settle(2)
        page.give(6, 6)
        page.settle(3)
        nowcast = page.hub.views[""].latest
        assert nowcast is not None
        with page.events() as sent:
            facts = sent.until("stream", lambda f: len(f["slots"]) == 7)
        past = facts["nowcast"]["past"]
        assert [one["stand_in"] for one in past] == ["", "", "bridged", ""]
        png = page.get(f"/{past[2]['url']}")[2]
        grey = colour_map("1", 0.0, 1.0)
        np.testing.assert_array_equal(pixels(png), grey.picture(nowcast.context[2, 0]))
        assert [slot["fate"] for slot in facts["slots"]].count("bridged") == 1
        document = json.loads(page.get("/healthz")[2])
        assert document["status"] == "degraded"
        assert document["streams"][""]["reasons"] == [
            "the newest nowcast stands on a frame that was not observed"
        ]
        assert b'stpl_nowcasts_standing_in_total{stream=""} 1.0' in page.get("/metrics")[2]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_memory_under_a_page_that_is_watched(bundle: Bundle, session: Session) -> None:
    """Scores, pictures, files, metrics and events over 20,000 frames."""
    psutil = pytest.importorskip("psutil")
    done = threading.Event()
    resident: dict[int, int] = {}

    def watch(page: Served) -> None:
        with page.events() as sent:
            while not done.is_set():
                name, data = sent.next()
                if name == "stream" and data["nowcast"]:
                    for frame in data["nowcast"]["ahead"]:
                        page.get(f"/{frame['url']}")
                    page.get("/metrics")
                    page.get("/nowcast/latest?format=png")

    with serve(bundle, session, waits=True, alarm=5) as page:
        watcher = threading.Thread(target=watch, args=(page,))
        watcher.start()
        for first in range(0, 22_000, 1000):
            page.give(first, first + 999)
            page.settle(first + 1000 - T + 1)
            gc.collect()
            resident[first + 1000] = psutil.Process().memory_info().rss
        done.set()
        watcher.join(30)
        assert page.watch.background.missed == 0
    grown = (resident[22_000] - resident[2_000]) / 2**20
    sys.stderr.write(f"20,000 frames with a page: resident memory grew by {grown:.2f} MiB\n")
    assert grown < 2.0
