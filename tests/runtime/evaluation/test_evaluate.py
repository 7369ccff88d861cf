"""`evaluate`: its numbers are those of the scores, its report stands alone, refusals say why."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.baselines import persistence
from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError, UsageError
from stpl_core.grid import Grid
from stpl_deploy.cli import run
from stpl_runtime.evaluation.archives import archive_material, is_archive
from stpl_runtime.evaluation.evaluate import MODEL, evaluate
from stpl_runtime.evaluation.report import html_report
from stpl_runtime.evaluation.subject import Judged, Material, read_material

pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")

DATA = Path(__file__).parents[2] / "data"
BUNDLE = DATA / "modernn-mini.bundle"
RAIN = FrameCodec(quantity="rain rate", units="mm h-1", low=0.0, high=60.0)


def rain_judge(side: int = 40) -> Judged:
    """A forecaster of rain that knows persistence alone."""
    return Judged(
        name="still", how="numpy", context=4, horizon=3, frame=(1, side, side), codec=RAIN,
        cadence_s=300.0, forecast=lambda frames: persistence(frames, 3),
        own=lambda: Material("nothing", np.zeros((1, 7, 1, side, side), np.float32)),
    )  # fmt: skip


def digits() -> np.ndarray:
    """`(16, 20, 1, 32, 32)`: what the bundle's run was validated on."""
    with np.load(DATA / "modernn-mini" / "validation.npz") as file:
        return file["frames"]


def moving_rain(count: int = 3, side: int = 40) -> np.ndarray:
    """`(N, 7, 1, side, side)`: a shower that goes three pixels to the right each frame."""
    rows, columns = np.mgrid[:side, :side]
    frames = [
        [np.exp(-((columns - 8 - 3 * t) ** 2 + (rows - 12 - 5 * n) ** 2) / 30) for t in range(7)]
        for n in range(count)
    ]
    rates = 30 * np.array(frames, np.float32)[:, :, None]
    rates[rates < 0.1] = 0
    return rates


def test_the_flow_wins_where_rain_moves() -> None:
    found = evaluate(rain_judge(), Material("made", moving_rain()))
    assert found.thresholds == (0.1, 1.0, 5.0)
    assert found.scales == (5, 15, 31)
    csi = {name: scores.per_lead["csi_5"] for name, scores in found.scores.items()}
    assert (csi["flow"] > 0.8).all()
    assert (csi["flow"] > csi["persistence"]).all()
    np.testing.assert_array_equal(csi[MODEL], csi["persistence"])


def test_a_dry_field_has_no_event_and_no_crash() -> None:
    judged = rain_judge()
    found = evaluate(judged, judged.own(), thresholds=[1.0], scales=[5])
    for scores in found.scores.values():
        assert math.isnan(scores.overall["csi_1"])
        assert math.isnan(scores.overall["fss_1_5px"])
        assert scores.overall["mse"] == 0
        assert scores.overall["ssim"] == 1
    assert "–" in html_report(found)


def test_what_was_not_observed_does_not_count(tmp_path: Path) -> None:
    frames = moving_rain()
    observed = np.ones((3, 7, 40, 40), bool)
    observed[:, 5, :, 30:] = False  # of one frame alone: the pixel leaves all of them
    spoilt = frames.copy()
    spoilt[..., 30:] = 55
    for name, values in (("whole", frames), ("spoilt", spoilt)):
        np.savez(tmp_path / f"{name}.npz", frames=values, observed=observed)
    judged = rain_judge()
    a, b = (
        evaluate(judged, read_material(tmp_path / f"{name}.npz", judged), baselines=["persistence"])
        for name in ("whole", "spoilt")
    )
    assert a.scores["persistence"].overall == pytest.approx(b.scores["persistence"].overall)


def test_long_sequences_are_cut_and_yesterday_is_a_baseline(tmp_path: Path) -> None:
    hours = np.arange(80)
    values = np.sin(2 * np.pi * hours / 24) * 20 + 25  # the same every day
    frames = np.broadcast_to(values[:, None, None, None], (80, 1, 40, 40)).astype(np.float32)
    times = np.datetime64("2020-01-01", "s") + hours * np.timedelta64(1, "h")
    np.savez(tmp_path / "days.npz", frames=frames, time=times)
    judged = rain_judge()
    material = read_material(tmp_path / "days.npz", judged)
    assert material.frames.shape == (25, 7, 1, 40, 40)
    assert material.times is not None
    found = evaluate(judged, material)
    assert list(found.scores) == [MODEL, "persistence", "flow", "day"]
    day = found.scores["day"]
    assert day.overall["mse"] < 1e-6
    assert 0 < day.overall["frames"] < found.scores[MODEL].overall["frames"]
    with pytest.raises(UsageError, match="more than a week"):
        evaluate(judged, material, baselines=["week"])


