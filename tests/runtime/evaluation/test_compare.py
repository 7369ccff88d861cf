"""Intervals over blocks in the results of `evaluate`, and two models on the same windows."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.baselines import persistence
from stpl_core.codec import FrameCodec
from stpl_core.errors import UsageError
from stpl_runtime.chances import Chances
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import MODEL, OTHER, evaluate
from stpl_runtime.evaluation.pair import on_the_frames_of, paired
from stpl_runtime.evaluation.report import html_report
from stpl_runtime.evaluation.subject import Judged, Material
from stpl_runtime.evaluation.words import beyond_chance

pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")

from tests.runtime.evaluation.test_evaluate import BUNDLE, DATA, digits, moving_rain, rain_judge

MOVING = ("persistence",)


def shifting(judged: Judged, pixels: int) -> Judged:
    """A forecaster that knows how far the rain of `moving_rain` goes, more or less."""

    def forecast(frames: np.ndarray) -> np.ndarray:
        made = np.array(persistence(frames[:, -judged.context :], judged.horizon))
        for k in range(judged.horizon):
            made[:, k] = np.roll(made[:, k], pixels * (k + 1), axis=-1)
        return made

    return replace(judged, name=f"{pixels} pixels a frame", forecast=forecast)


def test_blocks_are_counted_and_few_give_no_interval() -> None:
    few = evaluate(
        rain_judge(), Material("made", moving_rain(4)), thresholds=[1.0], baselines=MOVING
    )
    assert few.spread.blocks == 4
    assert not few.spread.of_scores
    assert "too few to tell a difference from chance" in beyond_chance(few)[0]
    assert "interval" not in few.document()["scores"][MODEL]
    assert "csi_1_low" not in few.table().splitlines()[0]
    document = few.document()
    assert document["blocks"]["count"] == 4
    assert document["blocks"]["enough"] is False
    assert "too few" in html_report(few)


def test_windows_of_one_storm_are_one_block() -> None:
    frames = moving_rain(8)
    times = np.datetime64("2020-05-01T12:00", "ns") + np.arange(7) * np.timedelta64(5, "m")
    one_storm = np.stack([times + n * np.timedelta64(15, "m") for n in range(8)])
    found = evaluate(rain_judge(), Material("made", frames, times=one_storm), baselines=MOVING)
    assert found.spread.blocks == 1
    days = np.stack([times + n * np.timedelta64(1, "D") for n in range(8)])
    found = evaluate(rain_judge(), Material("made", frames, times=days), baselines=MOVING)
    assert found.spread.blocks == 8
    longer = np.repeat([0, 1, 2, 3], 2)
    found = evaluate(rain_judge(), Material("made", frames, longer=longer), baselines=MOVING)
    assert found.spread.blocks == 4


def test_windows_of_an_archive_are_in_blocks_by_time_or_by_sequence(tmp_path: Path) -> None:
    rain = moving_rain(6)
    frames = np.concatenate([rain[n].repeat(2, axis=0) for n in range(6)])  # (84, 1, 40, 40)
    clock = np.arange(14) * np.timedelta64(5, "m")
    days = np.array(["2020-01-01T22:00", "2020-01-02T00:00", "2020-01-05", "2020-01-06",
                     "2020-01-07T01:00", "2020-01-07T23:00"], "datetime64[s]")  # fmt: skip
    times = (days[:, None] + clock).ravel()
    (tmp_path / "rain").mkdir()
    np.savez(tmp_path / "rain" / "a.npz", frames=frames, time=times, units=np.array("mm h-1"))
    material = archive_material(rain_judge(), path=tmp_path / "rain")
    assert len(material.frames) == 18  # three of each run
    found = evaluate(rain_judge(), material, thresholds=[1.0], scales=[], baselines=MOVING)
    # The first two are one night; the others are more than six hours from each other.
    assert found.spread.blocks == 5
    assert found.spread.known
    (tmp_path / "untimed").mkdir()
    sequences = frames.reshape(6, 14, 1, 40, 40)
    np.savez(tmp_path / "untimed" / "a.npz", frames=sequences, units=np.array("mm h-1"))
    untimed = archive_material(rain_judge(), path=tmp_path / "untimed")
    assert untimed.times is None
    assert untimed.longer is not None
    assert np.bincount(untimed.longer).tolist() == [3] * 6
    found = evaluate(rain_judge(), untimed, thresholds=[1.0], scales=[], baselines=MOVING)
    assert found.spread.blocks == 6
    assert "whole sequences" in found.spread.text


def test_intervals_enclose_the_scores_in_json_and_csv() -> None:
    random = np.random.default_rng(0)
    frames = moving_rain(8) * random.uniform(0.3, 1.2, (8, 1, 1, 1, 1)).astype(np.float32)
    found = evaluate(shifting(rain_judge(), 2), Material("made", frames), thresholds=[2.0])
    document = json.loads(json.dumps(found.document()))
    lines = list(csv.DictReader(found.table().splitlines()))
    for way, scores in document["scores"].items():
        for name in ("csi_2", "pod_2", "far_2", "bias_2", "mse"):
            interval = scores["interval"]["per_lead"][name]
            assert len(interval["low"]) == 3
            for k in range(3):
                low, high = interval["low"][k], interval["high"][k]
                assert low <= scores["per_lead"][name][k] <= high
                line = next(o for o in lines if o["forecast"] == way and o["lead"] == str(k + 1))
                assert (float(line[f"{name}_low"]), float(line[f"{name}_high"])) == (low, high)
            mean = scores["interval"]["mean"][name]
            assert mean["low"] <= scores["mean"][name] <= mean["high"]
        assert "frames" not in scores["interval"]["mean"]
    assert document["scores"][MODEL]["interval"]["mean"]["mse"]["high"] > 0
    assert "shaded: intervals" in html_report(found)


def test_the_better_model_is_said_to_be_better_and_the_same_one_is_not() -> None:
    first, second = paired(shifting(rain_judge(), 3), shifting(rain_judge(), 1))
    frames = moving_rain(8)
    found = evaluate(
        first,
        Material("made", frames),
        thresholds=[5.0],
        scales=[9],
        baselines=MOVING,
        other=second,
    )
    assert list(found.scores) == [MODEL, OTHER, "persistence"]
    found_csi = found.document()["differences"][OTHER]["per_lead"]["csi_5"]
    ours, theirs = (found.scores[way].per_lead["csi_5"] for way in (MODEL, OTHER))
    np.testing.assert_allclose(found_csi["difference"], ours - theirs)
    assert min(found_csi["low"]) > 0
    assert any(
        line.startswith("Beside other, by more than chance: MSE better at 3 of 3 lead times, worse")
        for line in beyond_chance(found)
    )
    page = html_report(found)
    assert "Beside the other model" in page
    assert "<td>better</td>" in page
    same = evaluate(
        first, Material("made", frames), thresholds=[5.0], scales=[], baselines=(), other=first
    )
    assert "MSE better at 0 of 3 lead times, worse at 0" in beyond_chance(same)[1]
    page = html_report(same)
    assert "may be chance" in page
    assert "better</td>" not in page
    worse = evaluate(second, Material("made", frames), baselines=(), other=first)
    assert "MSE better at 0 of 3 lead times, worse at 3" in beyond_chance(worse)[1]


def test_two_models_read_and_predict_the_same_frames() -> None:
    longer = replace(rain_judge(), context=6, horizon=5, forecast=lambda past: persistence(past, 5))
    seen: list[tuple[int, ...]] = []

    def likely(frames: np.ndarray) -> tuple[np.ndarray, Chances]:
        seen.append(frames.shape)
        made = np.array(persistence(frames, 5))
        return made, Chances((1.0,), np.repeat(made[:, :, None], 1, axis=2) * 0)

    first, second = paired(rain_judge(), replace(longer, likely=likely))
    assert (first.context, first.horizon) == (second.context, second.horizon) == (6, 3)
    past = moving_rain(2)[:, :6]
    assert first.forecast(past).shape == second.forecast(past).shape == (2, 3, 1, 40, 40)
    np.testing.assert_array_equal(first.forecast(past)[:, 0], past[:, -1])
    assert second.likely is not None
    made, chances = second.likely(past)
    assert (made.shape[1], chances.values.shape[1]) == (3, 3)
    assert seen == [(2, 6, 1, 40, 40)]


def test_models_that_do_not_fit_are_refused() -> None:
    snow = FrameCodec(quantity="reflectivity", units="dBZ", low=0.0, high=60.0)
    for other, words in (
        (replace(rain_judge(), codec=snow), "a model of dBZ; expected one of the same unit"),
        (replace(rain_judge(), cadence_s=600.0), "a frame every 600 s"),
        (replace(rain_judge(), frame=(2, 40, 40)), "2 channels"),
    ):
        with pytest.raises(UsageError, match=words):
            paired(rain_judge(), other)
    with pytest.raises(UsageError, match="frames of 64x64; expected at most 40x40"):
        on_the_frames_of(rain_judge(64), rain_judge())
    assert on_the_frames_of(rain_judge(), rain_judge(64)).frame == (1, 64, 64)


def test_the_verb_compares_two_bundles(cli: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", digits()[:6, :15])
    words = (
        "evaluate", BUNDLE, "--data", tmp_path / "some.npy", "--compare",
        DATA / "predrnn-digits.bundle", "--thresholds", "0.5", "--baseline", "persistence",
    )  # fmt: skip
    code, out, err = cli(*words, "--out", tmp_path / "out")
    assert code == 0, err
    for text in ("model less other", "other: predrnn", "over 6 blocks", "Beside other, by more"):
        assert text in out
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["other"]["model"].startswith("predrnn")
    np.save(tmp_path / "late.npy", digits()[:6, 5:15])  # the other one reads 5 frames, not 10
    for way, bundle, data in (
        (MODEL, BUNDLE, "some.npy"), (OTHER, DATA / "predrnn-digits.bundle", "late.npy"),
    ):  # fmt: skip
        code, out, err = cli(
            "evaluate", bundle, "--data", tmp_path / data, "--json", "--thresholds", "0.5",
            "--baseline", "persistence", "--horizon", 5,
        )  # fmt: skip
        assert code == 0, err
        alone = json.loads(out)["scores"][MODEL]["mean"]
        assert written["scores"][way]["mean"] == pytest.approx(alone)
    code, _, err = cli("evaluate", BUNDLE, "--compare", BUNDLE)
    assert code == 2
    assert "try: --data D" in err
