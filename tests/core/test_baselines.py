"""Baselines: exact where motion is exact, zeros where it is dry, and as measured on real radar."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from stpl_core.baselines import DAY, _motion, flow, periodic, persistence
from stpl_core.scores import events

ROOT = Path(__file__).parents[2]
RADAR = ROOT.parent / "shared" / "data" / "radar"
MEASURED = ROOT / "benchmarks" / "results" / "flow-beside-pysteps.json"
THRESHOLDS = (0.1, 1.0, 5.0)
"""mm/h"""
LEADS = (1, 3, 6, 12)
"""5, 15, 30 and 60 minutes."""


@pytest.fixture
def _opencv() -> None:
    pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")


def blob(x: float, y: float, side: int = 48) -> np.ndarray:
    """A smooth hill `(1, side, side)` with its top at (x, y)."""
    rows, columns = np.mgrid[:side, :side]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 40)[None].astype(np.float32)


@pytest.mark.usefixtures("_opencv")
@pytest.mark.parametrize("units", ["1", "mm h-1", "dBZ", "K"])
def test_steady_motion_goes_on(units: str) -> None:
    past = np.stack([blob(12 + 2 * t, 30 - t) for t in range(4)])[None]  # (1, T, 1, H, W)
    future = np.stack([blob(12 + 2 * t, 30 - t) for t in range(4, 9)])[None]
    scale = {"mm h-1": 20.0, "dBZ": 50.0, "K": 10.0}.get(units, 1.0)
    moved = flow(past * scale, 5, units) / scale
    assert moved.shape == future.shape
    error = np.square(moved - future).mean(axis=(0, 2, 3, 4))
    still = np.square(persistence(past, 5) - future).mean(axis=(0, 2, 3, 4))
    assert (error < 0.1 * still).all()


@pytest.mark.usefixtures("_opencv")
@pytest.mark.parametrize("side", [4, 8, 13, 40])
def test_every_size_moves(side: int) -> None:
    random = np.random.default_rng(0)
    context = random.random((2, 3, 2, side, side + 3), dtype=np.float32)
    moved = flow(context, 4)
    assert moved.shape == (2, 4, 2, side, side + 3)
    assert np.isfinite(moved).all()
    assert context.min() <= moved.min()
    assert moved.max() <= context.max()


@pytest.mark.usefixtures("_opencv")
def test_one_frame_has_no_motion() -> None:
    context = blob(10, 10)[None, None]
    np.testing.assert_array_equal(flow(context, 3), persistence(context, 3))


@pytest.mark.usefixtures("_opencv")
@pytest.mark.parametrize(("units", "dry"), [("1", 0), ("mm h-1", 0), ("mm", 0), ("dBZ", -32)])
def test_a_dry_field_stays_dry(units: str, dry: float) -> None:
    context = np.full((2, 4, 1, 24, 30), dry, np.float32)
    for forecast in (flow(context, 6, units), persistence(context, 6)):
        assert forecast.shape == (2, 6, 1, 24, 30)
        assert (forecast == dry).all()


def test_a_dry_week_stays_dry() -> None:
    times = np.datetime64("2020-01-01", "ns") + np.arange(60)[None] * np.timedelta64(1, "h")
    assert (periodic(np.zeros((1, 60, 1, 8, 8), np.float32), times, 6, DAY) == 0).all()


@pytest.mark.usefixtures("_opencv")
def test_rain_does_not_come_from_outside() -> None:
    context = np.stack([blob(4 + 4 * t, 24) for t in range(4)])[None] * 20
    context = np.maximum(context, 3)  # it rains up to the edge
    moved = flow(context, 6, "mm h-1")
    assert moved[0, -1, 0, 24, 0] == 0
    assert flow(context, 6, "K")[0, -1, 0, 24, 0] >= 3


@pytest.mark.usefixtures("_opencv")
def test_what_was_not_observed_is_the_least() -> None:
    context = np.stack([blob(12 + t, 24) for t in range(4)])[None]
    context[..., 40:] = np.nan
    assert np.isfinite(flow(context, 4)).all()
    assert (flow(np.full((1, 3, 1, 16, 16), np.nan, np.float32), 2) == 0).all()


def test_yesterday_is_found_where_it_lies() -> None:
    every = np.arange(100, dtype=np.float32)  # one value an hour
    starts = np.arange(0, 91, 5)
    places = starts[:, None] + np.arange(10)  # windows of 10 that overlap
    frames = every[places][:, :, None, None, None]  # (N, 10, 1, 1, 1)
    times = np.datetime64("2020-01-01", "ns") + places * np.timedelta64(1, "h")
    found = periodic(frames, times, 4, DAY)[:, :, 0, 0, 0]  # (N, 4)
    wanted = every[places[:, -4:]] - 24
    there = wanted >= 0
    np.testing.assert_array_equal(found[there], wanted[there])
    assert np.isnan(found[~there]).all()
    assert there.any()
    assert (~there).any()


def test_nothing_comes_from_the_future() -> None:
    times = np.datetime64("2020-01-01", "ns") + np.arange(10)[None] * np.timedelta64(1, "h")
    frames = np.ones((1, 10, 1, 2, 2), np.float32)
    found = periodic(frames, times, 4, np.timedelta64(2, "h"))[0, :, 0, 0, 0]
    assert np.isfinite(found).tolist() == [True, True, False, False]


SEQUENCES = {"fmi": "pyproj", "knmi": "h5py"}
"""What the reader of each needs."""


def read(name: str) -> np.ndarray:
    """Rain rates `(time, 1, H, W)` in mm/h of a real sequence."""
    if not RADAR.is_dir():
        pytest.skip("the radar files are not here")
    pytest.importorskip(SEQUENCES[name])
    pytest.importorskip("xarray")
    from benchmarks import flow_beside_pysteps

    folder, reader = {
        "fmi": ("fmi_pgm", flow_beside_pysteps.fmi),
        "knmi": ("knmi_hdf5", flow_beside_pysteps.knmi),
    }[name]
    return reader(RADAR / folder)[:, None]


@pytest.mark.slow
@pytest.mark.usefixtures("_opencv")
@pytest.mark.parametrize("name", SEQUENCES)
def test_flow_is_as_good_as_pysteps_on_real_radar(name: str) -> None:
    """Within 0.02 CSI of the better setting, everywhere; benchmarks/flow_beside_pysteps.py."""
    rates = read(name)
    measured = json.loads(MEASURED.read_text())
    assert (measured["lead_minutes"], measured["thresholds_mm_h"]) == (
        [5 * lead for lead in LEADS],
        list(THRESHOLDS),
    )
    sequence = measured["sequences"][name]
    counts = np.zeros((len(LEADS), len(THRESHOLDS), 3))
    for origin in sequence["origins"]:
        moved = flow(rates[None, origin - 2 : origin + 1], 12, "mm h-1")[0]
        seen = np.isfinite(rates[origin - 3 : origin + 13]).all(axis=(0, 1))[None]
        for n, lead in enumerate(LEADS):
            truth = rates[None, origin + lead]
            counts[n] += events.contingency(moved[None, lead - 1], truth, THRESHOLDS, seen)
    found, theirs = events.csi(counts), sequence["csi_everywhere"]
    np.testing.assert_allclose(found, theirs["pysteps_finer"], rtol=0, atol=0.02)
    assert (found > np.subtract(theirs["pysteps"], 0.02)).all(), found


@pytest.mark.slow
@pytest.mark.usefixtures("_opencv")
@pytest.mark.parametrize("name", SEQUENCES)
def test_flow_moves_as_pysteps_does_along_the_same_motion(name: str) -> None:
    import cv2

    rates = np.nan_to_num(read(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("pysteps.extrapolation.semilagrangian")
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    origin, leads = {"fmi": 3, "knmi": 11}[name], LEADS[:3]
    past = rates[origin - 3 : origin + 1]
    way = -np.moveaxis(_motion(past[-3:], "mm h-1", search), -1, 0).astype(np.float64)
    moved = theirs.extrapolate(past[-1, 0].astype(np.float64), way, leads[-1])
    known = np.isfinite(moved)  # it knows nothing of what comes in over the edge
    ours = flow(past[None], leads[-1], "mm h-1")[0]
    counts = np.zeros((2, len(leads), len(THRESHOLDS), 3))
    for k, forecast in enumerate((ours, np.nan_to_num(moved)[:, None].astype(np.float32))):
        for n, lead in enumerate(leads):
            truth, seen = rates[None, origin + lead], known[lead - 1][None]
            counts[k, n] = events.contingency(forecast[None, lead - 1], truth, THRESHOLDS, seen)
    ours_csi, theirs_csi = events.csi(counts)
    # One origin has too little rain above 5 mm/h to say anything.
    np.testing.assert_allclose(ours_csi[:, :2], theirs_csi[:, :2], atol=0.02)


@pytest.mark.slow
def test_scores_as_pysteps_on_real_radar() -> None:
    if not RADAR.is_dir():
        pytest.skip("the radar files are not here")
    pytest.importorskip("xarray")
    pytest.importorskip("pyproj")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        categories = pytest.importorskip("pysteps.verification.detcatscores")
        spatial = pytest.importorskip("pysteps.verification.spatialscores")
    skimage = pytest.importorskip("skimage.metrics")
    from stpl_core.readers.opening import open_frames
    from stpl_core.scores import images

    files = sorted((RADAR / "fmi_pgm").rglob("*.pgm.gz"))[:4:3]
    first, later = (open_frames(path)["frames"].values for path in files)  # (1, 1, H, W) dBZ
    counts = events.contingency(first, later, (23.0,), np.isfinite(first + later)[:, 0])
    theirs = categories.det_cat_fct_init(23.0 - 1e-3)  # pysteps counts what is above
    categories.det_cat_fct_accum(theirs, first[0, 0], later[0, 0])
    wanted = categories.det_cat_fct_compute(theirs, "CSI")["CSI"]
    assert float(events.csi(counts)[0]) == pytest.approx(wanted, abs=1e-6)
    fractions = events.fraction_sums(first, later, (23.0,), (25,))
    fss = spatial.fss_init(23.0, 25)
    spatial.fss_accum(fss, first[0, 0], later[0, 0])
    ours = float(events.fss(fractions[0, 0]))
    assert ours == pytest.approx(spatial.fss_compute(fss), abs=1e-6)
    a, b = (np.clip(np.nan_to_num(dbz, nan=-32) / 60, 0, 1) for dbz in (first, later))
    similarity = skimage.structural_similarity(
        a[0, 0].astype(np.float64), b[0, 0].astype(np.float64), data_range=1.0
    )
    assert images.ssim(a, b, 1.0)[0] == pytest.approx(similarity, abs=1e-6)