def test_the_report_stands_alone() -> None:
    made = Material("<made> & moved", moving_rain())
    found = evaluate(rain_judge(), made, thresholds=[1.0], scales=[5])
    page = html_report(found)
    assert "&lt;made&gt; &amp; moved" in page
    assert "prefers-color-scheme: dark" in page
    assert "mm h-1" in page
    # Fetches nothing: pictures are inside, and no address is one of a script, style or picture.
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "@import" not in page
    assert page.count("<svg") == len(found.names)  # all but `frames`, and the spectrum
    pictures = 2 * (4 + 3 * 3)
    assert page.count("data:image/png;base64,") == pictures
    assert "currentColor" in page
    assert "#010203" not in page
    assert all(f">{way}</span>" in page for way in found.scores)  # one key for all curves
    assert 'alt=""' not in page
    assert html_report(found) == page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium: see CONTRIBUTING.md")
def test_the_report_has_the_map_of_each_sequence() -> None:
    pyproj = pytest.importorskip("pyproj")
    wkt = pyproj.CRS("OGC:CRS84").to_wkt()
    grids = [Grid((x, 56.0, 0.1, -0.1), 40, 40, wkt, True) for x in (4.0, 8.0, 12.0)]
    bare = Material("made", moving_rain())
    placed = replace(bare, grids=tuple(grids))

    def pictures(material: Material) -> list[str]:
        return re.findall(r"base64,([^\"]*)", html_report(evaluate(rain_judge(), material)))

    with_map, without = pictures(placed), pictures(bare)
    assert len(with_map) == len(without) > 8
    assert not set(with_map) & set(without)


def test_the_report_fits_a_telephone(tmp_path: Path) -> None:
    """No column of the table of means is cut off; only pictures scroll, within their own box."""
    playwright = pytest.importorskip("playwright.sync_api")
    page = tmp_path / "report.html"
    page.write_text(html_report(evaluate(rain_judge(), Material("made", moving_rain()))))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 400, "height": 900})
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        assert tab.evaluate("document.querySelector('.means').getBoundingClientRect().right") <= 400
        browser.close()


def test_the_table_and_the_document_agree() -> None:
    found = evaluate(rain_judge(), Material("made", moving_rain()), thresholds=[2.5], scales=[3])
    lines = list(csv.DictReader(found.table().splitlines()))
    assert len(lines) == 3 * (3 + 1)
    document = json.loads(json.dumps(found.document()))
    for line in lines:
        scores = document["scores"][line["forecast"]]
        for name in ("mse", "csi_2.5", "fss_2.5_3px"):
            value = (
                scores["mean"][name]
                if line["lead"] == "mean"
                else scores["per_lead"][name][int(line["lead"]) - 1]
            )
            assert float(line[name]) == value
    assert [line["lead_s"] for line in lines[:4]] == ["300", "600", "900", ""]


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    judged = rain_judge()
    with pytest.raises(UsageError, match="unknown baseline wind"):
        evaluate(judged, judged.own(), baselines=["wind"])
    with pytest.raises(UsageError, match="more than a day"):
        evaluate(judged, judged.own(), baselines=["day"])
    np.save(tmp_path / "short.npy", moving_rain()[:, :6])
    with pytest.raises(FrameError, match="4 to read, 3 to compare"):
        read_material(tmp_path / "short.npy", judged)
    np.savez(tmp_path / "mask.npz", frames=moving_rain(), observed=np.ones((3, 7, 40), bool))
    with pytest.raises(FrameError, match="observed"):
        read_material(tmp_path / "mask.npz", judged)
    np.savez(tmp_path / "time.npz", frames=moving_rain(), time=np.zeros((3, 7)))
    with pytest.raises(FrameError, match="datetime64"):
        read_material(tmp_path / "time.npz", judged)


