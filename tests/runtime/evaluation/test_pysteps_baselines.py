"""pysteps' nowcasts as baselines, against calls of pysteps by hand."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stpl_core.codec import FrameCodec
from stpl_core.errors import EnvironmentFault, UsageError
from stpl_core.grid import Grid
from stpl_core.rain import dbz_from_rate, rate_from_dbz
from stpl_runtime.evaluation import pysteps_rain
from stpl_runtime.evaluation.baseline import BASELINES, open_baselines
from stpl_runtime.evaluation.evaluate import evaluate
from stpl_runtime.evaluation.subject import Material, Surroundings

pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")

from tests.runtime.evaluation.test_evaluate import rain_judge

SIDE = 64
WORDS = [word for word in BASELINES if word.startswith("pysteps-")]
PLACED = Grid((0.0, 0.0, 2000.0, -2000.0), SIDE, SIDE, "PROJCRS[...]")


def pysteps(name: str) -> Any:
    """A module of pysteps, where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"pysteps.{name}", reason="pysteps: make venv-compare")


def rain(count: int = 2) -> np.ndarray:
    """`(N, 7, 1, 64, 64)` mm/h: showers with a rough surface, which move two pixels a frame."""
    random = np.random.default_rng(1)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    rough = np.exp(random.normal(0, 0.7, (SIDE, SIDE)))
    frames = np.zeros((count, 7, 1, SIDE, SIDE), np.float32)
    for n in range(count):
        places = random.uniform(5, 50, (6, 2))
        for t in range(7):
            shower = sum(
                12 * np.exp(-((rows - y) ** 2 + (columns - x - 2 * t) ** 2) / 40) for y, x in places
            )
            frames[n, t, 0] = shower * np.roll(rough, 2 * t, axis=1)
    return np.where(frames < 0.1, 0, frames)


def by_hand(word: str, rates: np.ndarray, horizon: int) -> np.ndarray:
    """`(T, H, W)` mm/h -> `(K, H, W)`, as the examples of pysteps go about it."""
    nowcasts, motion = pysteps("nowcasts"), pysteps("motion")
    decibels = np.where(rates < 0.1, -15.0, 10 * np.log10(np.maximum(rates, 1e-9)))
    name = word.removeprefix("pysteps-")
    method = nowcasts.get_method(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        velocity = motion.get_method("lucaskanade")(decibels[-3:])
        if name == "anvil":
            return method(rates[-4:], velocity, horizon, ar_window_radius=25)
        if name == "linda":
            return method(
                rates[-3:], velocity, horizon, max_num_features=15, add_perturbations=False
            )
        if name == "extrapolation":
            made = method(decibels[-1], velocity, horizon)
        elif name == "sprog":
            made = method(decibels[-3:], velocity, horizon, precip_thr=-10.0)
        else:
            made = method(decibels[-3:], velocity, horizon, n_ens_members=20, precip_thr=-10.0,
                          kmperpixel=2.0, timestep=5.0, seed=24)  # fmt: skip
        back = np.where(made < -10, 0, 10 ** (made / 10))
        return back.mean(axis=0) if name == "steps" else back


@pytest.mark.parametrize("word", WORDS)
def test_each_is_what_pysteps_makes_by_hand(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    frames = rain()
    expected = np.stack([by_hand(word, one[:4, 0].astype(float), 3) for one in frames])
    capsys.readouterr()
    material = Material("made", frames, grids=(PLACED, PLACED))
    found = open_baselines(rain_judge(SIDE), material, [word])[word](slice(0, 2))
    assert capsys.readouterr().out == ""  # pysteps prints; --json must stay JSON
    assert found.shape == (2, 3, 1, SIDE, SIDE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found[:, :, 0], np.nan_to_num(np.maximum(expected, 0)), rtol=1e-4, atol=1e-4
    )
    assert found[:, 0].max() > 5
    scored = evaluate(rain_judge(SIDE), material, thresholds=[1.0], scales=[], baselines=[word])
    assert list(scored.scores) == ["model", word]
    assert scored.scores[word].overall["frames"] == 6
    assert scored.scores[word].overall["csi_1"] > 0.3


def test_no_data_is_no_rain_and_dry_stays_dry() -> None:
    pysteps("nowcasts")
    frames = rain(1)
    holed = frames.copy()
    holed[:, :, :, :, :20] = np.nan
    zeroed = np.nan_to_num(holed)
    judged = rain_judge(SIDE)
    word = "pysteps-extrapolation"
    made = [
        open_baselines(judged, Material("made", one), [word])[word](slice(0, 1))
        for one in (holed, zeroed)
    ]
    np.testing.assert_array_equal(*made)
    assert np.isfinite(made[0]).all()
    dry = Material("dry", frames * 0, grids=(PLACED,))
    for each in WORDS:
        assert (open_baselines(judged, dry, [each])[each](slice(0, 1)) == 0).all()


def test_reflectivity_is_moved_as_rain() -> None:
    pysteps("nowcasts")
    frames = rain(1)
    dbz = np.maximum(dbz_from_rate(frames.astype(float)), -32).astype(np.float32)
    codec = FrameCodec(quantity="reflectivity", units="dBZ", low=0.0, high=60.0, clip=True)
    word = "pysteps-extrapolation"
    plain = open_baselines(rain_judge(SIDE), Material("r", frames), [word])[word](slice(0, 1))
    judged = replace(rain_judge(SIDE), codec=codec)
    made = open_baselines(judged, Material("z", dbz), [word])[word](slice(0, 1))
    np.testing.assert_allclose(rate_from_dbz(made), plain, rtol=1e-3, atol=0.01)
    assert made.min() == -32


def test_a_crop_is_cut_from_the_nowcast_of_the_whole_field() -> None:
    pysteps("nowcasts")
    frames = rain(1)
    judged, word = rain_judge(SIDE), "pysteps-extrapolation"
    whole = open_baselines(judged, Material("made", frames), [word])[word](slice(0, 1))
    crop = (slice(10, 50), slice(0, 40))
    around = Surroundings(lambda rows: frames[rows, :4], crop)
    cropped = Material("made", frames[..., 10:50, :40], surroundings=around)
    found = open_baselines(rain_judge(40), cropped, [word])[word](slice(0, 1))
    np.testing.assert_array_equal(found, whole[..., 10:50, :40])


def test_what_it_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pysteps("nowcasts")
    material = Material("made", rain(1))

    def refused(word: str, error: type[Exception], match: str, **judged: Any) -> None:
        with pytest.raises(error, match=match):
            way = open_baselines(replace(rain_judge(SIDE), **judged), material, [word])[word]
            way(slice(0, 1))

    grey = FrameCodec()
    refused("pysteps-sprog", UsageError, "in mm h-1 or dBZ", codec=grey)
    refused("pysteps-anvil", UsageError, "reads 4 frames, and the model reads 3", context=3)
    refused("pysteps-steps", UsageError, "how large a pixel of made is")
    refused("pysteps-step", UsageError, "try: --baseline pysteps-steps")

    def broken(*given: object, **more: object) -> None:
        raise ValueError("not this field")

    monkeypatch.setattr("pysteps.nowcasts.sprog.forecast", broken)
    refused("pysteps-sprog", EnvironmentFault, "failed: ValueError: not this field")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        pysteps_rain.importlib.util, "find_spec",
        lambda name: None if name == "pysteps" else found(name),
    )  # fmt: skip
    refused("pysteps-sprog", EnvironmentFault, "try: pip install pysteps")
    assert "persistence" in open_baselines(rain_judge(SIDE), material, None)
