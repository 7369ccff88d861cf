"""examples/blend_with_pysteps.py: a bundle by its name in pysteps, and in pysteps' blending."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("xarray")
pytest.importorskip("pysteps")

import stpl_deploy as stpl
from tests.exported_once import made_once
from tests.rain_bundle import export_rain_bundle

EXAMPLE = Path(__file__).parents[2] / "examples" / "blend_with_pysteps.py"
SIDE, STEPS = 32, 9


def test_a_nowcast_gives_way_to_a_weather_model(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, exported_once: None
) -> None:
    bundle = made_once(tmp_path_factory, "rain", export_rain_bundle) / "bundle"
    rows, columns = np.mgrid[:SIDE, :SIDE]
    rain = np.stack(
        [20 * np.exp(-((rows - 15) ** 2 + (columns - 8 - 2 * t) ** 2) / 40) for t in range(4)]
    )[:, None]
    rain = np.where(rain < 0.1, 0, rain).astype(np.float32)
    times = np.datetime64("2026-01-01T00:00", "s") + np.arange(4) * np.timedelta64(300, "s")
    np.savez(tmp_path / "radar.npz", frames=rain, time=times, units=np.array("mm h-1"))
    weather = np.random.default_rng(0).gamma(0.5, 4.0, (STEPS, SIDE, SIDE))
    np.save(tmp_path / "weather.npy", weather)
    words = [
        EXAMPLE,
        bundle,
        tmp_path / "radar.npz",
        tmp_path / "weather.npy",
        tmp_path / "out.npy",
    ]
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False,
        env=dict(os.environ), timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"nowcast alone: ({STEPS}, {SIDE}, {SIDE})" in done.stdout
    blended = np.load(tmp_path / "out.npy")
    with stpl.load(bundle, engine="onnx") as model:
        alone = model.nowcast(rain[-3:], horizon=STEPS).frames[:, 0]
    np.testing.assert_allclose(blended[:3], np.where(alone[:3] < 0.1, 0, alone[:3]), rtol=1e-4)
    np.testing.assert_allclose(blended[5:], weather[5:], rtol=1e-6)
    for k in (3, 4):
        low, high = np.minimum(alone[k], weather[k]), np.maximum(alone[k], weather[k])
        assert (blended[k] >= np.where(low < 0.1, 0, low) - 1e-4).all()
        assert (blended[k] <= high + 1e-4).all()
        assert not np.allclose(blended[k], weather[k], atol=0.1)
    # Half way between the two, the strong rain of either is kept more than its half.
    assert blended[4].max() > 0.5 * max(alone[4].max(), weather[4].max())
