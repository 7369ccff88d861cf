"""The page's server through real requests on loopback: what it shows and hands out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from stpl_core.bundle import Bundle
from stpl_core.drawing.colours import colour_map, difference_map
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_runtime.page.outputs import chosen_format
from tests.runtime.conftest import picture, slot_time
from tests.runtime.page.serving import Served, pixels, serve

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


def test_the_page_and_its_parts(served: Served) -> None:
    parts = {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css",
             "/map.js": "text/javascript", "/point.js": "text/javascript",
             "/settings.js": "text/javascript", "/tools.js": "text/javascript",
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
    with served.events() as sent:
        assert sent.response.getheader("content-type", "").startswith("text/event-stream")
        hello = sent.until("hello")
        facts = sent.until("stream", lambda f: len(f["slots"]) == 10 and f["check"])
        pulse = sent.until("pulse")
    assert hello["look"]["units"] == "1"
    assert hello["thresholds"] == ["0.5"]
    nowcast = served.hub.views[""].latest
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


def test_the_check_shows_forecast_minus_observed(
    served: Served, bundle: Bundle, session: Session
) -> None:
    with served.events() as sent:
        check = sent.until("stream", lambda f: f["check"] and len(f["check"]["leads"]) == K)[
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
        forecast = predict_sequences(bundle, session, window, K)[0, lead - 1]  # (C, H, W)
        np.testing.assert_array_equal(pixels(made), grey.picture(forecast[0]))
        np.testing.assert_array_equal(pixels(error), both.picture((forecast - picture(9))[0]))
        squared = np.square(forecast.astype(np.float64) - picture(9)).sum()
        assert found["mse"] == pytest.approx(squared, rel=1e-5)


def test_the_newest_nowcast_as_a_file(served: Served) -> None:
    nowcast = served.hub.views[""].latest
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
    status, _, body = served.get("/nowcast/latest?stream=west")
    assert (status, body) == (
        404,
        b"no stream 'west'; the only one has no name: leave stream= out\n",
    )


def test_the_newest_nowcast_as_netcdf(served: Served, tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    status, headers, body = served.get("/nowcast/latest?format=netcdf")
    assert (status, headers["content-type"]) == (200, "application/netcdf")
    (tmp_path / "n.nc").write_bytes(body)
    nowcast = served.hub.views[""].latest
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
