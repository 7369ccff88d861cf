"""The page's server through real requests on loopback: what it tells, and whom it refuses."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from stpl_deploy.bundle import Bundle
from stpl_deploy.colours import colour_map
from stpl_deploy.errors import EnvironmentFault, UsageError
from stpl_runtime.engine import Session
from stpl_runtime.page.guard import is_local_name
from stpl_runtime.page.outputs import chosen_format
from stpl_runtime.page.pictures import difference_map
from stpl_runtime.page.server import is_loopback, listen, page_access
from stpl_runtime.page.shown import Look, Shown
from tests.runtime.conftest import Cli, make_frame, picture, slot_time
from tests.runtime.serving import Served, serve
from tests.runtime.test_skill import made_at

TOKEN = "a-token-of-some-length"
T, K = 4, 3


@pytest.fixture(scope="module")
def served(bundle: Bundle, session: Session) -> Iterator[Served]:
    """A page after ten frames: seven nowcasts, six of which were compared."""
    with serve(bundle, session, thresholds=(0.5,), alarm=2) as page:
        assert page.get("/nowcast/latest")[0] == 503  # nothing yet
        assert json.loads(page.get("/healthz")[2])["status"] == "stale"
        page.give(0, 9)
        page.settle(7)
        yield page


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_the_page_and_its_parts(served: Served) -> None:
    parts = {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css",
             "/icon.svg": "image/svg+xml"}  # fmt: skip
    for path, media in parts.items():
        status, headers, body = served.get(path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, media)
        assert body
        assert "http://" not in body.decode().replace("http://www.w3.org", "")
        assert "https://" not in body.decode()
        again = served.get(path, {"if-none-match": headers["etag"]})
        assert (again[0], again[2]) == (304, b"")
    for path in ("/", "/healthz", "/nothing", "/nowcast/latest?format=x", "/events?stream=no"):
        headers = served.get(path)[1]
        assert headers["content-security-policy"].startswith("default-src 'self';"), path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


@pytest.mark.parametrize(
    "path", ["/static/", "/pictures/", "/..%2f..%2fpyproject.toml", "/page.py", "/docs",
             "/openapi.json", "/pictures/x/0/observed/y.png", "/pictures/x/9/forecast/y/1.png"],
)  # fmt: skip
def test_nothing_else_is_served(served: Served, path: str) -> None:
    assert served.get(path)[0] == 404


def test_events_and_the_pictures_they_name(served: Served) -> None:
    with served.events() as told:
        assert told.response.getheader("content-type", "").startswith("text/event-stream")
        hello = told.until("hello")
        facts = told.until("stream", lambda f: len(f["slots"]) == 10 and f["check"])
        pulse = told.until("pulse")
    assert hello["look"]["units"] == "1"
    assert hello["thresholds"] == ["0.5"]
    nowcast = served.hub.shown[""].latest
    assert nowcast is not None
    shown = facts["nowcast"]
    assert [len(shown["past"]), len(shown["ahead"])] == [T, K]
    assert [lead["text"] for lead in shown["ahead"]] == ["+5 min", "+10 min", "+15 min"]
    grey = colour_map("1", 0.0, 1.0)
    named = [
        *((part["url"], grey.picture(picture(6 + n)[0])) for n, part in enumerate(shown["past"])),
        *((p["url"], grey.picture(nowcast.frames[k, 0])) for k, p in enumerate(shown["ahead"])),
        (facts["check"]["truth"], grey.picture(picture(9)[0])),
    ]
    for url, wanted in named:
        status, headers, png = served.get(f"/{url}")
        assert (status, headers["content-type"]) == (200, "image/png")
        assert "immutable" in headers["cache-control"]
        np.testing.assert_array_equal(pixels(png), wanted)
    assert {fate["fate"] for fate in facts["slots"]} == {"used"}
    counts = pulse["streams"][""]["counts"]
    assert counts["received"] == sum(counts.values()) - counts["received"] == 10


def test_the_check_shows_forecast_minus_observed(served: Served) -> None:
    with served.events() as told:
        check = told.until("stream", lambda f: f["check"] and len(f["check"]["leads"]) == K)[
            "check"
        ]
    grey, both = colour_map("1", 0.0, 1.0), difference_map("1", 0.0, 1.0)
    # The newest truth is slot 9: each lead's forecast was made that many slots before.
    for lead in range(1, K + 1):
        found = check["leads"][str(lead)]
        assert found["issue_time"] == slot_time(9 - lead).isoformat().replace("+00:00", "Z")
        made = served.get(f"/{found['forecast']}")[2]
        error = served.get(f"/{found['difference']}")[2]
        window = np.stack([picture(9 - lead - T + 1 + t) for t in range(T)])[None]
        from stpl_runtime.predict import predict_sequences

        nowcaster = served.streams[0].nowcaster
        bundle, session = _bundle(served), nowcaster.session
        forecast = predict_sequences(bundle, session, window, K)[0, lead - 1]  # (C, H, W)
        np.testing.assert_array_equal(pixels(made), grey.picture(forecast[0]))
        np.testing.assert_array_equal(pixels(error), both.picture((forecast - picture(9))[0]))
        squared = np.square(forecast.astype(np.float64) - picture(9)).sum()
        assert found["mse"] == pytest.approx(squared, rel=1e-5)


def _bundle(served: Served) -> Bundle:
    from tests.runtime.conftest import open_named

    return open_named("convlstm-tiny")


def test_the_newest_nowcast_as_a_file(served: Served) -> None:
    nowcast = served.hub.shown[""].latest
    assert nowcast is not None
    status, headers, body = served.get("/nowcast/latest?format=npz")
    assert status == 200
    assert f'filename="{nowcast.name}.npz"' in headers["content-disposition"]
    with np.load(io.BytesIO(body)) as archive:
        np.testing.assert_array_equal(archive["frames"], nowcast.frames)
    assert served.get("/nowcast/latest?format=npz", {"if-none-match": headers["etag"]})[0] == 304
    _, headers, body = served.get("/nowcast/latest")
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    assert len(document["leads"]) == K
    assert document["issue_time"] == slot_time(9).isoformat().replace("+00:00", "Z")
    _, headers, body = served.get("/nowcast/latest", {"accept": "image/png"})
    assert headers["content-type"] == "image/png"
    assert pixels(body).shape[1] > T * 16
    assert served.get("/nowcast/latest?format=doc")[0] == 400
    assert served.get("/nowcast/latest", {"accept": "video/mp4"})[0] == 406
    assert served.get("/nowcast/latest?stream=west")[0] == 404


def test_the_newest_nowcast_as_netcdf(served: Served, tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    status, headers, body = served.get("/nowcast/latest?format=netcdf")
    assert (status, headers["content-type"]) == (200, "application/netcdf")
    (tmp_path / "n.nc").write_bytes(body)
    nowcast = served.hub.shown[""].latest
    assert nowcast is not None
    with xr.open_dataset(tmp_path / "n.nc") as found:
        np.testing.assert_array_equal(found["nowcast"].values, nowcast.frames[:, 0])
        assert found["lead_time"].values.tolist() == [300.0, 600.0, 900.0]


def test_accept_headers() -> None:
    for accept, word in [
        ("*/*", "json"),
        ("application/netcdf", "nc"),
        ("application/x-netcdf, */*;q=0.1", "nc"),
        ("image/png;q=0.2, application/x-npz;q=0.9", "npz"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("image/*", "png"),
        ("image/png;q=0", None),
        ("video/mp4", None),
        ("image/png;q=nonsense, image/tiff", "tif"),
    ]:
        assert chosen_format(None, accept) == word, accept
    assert chosen_format("NetCDF", "image/png") == "nc"


def test_metrics(served: Served) -> None:
    status, headers, body = served.get("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return values[(name, *sorted({"stream": "", **labels}.items()))]

    assert value("stpl_frames_received_total") == 10
    fates = ("used", "late", "duplicate", "dropped", "bad")
    counted = sum(value("stpl_frames_total", fate=fate) for fate in fates)
    assert counted + value("stpl_frames_pending") == 10
    assert value("stpl_nowcasts_total") == value("stpl_nowcast_latency_seconds_count") == 7
    buckets = [s for s in families["stpl_nowcast_latency_seconds"].samples if "le" in s.labels]
    assert [b.value for b in buckets] == sorted(b.value for b in buckets)
    assert buckets[-1].labels["le"] == "+Inf"
    assert buckets[-1].value == 7
    assert value("stpl_nowcast_latency_seconds_sum") > 0
    assert value("stpl_source_up") == 1
    assert value("stpl_source_reconnects_total") == 0
    age = value("stpl_frame_age_seconds")
    assert age == pytest.approx(value("stpl_frame_lag_seconds"), abs=600)
    assert value("stpl_arrival_age_seconds") >= 0
    skill = served.hub.skill.now("")
    assert skill is not None
    for lead in range(1, K + 1):
        for way in ("nowcast", "persistence"):
            found = skill.rolling.per_lead[way]
            assert value("stpl_skill_mse", way=way, lead=str(lead)) == found["mse"][lead - 1]
            csi = value("stpl_skill_csi", way=way, lead=str(lead), threshold="0.5")
            assert csi == found["csi_0.5"][lead - 1]
    assert value("stpl_skill_scored_total", stand_ins="no") == 6 + 5 + 4
    assert value("stpl_alarm") in (0.0, 1.0)


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
        with page.events() as told:
            facts = told.until("stream", lambda f: f["problems"])
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
        with page.events("south") as told:
            hello = told.until("hello")
            facts = told.until("stream", lambda f: f["nowcast"])
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
        with page.events("west") as told:
            assert told.status == 404


def test_a_stream_may_have_any_name(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, ("a-雨",)) as page:
        page.give(0, 4)
        assert page.watch.skill is not None
        while page.hub.shown["a-雨"].latest is None:
            time.sleep(0.01)
        status, headers, body = page.get(f"/nowcast/latest?stream={quote('a-雨')}")
        assert (status, json.loads(body)["stream"]) == (200, "a-雨")
        again = {"If-None-Match": headers["etag"]}
        assert page.get("/nowcast/latest", again)[0] in (200, 304)
        assert "a-雨".encode() in page.get("/metrics")[2]


def test_a_clock_that_is_set_back_is_followed() -> None:
    look = Look("m", "grey", "1", 0.0, 1.0, context=4, horizon=3, shape=(1, 16, 16))
    shown = Shown(look)
    now = slot_time(2000)
    for slot in range(1000, 1006):
        shown.frame(make_frame(slot), "used", now)
    shown.nowcast(made_at(1005))
    shown.frame(make_frame(1003), "used", now)  # a late one
    assert shown.arrived is not None
    assert shown.arrived.valid_time == slot_time(1005)
    for slot in range(3):
        shown.frame(make_frame(slot), "used", now)
    assert shown.arrived.valid_time == slot_time(2)
    observed = shown.facts("")["observed"]
    wanted = [slot_time(slot).isoformat().replace("+00:00", "Z") for slot in range(3)]
    assert [one["time"] for one in observed] == wanted


def test_gaps_and_stand_ins_are_shown(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session) as page:
        page.give(0, 4)
        page.give(7, 11)
        page.settle(4)
        with page.events() as told:
            slots = told.until("stream", lambda f: len(f["slots"]) == 12)["slots"]
        assert [n for n, slot in enumerate(slots) if slot["fate"] == "missing"] == [5, 6]


def test_stand_ins_are_shown_as_what_they_are(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, on_gap="bridge") as page:
        page.give(0, 4)
        page.settle(2)
        page.give(6, 6)
        page.settle(3)
        nowcast = page.hub.shown[""].latest
        assert nowcast is not None
        with page.events() as told:
            facts = told.until("stream", lambda f: len(f["slots"]) == 7)
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


def test_strange_requests_are_refused(served: Served) -> None:
    assert served.get("/", method="POST")[0] == 405
    assert served.get("/nowcast/latest", method="DELETE")[0] == 405
    assert served.get("/", body=b"x" * 10)[0] == 413
    assert served.get(f"/?{'x' * 3000}")[0] == 414
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
    for path in ("/", "/events", "/metrics"):
        status, _, body = served.get(path, method="HEAD")
        assert (status, body) == (200, b""), path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("[::1]:8765", 200),
        ("127.8.8.8", 200),
        ("evil.example", 421),
        ("evil.example:8765", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("192.168.1.4", 421),
        ("localhost:x", 421),
        ("", 421),
    ],
)
def test_names_that_are_not_of_this_machine_are_refused(
    served: Served, host: str, status: int
) -> None:
    """DNS rebinding: a page of another site whose name leads here sends its own name."""
    assert is_local_name(host) == (status == 200)
    assert served.get("/healthz", {"Host": host})[0] == status


def test_a_token(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, token=TOKEN) as page:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/", "/page.js", "/events", "/metrics", "/nowcast/latest", "/pictures/a/0/b"):
            status, headers, body = page.get(path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
            assert b"needs a token" in body
            assert page.get(path, {"Authorization": f"Bearer {TOKEN}x"})[0] == 401
            assert page.get(path, {"Authorization": f"Basic {TOKEN}"})[0] == 401
            assert page.get(path, {"Cookie": f"stpl_page={TOKEN}"})[0] == 401
        assert page.get("/metrics", bearer)[0] == 200
        assert page.get("/metrics", {**bearer, "Host": "edge-7.lan"})[0] == 200
        assert page.get(f"/metrics?token={TOKEN}")[0] == 200
        assert page.get("/?token=no")[0] == 401
        status, headers, _ = page.get(f"/?token={TOKEN}&stream=a")
        assert (status, headers["location"]) == (303, "./?stream=a")
        cookie, *rules = headers["set-cookie"].split("; ")
        assert TOKEN not in cookie
        assert {"HttpOnly", "SameSite=Strict"} <= set(rules)
        assert page.get("/", {"Cookie": f"other=1; {cookie}"})[0] == 200
        assert set(json.loads(page.get("/healthz")[2])) == {"status"}
        assert "streams" in json.loads(page.get("/healthz", bearer)[2])


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert page_access(True, None, {}) == (page_access(True, None, {})[0], "")
    assert page_access(True, None, {})[0].token is None
    made, how = page_access(False, None, {})
    assert how == "made"
    assert made.token is not None
    assert len(made.token) >= 32
    assert made.token != page_access(False, None, {})[0].token
    assert page_access(False, file, {"STPL_TOKEN": "x" * 20})[0].token == TOKEN
    assert page_access(True, None, {"STPL_TOKEN": "x" * 20})[0].token == "x" * 20
    for text in ("short", "with a blank in it", "a\ttab-in-the-middle", "ünïcode-long-enough"):
        file.write_text(text)
        with pytest.raises(UsageError, match="token"):
            page_access(False, file, {})
    with pytest.raises(UsageError, match="cannot read"):
        page_access(False, tmp_path / "no", {})


def test_so_many_pages_and_no_more(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, server={"clients": 2}) as page:
        with page.events() as one, page.events() as two:
            one.until("hello")
            two.until("hello")
            with page.events() as three:
                assert three.status == 503
                assert three.response.getheader("retry-after") == "10"
            one.response.close()
        with page.events() as four:  # there is room again
            assert four.status in (200, 503)


def test_a_page_that_takes_nothing_is_dropped(
    bundle: Bundle, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(bundle, session, server={"slow_s": 0.3}) as page:
        more = iter(range(10**9))
        monkeypatch.setattr(page.hub, "facts", lambda name: b'"' + b"x" * 2**22 + b'"')
        monkeypatch.setattr(page.hub, "version", lambda name: (next(more), 0))
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        with connection:
            connection.connect(("127.0.0.1", page.port))
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with page.events() as told:  # one that reads is not held up
                while not page.server.events.dropped:
                    told.next()
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(2**16):  # to the end, which there is now
                    pass
        assert page.server.events.dropped == 1


def test_connections_that_ask_nothing_are_cut(bundle: Bundle, session: Session) -> None:
    with (
        serve(bundle, session, server={"silent_s": 0.2}) as page,
        socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\n")  # and no more
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b"", "cut without an answer"


def test_stopping_lets_every_page_go(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session) as page, page.events() as told:
        told.until("pulse")
        page.server.stop()
        while told.response.readline():
            pass
        assert not page.server._thread.is_alive()


def test_a_port_in_use(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        assert is_loopback(taken)
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentFault, match="in use"):
            listen("127.0.0.1", port)
        code, out, err = cli("serve", bundle.path, tmp_path, "--port", port)
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert f"try: --port {port + 1}" in err
    with pytest.raises(UsageError):
        listen("no.such.host.invalid", 80)


def test_serve_refuses_bad_arguments(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    for words, say in [
        (("--host", "no.such.host.invalid"), "--host"),
        (("--port", "70000"), "65535"),
        (("--stale-after", "soon"), "--stale-after 7d"),
        (("--alarm", "3", "--no-skill"), "leave --no-skill out"),
        (("--thresholds", "a,b"), "--thresholds 0.1,1,5"),
        (("--token-file", tmp_path / "no"), "cannot read"),
    ]:
        code, out, err = cli("serve", bundle.path, tmp_path, "--port", "0", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert say in err


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_memory_under_a_page_that_is_watched(bundle: Bundle, session: Session) -> None:
    """Scores, pictures, files, metrics and events over 20,000 frames."""
    psutil = pytest.importorskip("psutil")
    done = threading.Event()
    resident: dict[int, int] = {}

    def watch(page: Served) -> None:
        with page.events() as told:
            while not done.is_set():
                name, data = told.next()
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
        assert page.watch.aside.missed == 0
    grown = (resident[22_000] - resident[2_000]) / 2**20
    sys.stderr.write(f"20,000 frames with a page: resident memory grew by {grown:.2f} MiB\n")
    assert grown < 2.0
