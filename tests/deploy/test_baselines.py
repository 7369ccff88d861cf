"""Baselines: exact where motion is exact, zeros where it is dry, and as measured on real radar."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from stpl_deploy.baselines import DAY, _motion, flow, periodic, persistence
from stpl_deploy.rain import rate_from_dbz
from stpl_deploy.scores import events

RADAR = Path(__file__).parents[2].parent / "shared" / "data" / "radar"
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


def fmi() -> np.ndarray:
    from stpl_deploy.readers.opening import open_frames

    data = open_frames(RADAR / "fmi_pgm")
    dbz, wet = data["frames"].values[:, 0], data["state"].values == 0
    rate = np.where(np.isnan(dbz), np.nan, np.float32(0))
    rate[wet] = rate_from_dbz(dbz[wet], (223.0, 1.53))
    return rate.astype(np.float32)


def knmi() -> np.ndarray:
    from stpl_deploy.readers.opening import open_frames

    data = open_frames(RADAR / "knmi_hdf5")
    return np.asarray(data["frames"].values[:, 0] * 12, np.float32)  # mm in 5 minutes to mm/h


MEASURED = {
    "fmi": (fmi, range(3, 28, 6), "pyproj", [
        [0.902, 0.668, 0.393], [0.833, 0.518, 0.213],
        [0.759, 0.403, 0.110], [0.669, 0.283, 0.044]]),
    "knmi": (knmi, range(11, 80, 12), "h5py", [
        [0.905, 0.772, 0.480], [0.806, 0.574, 0.182],
        [0.700, 0.434, 0.055], [0.558, 0.298, 0.008]]),
}  # fmt: skip
"""CSI at each lead and threshold of pysteps 1.21, Lucas-Kanade flow with its extrapolation, from
these origins and on the same pixels."""


@pytest.mark.slow
@pytest.mark.usefixtures("_opencv")
@pytest.mark.parametrize("name", MEASURED)
def test_flow_is_as_good_as_pysteps_on_real_radar(name: str) -> None:
    read, origins, library, pysteps = MEASURED[name]
    if not RADAR.is_dir():
        pytest.skip("the radar files are not here")
    pytest.importorskip(library)
    pytest.importorskip("xarray")
    rates = read()[:, None]  # (time, 1, H, W)
    counts = np.zeros((len(LEADS), len(THRESHOLDS), 3))
    for origin in origins:
        moved = flow(rates[None, origin - 3 : origin + 1], 12, "mm h-1")[0]
        seen = np.isfinite(rates[origin - 3 : origin + 13]).all(axis=(0, 1))[None]
        for n, lead in enumerate(LEADS):
            truth = rates[None, origin + lead]
            counts[n] += events.contingency(moved[None, lead - 1], truth, THRESHOLDS, seen)
    found = events.csi(counts)
    assert (found > np.subtract(pysteps, 0.02)).all(), found
    # Our motion is the better one (see the next test); much better would be a look ahead.
    assert (found < np.add(pysteps, 0.03)).all(), found


@pytest.mark.slow
@pytest.mark.usefixtures("_opencv")
@pytest.mark.parametrize("name", MEASURED)
def test_flow_moves_as_pysteps_does_along_the_same_motion(name: str) -> None:
    import cv2

    read, origins, library, _ = MEASURED[name]
    if not RADAR.is_dir():
        pytest.skip("the radar files are not here")
    pytest.importorskip(library)
    pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("pysteps.extrapolation.semilagrangian")
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rates = np.nan_to_num(read()[:, None])  # (time, 1, H, W)
    origin, leads = origins[0], LEADS[:3]
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
    from stpl_deploy.readers.opening import open_frames
    from stpl_deploy.scores import images

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