def test_the_required_provider_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of `predict` and `stream`, before anything is read."""

    def evaluated(*options: str, code: int) -> str:
        assert run(["evaluate", str(BUNDLE), "--baseline", "persistence", *options]) == code
        out, err = capsys.readouterr()
        return err if code else out

    assert "CPUExecutionProvider" in evaluated("--require-provider", "cpu", code=0)
    refusal = evaluated("--require-provider", "cuda", code=4)
    assert "the session runs on CPUExecutionProvider" in refusal
    assert "cuda, which --require-provider asks for" in refusal
    assert "--engine onnx-cuda" in refusal


def test_an_archive_is_cut_into_whole_windows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = random.random((60, 1, 40, 40), dtype=np.float32) * 50
    frames[50:, :, :, 38:] = np.nan  # not observed
    frames[frames < 5] = 0
    minutes = np.arange(60) * 5
    minutes[30:] += 60  # a gap: 30 frames before it and 30 after
    times = np.datetime64("2020-01-01T00:00", "s") + minutes * np.timedelta64(60, "s")
    archive = tmp_path / "rain"
    archive.mkdir()
    np.savez(archive / "all.npz", frames=frames, time=times, units=np.array("mm h-1"))
    judged = rain_judge()
    assert is_archive(archive)
    material = archive_material(judged, path=archive)
    # One window of 7 every 3 frames on each side of the gap.
    starts = [*range(0, 24, 3), *range(30, 54, 3)]
    assert material.frames.shape == (16, 7, 1, 40, 40)
    for window, start in zip(material.frames, starts, strict=True):
        np.testing.assert_array_equal(window, frames[start : start + 7])
    assert material.times is not None
    np.testing.assert_array_equal(material.times[:, 0], times[starts])
    assert material.valid is not None
    seen = material.valid[:, 0, 39]
    np.testing.assert_array_equal(seen, [start + 7 <= 50 for start in starts])
    found = evaluate(judged, material)
    assert found.scores["flow"].overall["frames"] == 16 * 3
    assert math.isfinite(found.scores["persistence"].overall["csi_5"])
    with pytest.raises(UsageError, match="not trained on an archive"):
        archive_material(judged)
    trained = replace(judged, data={"source": "archive", "path": archive, "test_fraction": 0.4})
    tests = archive_material(trained, part="test")
    np.testing.assert_array_equal(tests.frames[0], frames[36:43])
    assert len(tests.frames) == 6
    assert "test part" in tests.about


def test_no_echo_is_what_the_model_calls_no_rain(tmp_path: Path) -> None:
    archive = tmp_path / "dbz"
    archive.mkdir()
    frames = np.full((7, 1, 40, 40), -32, np.float32)
    frames[:, :, 10:20] = 30
    times = np.datetime64("2020-01-01T00:00", "s") + np.arange(7) * np.timedelta64(300, "s")
    np.savez(archive / "all.npz", frames=frames, time=times, units=np.array("dBZ"))
    codec = FrameCodec(quantity="reflectivity", units="dBZ", low=0.0, high=60.0, clip=True)
    found = evaluate(
        replace(rain_judge(), codec=codec),
        archive_material(replace(rain_judge(), codec=codec), path=archive),
    )
    assert found.thresholds == (7.0, 23.0, 34.0)
    for scores in found.scores.values():
        assert scores.overall["rmse"] < 0.01
        assert scores.overall["csi_23"] == 1


def test_the_verb(cli: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", digits()[:2])
    code, out, err = cli(
        "evaluate", BUNDLE, "--data", tmp_path / "some.npy", "--out", tmp_path / "out",
        "--thresholds", "0.5", "--baseline", "persistence,flow",
    )  # fmt: skip
    assert code == 0, err
    for word in ("model", "persistence", "flow", "MSE", "CSI at 0.5", "report.html"):
        assert word in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html", "scores.csv", "scores.json",
    ]  # fmt: skip
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["thresholds"] == [0.5]
    assert len(written["scores"]["flow"]["per_lead"]["ssim"]) == 10
    (tmp_path / "out" / "scores.csv").write_text("older")
    again = (
        "evaluate", BUNDLE, "--data", tmp_path / "some.npy", "--out", tmp_path / "out",
        "--baseline", "persistence",
    )  # fmt: skip
    code, _, err = cli(*again)
    assert code == 2
    assert err.endswith("try: another --out, or --overwrite\n")
    assert (tmp_path / "out" / "scores.csv").read_text() == "older"
    code, _, err = cli(*again, "--overwrite")
    assert code == 0, err
    assert (tmp_path / "out" / "scores.csv").read_text().startswith("forecast,lead")
    for arguments, words in (
        (("--thresholds", "low"), "--thresholds low; expected numbers"),
        (("--scales", "0"), "pixels, 1 or more"),
        (("--scales", "5,nan"), "--scales 5,nan; expected numbers"),
        (("--thresholds", "inf"), "--thresholds inf; expected numbers"),
        (("--baseline", "wind"), "unknown baseline wind"),
        (("--data", tmp_path / "none.npy"), "no file"),
    ):
        code, _, err = cli("evaluate", BUNDLE, *arguments)
        assert code == 2, err
        assert words in err
        assert "Traceback" not in err


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx", "onnxscript", "lightning_fabric", "safetensors", "tomllib"):
    sys.modules[name] = None  # any import of it, at whatever depth, now fails
from stpl_deploy.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_an_edge_device_judges_a_bundle_on_an_archive_without_torch(tmp_path: Path) -> None:
    frames = digits()[0]  # (20, 1, 32, 32)
    np.save(tmp_path / "frames.npy", np.concatenate([frames, frames]))
    assert run(["data", "convert", f"{tmp_path}/frames.npy", "--out", f"{tmp_path}/a.zarr"]) == 0
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, "evaluate", BUNDLE, "--json",
         "--data", tmp_path / "a.zarr", "--baseline", "persistence"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sequences"] == 3
    assert found["scores"]["model"]["mean"]["mse"] < found["scores"]["persistence"]["mean"]["mse"]
