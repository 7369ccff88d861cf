"""`stpl-deploy demo --radar`: its rain is KNMI's own, in its place; the page shows the nowcasts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("netCDF4")

from stpl_core.errors import UsageError
from stpl_core.readers.opening import open_frames
from stpl_deploy.cli import demo
from stpl_deploy.demo import radar

ROOT = Path(__file__).parents[2]
KNMI = ROOT.parent / "shared" / "data" / "radar" / "knmi_hdf5" / "201008"


def test_two_sequences_are_one() -> None:
    frames, times = radar.rain()
    assert frames.shape == (19, 1, 192, 192)
    assert (np.diff(times) == radar.CADENCE).all()
    assert 0.2 < np.isnan(frames).mean() < 0.4
    steps = frames[~np.isnan(frames)] / 0.12
    assert np.abs(steps - np.round(steps)).max() < 1e-3
    # Rain moves: each frame is nearer to the next one than to the one after.
    there = np.nan_to_num(frames[:, 0])
    near = [np.abs(a - b).mean() for a, b in pairwise(there)]
    far = [np.abs(a - b).mean() for a, b in zip(there, there[2:], strict=False)]
    assert max(near) < min(far)


def test_the_files_are_read_as_a_service_writes_them(tmp_path: Path) -> None:
    written = radar.write_rain(tmp_path / "radar")
    assert [path.name for path in (written[0], written[-1])] == [
        "201008260350.nc",
        "201008260520.nc",
    ]
    found = open_frames(tmp_path / "radar")
    assert found.attrs["cadence_s"] == 300.0
    assert found.attrs["licence"] == "CC BY 4.0"
    assert found["frames"].attrs["units"] == "mm h-1"
    assert int(found["sequence"].max()) == 0
    np.testing.assert_array_equal(found["frames"].values, radar.rain()[0])


@pytest.mark.skipif(not KNMI.is_dir(), reason="no radar of KNMI in ../shared/data")
def test_it_is_what_knmi_observed_there(tmp_path: Path) -> None:
    radar.write_rain(tmp_path / "radar")
    ours = open_frames(tmp_path / "radar")
    for file in ("201008260350", "201008260520"):
        theirs = open_frames(KNMI / f"RAD_NL25_RAP_5min_{file}.h5")
        time = theirs["time"].values[0]
        part = theirs["frames"].sel(x=ours["x"], y=ours["y"]).values[0, 0] * 12.0  # mm/5 min
        made = ours["frames"].sel(time=time).values[0]
        assert (np.isnan(made) == np.isnan(part)).all()
        # What fell below 0.1 mm/h is no rain to the model.
        np.testing.assert_allclose(np.nan_to_num(made), np.nan_to_num(part), atol=1e-3)


def test_it_trains_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trains nothing"):
        demo.demo(out=tmp_path / "demo", radar=True, settings=["training.iterations=2"])
    assert not (tmp_path / "demo").exists()
