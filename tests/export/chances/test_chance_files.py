"""Chances of events in the files of predict and of sinks."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.grid import Grid
from stpl_deploy.cli import run
from stpl_runtime.chances import thresholds_of
from stpl_runtime.engine import open_session
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.predict import predict_with_chances
from stpl_runtime.sinks.summary import summary
from tests.export.chances.small_advect import (
    CONTEXT,
    FRAME,
    HORIZON,
    by_torch,
    contexts,
    small,
)


def test_predict_writes_them_as_cf_says(
    bundle: Bundle, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xr = pytest.importorskip("xarray")
    out = tmp_path / "nowcast.nc"
    words = ["predict", str(bundle.path), str(saved), "--out", str(out), "--probabilities"]
    assert run(words) == 0, capsys.readouterr().err
    assert "chances of rain rate at or above 0.1585, 1.778 mm h-1" in capsys.readouterr().out
    inside = bundle.manifest.codec.model_from_physical(contexts(bundle, 1))
    _, expected = by_torch(small(), inside, HORIZON)
    with xr.open_dataset(out) as found:
        chance = found["probability_of_exceedance"]
        assert chance.dims == ("threshold", "step", "y", "x")
        assert chance.attrs["units"] == "1"
        assert found["threshold"].attrs["units"] == "mm h-1"
        np.testing.assert_allclose(found["threshold"], thresholds_of(bundle.manifest))
        np.testing.assert_allclose(
            chance.values, np.moveaxis(expected[0, :, :, 0], 1, 0), atol=2e-4
        )
        some = chance.sel(threshold=1.778, method="nearest")
        assert some.shape == (HORIZON, *FRAME[1:])


def test_predict_without_the_option_is_as_it_was(
    bundle: Bundle, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plain.npz"
    assert run(["predict", str(bundle.path), str(saved), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thresholds"] is None
    with np.load(out) as made:
        assert "probability_of_exceedance" not in made.files


def test_what_cannot_be_is_refused(
    bundle: Bundle, saved: Path, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(saved), "--probabilities", "--out"]
    assert run(["predict", str(bundle.path), *words, str(tmp_path / "a.png")]) == 2
    err = capsys.readouterr().err
    assert "a.png, which has no room for them; expected" in err
    assert ".nc" in err
    other = root / "tests" / "data" / "convlstm-tiny.bundle"
    still = tmp_path / "still.npy"
    np.save(still, np.zeros((8, *open_bundle(other).manifest.frame), np.float32))
    words[0] = str(still)
    assert run(["predict", str(other), *words, str(tmp_path / "a.nc")]) == 2
    assert "the model convlstm of this bundle gives no chances" in capsys.readouterr().err


def nowcast_with_chances(bundle: Bundle) -> Nowcast:
    frames = contexts(bundle, 1)
    session = open_session(bundle, ("step",))
    made, chances = predict_with_chances(bundle, session, frames, HORIZON)
    session.close()
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    observed = np.ones(FRAME[1:], bool)
    observed[:5] = False
    grid = Grid(crs_wkt="", affine=(0.0, 0.0, 1000.0, -1000.0), height=32, width=48)
    return Nowcast(
        frames=made[0],
        context=frames[0],
        units="mm h-1",
        quantity="rain rate",
        low=0.0,
        high=100.0,
        issue_time=start,
        cadence_s=300.0,
        context_times=tuple(start - timedelta(minutes=5 * n) for n in range(CONTEXT))[::-1],
        observed=observed,
        grid=grid,
        chances=replace(chances, values=chances.values[0]),
    )


def test_geotiff_has_a_band_for_each_threshold_and_lead_time(
    bundle: Bundle, tmp_path: Path
) -> None:
    rasterio = pytest.importorskip("rasterio")
    from stpl_runtime.sinks.geotiff import geotiff_bytes

    nowcast = nowcast_with_chances(bundle)
    assert nowcast.chances is not None
    (tmp_path / "a.tif").write_bytes(geotiff_bytes(nowcast))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.count == 3 * HORIZON
        band = 2 * HORIZON + 2  # of the second threshold, +10 min
        assert file.descriptions[band - 1] == "P(>= 1.778 mm h-1) 2024-01-01T00:10:00Z"
        assert file.units[band - 1] == "1"
        assert file.tags(band)["threshold"] == "1.778"
        assert file.tags(band)["lead_time_s"] == "600"
        values = file.read(band)
    assert np.isnan(values[:5]).all()
    np.testing.assert_array_equal(values[5:], nowcast.chances.values[1, 1, 0, 5:])


def test_zarr_npz_and_json_have_them(bundle: Bundle, tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    from stpl_runtime.sinks.npz import npz_bytes
    from stpl_runtime.sinks.zarr import ZARR

    nowcast = nowcast_with_chances(bundle)
    assert nowcast.chances is not None
    values = nowcast.chances.values
    ZARR.write(tmp_path / "a.zarr", nowcast)
    with xr.open_zarr(tmp_path / "a.zarr") as found:
        chance = found["probability_of_exceedance"]
        assert chance.dims == ("threshold", "time", "y", "x")
        assert np.isnan(chance.values[..., :5, :]).all()
        np.testing.assert_array_equal(chance.values[1, 2, 5:], values[2, 1, 0, 5:])
    (tmp_path / "a.npz").write_bytes(npz_bytes(nowcast))
    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["probability_of_exceedance"], values)
        np.testing.assert_allclose(archive["thresholds"], thresholds_of(bundle.manifest))
    (line,) = (summary(nowcast)["leads"][2]["chances"][1:],)
    (entry,) = line
    assert entry["threshold"] == thresholds_of(bundle.manifest)[1]
    assert entry["mean"] == pytest.approx(float(values[2, 1, 0, 5:].mean()), rel=1e-5)
    assert entry["max"] == pytest.approx(float(values[2, 1, 0, 5:].max()))
    assert "chances" not in summary(replace(nowcast, chances=None))["leads"][0]
