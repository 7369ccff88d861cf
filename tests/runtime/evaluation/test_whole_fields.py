"""Whole fields by default: baselines see what comes in over the edge of a tile or a crop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.baselines import flow, persistence
from stpl_core.errors import FrameError
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import evaluate
from stpl_runtime.evaluation.report import html_report
from stpl_runtime.evaluation.subject import Judged

pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")

from tests.runtime.evaluation.test_evaluate import BUNDLE, RAIN, rain_judge

RUN = BUNDLE.with_suffix("")
SIDE, TILE = 96, 40


def showers(count: int = 13, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """`(T, 1, H, W)`: showers all over that go two pixels to the right each frame."""
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[:height, :width]
    places = random.uniform(-2 * count, max(height, width), (40, 2))
    frames = [
        sum(20 * np.exp(-((rows - y) ** 2 + (columns - x - 2 * t) ** 2) / 20) for y, x in places)
        for t in range(count)
    ]
    rates = np.stack(frames)[:, None].astype(np.float32)
    rates[rates < 0.1] = 0
    return rates


def save(folder: Path, frames: np.ndarray) -> Path:
    times = np.datetime64("2020-01-01T00:00", "s") + np.arange(len(frames)) * np.timedelta64(
        300, "s"
    )
    folder.mkdir()
    np.savez(folder / "all.npz", frames=frames, time=times, units=np.array("mm h-1"))
    return folder


def judge(**data: Any) -> Judged:
    return replace(rain_judge(TILE), data={"source": "archive", "frame": (1, TILE, TILE), **data})


def test_a_model_of_tiles_is_judged_on_whole_fields(tmp_path: Path) -> None:
    frames = showers()
    archive = save(tmp_path / "rain", frames)
    judged = judge(tiles=True)
    material = archive_material(judged, path=archive)
    assert material.field == (SIDE, SIDE)
    np.testing.assert_array_equal(material.frames[0], frames[:7])
    assert "whole fields of 96x96: the model in 9 tiles of 40x40 that share 12" in material.protocol
    found = evaluate(judged.covering((SIDE, SIDE)), material)
    for name, way in (
        ("model", persistence(material.frames[:, :4], 3)),
        ("flow", flow(material.frames[:, :4], 3, RAIN.units)),
    ):
        error = np.square(way.astype(np.float64) - material.frames[:, 4:]).mean()
        assert found.scores[name].overall["rmse"] == pytest.approx(np.sqrt(error), rel=1e-4)
    assert found.document()["protocol"] == material.protocol
    assert material.protocol in html_report(found)


def test_windows_take_from_flow_what_comes_in(tmp_path: Path) -> None:
    archive = save(tmp_path / "rain", showers())
    judged = judge(tiles=True)
    whole = evaluate(judged.covering((SIDE, SIDE)), archive_material(judged, path=archive))
    material = archive_material(judged, path=archive, windows=True)
    assert material.frames.shape[2:] == (1, TILE, TILE)
    assert "nothing comes in over their edges" in material.protocol
    assert material.field is None
    cut = evaluate(judged, material)
    still = [one.scores["persistence"].overall["csi_1"] for one in (whole, cut)]
    moved = [one.scores["flow"].overall["csi_1"] for one in (whole, cut)]
    assert still[0] == pytest.approx(still[1], abs=0.05)
    assert moved[0] > moved[1] + 0.03


def test_a_model_of_a_crop_is_judged_beside_flow_over_the_whole_field(tmp_path: Path) -> None:
    frames = showers()
    archive = save(tmp_path / "rain", frames)
    judged = judge(crop=[20, 30, TILE, TILE])
    material = archive_material(judged, path=archive)
    assert "baselines see the whole field of 96x96" in material.protocol
    inside = frames[:, :, 20:60, 30:70]
    np.testing.assert_array_equal(material.frames[1], inside[3:10])
    found = evaluate(judged, material, baselines=["flow"])
    contexts = np.stack([frames[start : start + 4] for start in (0, 3, 6)])
    forecast = flow(contexts, 3, RAIN.units)[..., 20:60, 30:70]
    truth = np.stack([inside[start + 4 : start + 7] for start in (0, 3, 6)])
    error = np.square(forecast.astype(np.float64) - truth).mean()
    assert found.scores["flow"].overall["rmse"] == pytest.approx(np.sqrt(error), rel=1e-4)
    cut = evaluate(judged, archive_material(judged, path=archive, windows=True))
    assert cut.scores["flow"].overall["csi_1"] < found.scores["flow"].overall["csi_1"]


def test_fields_of_two_sizes_are_refused(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a", showers(40)), save(tmp_path / "b", showers(40, 80, 96))]
    judged = judge(tiles=True, path=paths, test_fraction=0.6, validation_fraction=0.1)
    with pytest.raises(FrameError, match=r"the test part has fields of 80x96 and 96x96.*--windows"):
        archive_material(judged)
    one = replace(judged, data={**judged.data, "test_fraction": 0.4})
    assert archive_material(one).field == (80, 96)
    assert archive_material(judged, windows=True).field is None


def test_a_run_in_pytorch_is_covered_as_a_bundle_on_its_engine() -> None:
    pytest.importorskip("torch")
    from stpl_deploy.judging import open_judged

    bundle, run = (open_judged(path).covering((50, 40)) for path in (BUNDLE, RUN))
    assert bundle.tiling == run.tiling == "the model in 6 tiles of 32x32 that share 16 pixels"
    frames = np.random.default_rng(0).random((1, bundle.context, 1, 50, 40), dtype=np.float32)
    np.testing.assert_allclose(bundle.forecast(frames), run.forecast(frames), atol=1e-4)


def test_the_protocol_stands_beside_every_table(cli: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "some.npy", random.random((1, 20, 1, 32, 32), dtype=np.float32))
    command = ("evaluate", BUNDLE, "--data", tmp_path / "some.npy", "--baseline", "persistence")
    code, out, err = cli(*command)
    assert code == 0, err
    assert "protocol: sequences as they are: nothing comes in over an edge\n" in out
    code, out, err = cli(*command, "--json")
    assert json.loads(out)["protocol"].startswith("sequences as they are")
    code, _, err = cli(*command, "--windows", "--grid", "64x64")
    assert code == 2
    assert "--grid 64x64 with --windows" in err
