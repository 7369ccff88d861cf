"""Ensembles that predict draws from chances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import stpl_deploy
from stpl_core.bundle import Bundle, open_bundle
from stpl_core.errors import EnvironmentFault
from stpl_deploy.cli import run
from stpl_runtime.forecast_memory import ForecastMemory, plan_memory
from tests.export.chances.small_advect import (
    FRAME,
    HORIZON,
    contexts,
)


def test_predict_writes_an_ensemble_as_cf_says(
    bundle: Bundle, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xr = pytest.importorskip("xarray")
    out = tmp_path / "nowcast.nc"
    words = ["predict", str(bundle.path), str(saved), "--members", "4", "--seed", "7"]
    assert run([*words, "--out", str(out)]) == 0, capsys.readouterr().err
    assert "ensemble: 4 members, seed 7" in capsys.readouterr().out
    with xr.open_dataset(out) as found:
        members = found["members"]
        assert members.dims == ("realization", "step", "y", "x")
        assert members.attrs["units"] == "mm h-1"
        assert found["realization"].attrs["standard_name"] == "realization"
        assert found["realization"].values.tolist() == [1, 2, 3, 4]
        assert "probability_of_exceedance" not in found
        assert "4 members, seed 7" in str(found.attrs)
        drawn = members.values
    assert len(np.unique(drawn.reshape(4, -1), axis=0)) == 4
    made = stpl_deploy.load(bundle.path, engine="onnx", threads=1).nowcast(
        contexts(bundle, 1)[0], members=6, seed=7, probabilities=True
    )
    assert made.members is not None
    np.testing.assert_allclose(made.members[:4, :, 0], drawn, rtol=1e-3, atol=1e-3)
    assert made.chances is not None
    for q, threshold in enumerate(made.chances.thresholds):
        never = made.chances.values[:, q] < 1e-6  # (K, C, H, W)
        assert not (made.members >= threshold)[:, never].any()


def test_many_sequences_have_an_ensemble_each(bundle: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "many.npy", tmp_path / "many.npz"
    np.save(source, contexts(bundle, 2))
    words = ["predict", str(bundle.path), str(source), "--out", str(out), "--members", "3"]
    assert run(words) == 0
    with np.load(out) as made:
        assert made["members"].shape == (2, 3, HORIZON, *FRAME)
        assert "3 members, seed 0" in str(made["made_by"])


@pytest.mark.parametrize(
    ("words", "out", "message"),
    [
        (["--members", "3"], "a.tif", "--members 3 with --out"),
        (["--members", "3"], "a.png", ".nc, .zarr; try: --out"),
        (["--seed", "3"], "a.nc", "--seed 3 without --members"),
        (["--members", "1"], "a.nc", "--members"),
        (["--members", "3", "--baseline", "persistence"], "a.nc", "--members 3 with --baseline"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(
    words: list[str],
    out: str,
    message: str,
    bundle: Bundle,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["predict", str(bundle.path), str(saved), *words, "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / out).exists()


@pytest.mark.usefixtures("exported_once")  # by the export that is advised
def test_a_model_without_chances_has_no_ensemble(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = root / "tests" / "data" / "convlstm-tiny.bundle"
    still = tmp_path / "still.npy"
    np.save(still, np.zeros((8, *open_bundle(other).manifest.frame), np.float32))
    words = ["predict", str(other), str(still), "--members", "5", "--out", str(tmp_path / "a.nc")]
    assert run(words) == 2
    err = capsys.readouterr().err
    assert "--members 5, and the model convlstm of this bundle gives no chances" in err
    assert "stpl-deploy export pretrained:radar-nowcast" in err


def test_the_plan_counts_members_and_says_how_many_fit(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"step": 1}

    def needed(members: int) -> float:
        planned = ForecastMemory(bundle, (512, 512), None, 1, values, chances=True, members=members)
        return planned.bytes(HORIZON)

    assert needed(1000) - needed(0) > 1000 * HORIZON * 512 * 512 * 4
    monkeypatch.setattr("stpl_core.host.memory.memory_room_bytes", lambda: int(needed(500)))
    with pytest.raises(EnvironmentFault, match=r"512x512 .*with 1000 members") as refused:
        plan_memory(bundle, "onnx", HORIZON, (512, 512), chances=True, members=1000)
    found = int(str(refused.value.fix).split("--members ")[1].split()[0].rstrip(",;"))
    assert 300 < found < 500
