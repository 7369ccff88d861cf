"""Scores against numbers worked by hand, scikit-image and pysteps; sums that add up; dry fields."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError
from stpl_core.metrics import mae_per_frame, mse_per_frame
from stpl_core.scores import events, images, spectrum
from stpl_core.scores.accumulator import Accumulator

RAIN = FrameCodec(quantity="rain rate", units="mm h-1", low=0.0, high=40.0)


def pysteps(name: str) -> Any:
    """A module of pysteps, where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"pysteps.{name}", reason="pysteps is for comparison only")


def pair(seed: int = 0, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Forecast and truth `(N, C, H, W)` in [0, 1]."""
    random = np.random.default_rng(seed)
    truth = random.random((3, channels, 20, 17), dtype=np.float32)
    noise = random.normal(0, 0.1, truth.shape).astype(np.float32)
    return np.clip(truth + noise, 0, 1), truth


def rain(seed: int = 0, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Forecast and truth `(N, K, C, H, W)` in mm/h, with dry places."""
    random = np.random.default_rng(seed)
    fields = random.gamma(0.4, 4.0, (2, 4, k, 1, 24, 30)).astype(np.float32)
    fields[fields < 0.1] = 0
    return np.minimum(fields, 40)[0], np.minimum(fields, 40)[1]


def hand() -> tuple[np.ndarray, np.ndarray]:
    """`(1, 1, 3, 3)`: at threshold 1 one hit, two misses, one false alarm."""
    forecast = np.array([[1, 0, 0], [0, 5, 0], [0, 0, 0]], np.float32)
    truth = np.array([[2, 1, 0], [3, 0, 0], [0, 0, 0.5]], np.float32)
    return forecast[None, None], truth[None, None]


def test_events_worked_by_hand() -> None:
    counts = events.contingency(*hand(), thresholds=(1.0, 9.0))
    np.testing.assert_array_equal(counts, [[1, 2, 1], [0, 0, 0]])
    assert events.csi(counts)[0] == 1 / 4
    assert events.pod(counts)[0] == 1 / 3
    assert events.far(counts)[0] == 1 / 2
    for score in (events.csi, events.pod, events.far):
        assert np.isnan(score(counts)[1])  # no event: no score


def test_fss_worked_by_hand() -> None:
    sums = events.fraction_sums(*hand(), thresholds=(1.0, 9.0), scales=(1, 3))
    # Single pixels: 2 events said, 3 seen, 1 of them together.
    np.testing.assert_allclose(events.fss(sums[0, 0]), 2 * 1 / (2 + 3))
    # Events in the 3x3 square around each pixel.
    said = np.array([[2, 2, 1], [2, 2, 1], [1, 1, 1]]) / 9
    seen = np.array([[3, 3, 1], [3, 3, 1], [1, 1, 0]]) / 9
    wanted = 1 - np.square(said - seen).sum() / (np.square(said).sum() + np.square(seen).sum())
    np.testing.assert_allclose(events.fss(sums[0, 1]), wanted, rtol=1e-12)
    assert np.isnan(events.fss(sums[1])).all()


def test_events_as_pysteps() -> None:
    categories, spatial = (
        pysteps("verification.detcatscores"),
        pysteps("verification.spatialscores"),
    )
    forecast, truth = (frames[:, 0] for frames in rain())  # (N, C, H, W)
    scales = (1, 3, 4, 11, 40)
    counts = events.contingency(forecast, truth, (1.0,))
    theirs = categories.det_cat_fct_init(1.0)
    categories.det_cat_fct_accum(theirs, forecast[:, 0], truth[:, 0])
    for name, score in (("CSI", events.csi), ("POD", events.pod), ("FAR", events.far)):
        wanted = categories.det_cat_fct_compute(theirs, name)[name]
        assert float(score(counts)[0]) == pytest.approx(wanted, abs=1e-6)
    sums = events.fraction_sums(forecast, truth, (1.0,), scales)
    for m, scale in enumerate(scales):
        fss = spatial.fss_init(1.0, scale)
        for n in range(len(truth)):
            spatial.fss_accum(fss, forecast[n, 0], truth[n, 0])
        assert float(events.fss(sums[0, m])) == pytest.approx(spatial.fss_compute(fss), abs=1e-6)


def test_spectrum_as_pysteps() -> None:
    spectral = pysteps("utils.spectral")
    for side in (20, 17):
        frames = pair(channels=1)[0][..., :side, :]
        ours = spectrum.radial_power(frames)
        theirs = sum(spectral.rapsd(frame[0], fft_method=np.fft) for frame in frames)
        assert len(ours) == spectrum.wave_count(*frames.shape[2:])
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_wave_has_its_power_at_its_number() -> None:
    x = np.arange(32)
    wave = np.cos(2 * np.pi * 5 * x / 32, dtype=np.float32)[None].repeat(32, axis=0)
    power = spectrum.radial_power(wave[None, None])
    assert int(power.argmax()) == 5
    assert power[[0, 2, 3, 4, 6, 7, 8]].max() < 1e-6 * power[5]


def test_bands_of_the_spectrum_as_pysteps() -> None:
    spectral = pysteps("utils.spectral")
    forecast, truth = (frames[:, :1] for frames in rain(k=1))
    for width in (24, 23):  # square, and an odd longer side
        pair_ = forecast[..., :width], truth[..., :width]
        sums = Accumulator(1, RAIN)
        sums.update(*pair_)
        theirs = []
        for frames in pair_:
            one = [
                spectral.rapsd(f[0, 0] / 40, fft_method=np.fft, return_freq=True) for f in frames
            ]
            power, frequency = sum(pair[0] for pair in one), one[0][1]
            length = 1 / np.maximum(frequency, 1e-9)
            theirs.append([power[(length >= low) & (length < high)].sum()
                           for low, high in spectrum.BANDS])  # fmt: skip
        found = sums.result().overall
        for n, name in enumerate(("rapsd_2-4px", "rapsd_4-16px", "rapsd_16-64px")):
            assert found[name] == pytest.approx(theirs[0][n] / theirs[1][n], rel=1e-6)


def test_a_smoothed_forecast_has_lost_its_short_waves() -> None:
    _, truth = rain()
    smooth = truth.copy()
    for axis in (-1, -2):
        smooth = sum(np.roll(smooth, n, axis) for n in range(-1, 2)) / 3
    sums = Accumulator(3, RAIN)
    sums.update(smooth, truth)
    found = sums.result()
    assert (found.per_lead["rapsd_2-4px"] < 0.2).all()
    assert (found.per_lead["rapsd_2-4px"] < found.per_lead["rapsd_4-16px"]).all()
    assert found.overall["rapsd_16-64px"] < 1
    tiny = Accumulator(3, RAIN)
    tiny.update(truth[..., :6, :6], truth[..., :6, :6])
    assert np.isnan(tiny.result().overall["rapsd_16-64px"])  # no such wave fits
    assert tiny.result().overall["rapsd_2-4px"] == 1


@pytest.mark.parametrize("form", ["float", "uint8"])
def test_ssim_and_psnr_as_scikit_image(form: str) -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is for development")
    forecast, truth = pair()
    if form == "uint8":
        a, b, span = images.as_bytes(forecast), images.as_bytes(truth), 255
    else:
        a, b, span = forecast.astype(np.float64), truth.astype(np.float64), 1
    ssim, psnr = images.ssim(a, b, span), images.psnr(a, b, span)
    for n in range(len(truth)):
        theirs = skimage.structural_similarity(a[n], b[n], data_range=span, channel_axis=0)
        assert ssim[n] == pytest.approx(theirs, abs=1e-6)
        theirs = skimage.peak_signal_noise_ratio(b[n], a[n], data_range=span)
        assert psnr[n] == pytest.approx(theirs, abs=1e-6)


def test_bytes_are_cut_off_as_in_the_papers_code() -> None:
    values = np.array([-0.5, 0.0, 0.999, 254.9 / 255, 1.0, 2.0], np.float32)
    assert images.as_bytes(values).tolist() == [0, 0, 254, 254, 255, 255]


def test_cross_entropy_worked_by_hand() -> None:
    truth = np.array([[[[0.0, 1.0], [0.5, 1.0]]]], np.float32)
    forecast = np.array([[[[0.0, 0.5], [0.25, 0.0]]]], np.float32)
    half = -0.5 * (np.log(0.25) + np.log(0.75))
    wanted = -np.log1p(-images.STATE_EPSILON) + np.log(2) + half - np.log(images.STATE_EPSILON)
    assert images.cross_entropy(forecast, truth)[0] == pytest.approx(wanted, rel=1e-12)


def test_what_is_masked_changes_nothing() -> None:
    forecast, truth = rain()
    valid = np.ones((4, 24, 30), bool)
    valid[:, :, 22:] = False
    part = Accumulator(3, RAIN, (0.1, 5.0))
    part.update(forecast[..., :22], truth[..., :22])
    other_forecast, other_truth = forecast.copy(), truth.copy()
    other_forecast[..., 22:], other_truth[..., 22:] = 39, np.nan
    for given in (valid, None):  # given by the mask, or by NaN in the truth
        whole = Accumulator(3, RAIN, (0.1, 5.0))
        whole.update(other_forecast, other_truth, given)
        ours, wanted = whole.result().per_lead, part.result().per_lead
        assert ours.keys() == wanted.keys()
        for name in ours:
            if not name.startswith("rapsd"):  # a narrower frame has other waves
                np.testing.assert_allclose(ours[name], wanted[name], rtol=1e-9, err_msg=name)


def test_nothing_observed_is_nan_everywhere() -> None:
    forecast, truth = rain()
    empty = Accumulator(3, RAIN, (1.0,), (3,))
    empty.update(forecast, truth, np.zeros((4, 24, 30), bool))
    result = empty.result()
    for name, values in result.per_lead.items():
        assert (values == 0).all() if name == "frames" else np.isnan(values).all(), name


def test_parts_merged_equal_one_pass() -> None:
    forecast, truth = rain()
    valid = np.random.default_rng(1).random((4, 24, 30)) > 0.05
    whole = Accumulator(3, RAIN, (0.1, 1.0, 100.0), (3, 8))
    whole.update(forecast, truth, valid)
    left, right = (Accumulator(3, RAIN, (0.1, 1.0, 100.0), (3, 8)) for _ in range(2))
    left.update(forecast[:1], truth[:1], valid[:1])
    right.update(forecast[1:3], truth[1:3], valid[1:3])
    right.update(forecast[3:], truth[3:], valid[3:])
    left.merge(right)
    one, many = whole.result(), left.result()
    for name, values in one.per_lead.items():
        np.testing.assert_allclose(many.per_lead[name], values, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(many.overall[name], one.overall[name], rtol=1e-12)
        if name.startswith(("csi", "pod", "far")):  # whole numbers: the very same
            np.testing.assert_array_equal(many.per_lead[name], values)
    np.testing.assert_allclose(many.spectra.forecast, one.spectra.forecast, rtol=1e-12)
    assert np.isnan(one.overall["csi_100"])


def test_counts_are_added_up_and_not_their_scores() -> None:
    forecast, truth = (frames[None] for frames in hand())  # (1, 1, 1, 3, 3)
    perfect = np.full_like(truth, 2.0)
    sums = Accumulator(1, RAIN, (1.0,))
    sums.update(forecast, truth)
    sums.update(perfect, perfect)
    assert sums.result().overall["csi_1"] == 10 / 13  # not the mean of 1/4 and 1


def test_pixel_scores_are_the_papers_sums() -> None:
    random = np.random.default_rng(3)
    forecast, truth = random.random((2, 5, 4, 2, 9, 8), dtype=np.float32)
    sums = Accumulator(4, FrameCodec())
    sums.update(forecast, truth)
    result = sums.result()
    np.testing.assert_allclose(result.per_lead["mse"], mse_per_frame(forecast, truth))
    np.testing.assert_allclose(result.per_lead["mae"], mae_per_frame(forecast, truth))
    first = mse_per_frame(forecast[:, :, :1], truth[:, :, :1])
    np.testing.assert_allclose(result.per_lead["mse_channel_0"], first)
    assert result.overall["mse"] == pytest.approx(result.per_lead["mse"].mean())
    np.testing.assert_allclose(
        result.per_lead["rmse"], np.sqrt(result.per_lead["mse"] / (2 * 9 * 8))
    )


def test_a_unit_scales_rmse_alone() -> None:
    forecast, truth = rain()
    physical, plain = Accumulator(3, RAIN), Accumulator(3, FrameCodec())
    physical.update(forecast, truth)
    plain.update(forecast / 40, truth / 40)
    ours, theirs = physical.result().per_lead, plain.result().per_lead
    for name in ("mse", "mae", "psnr", "ssim"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)
    np.testing.assert_allclose(ours["rmse"], 40 * theirs["rmse"], rtol=1e-4)
    assert "cross_entropy" not in ours


def test_identical_frames_have_no_psnr_to_average() -> None:
    _, truth = rain()
    sums = Accumulator(3, RAIN, (1.0,))
    sums.update(truth, truth)
    result = sums.result()
    assert np.isnan(result.per_lead["psnr"]).all()
    assert (result.per_lead["csi_1"] == 1).all()
    np.testing.assert_allclose(result.per_lead["ssim"], 1)


def test_what_does_not_fit_is_refused() -> None:
    forecast, truth = rain()
    sums = Accumulator(3, RAIN)
    with pytest.raises(FrameError, match="at least one"):
        sums.result()
    for wrong in (forecast[:, :2], forecast[:1], forecast[0]):
        with pytest.raises(FrameError, match="shape"):
            sums.update(wrong, truth)
    with pytest.raises(FrameError, match="mask"):
        sums.update(forecast, truth, np.ones((4, 24), bool))
    with pytest.raises(FrameError, match="same --thresholds"):
        sums.merge(Accumulator(3, RAIN, (1.0,)))


def test_frames_smaller_than_the_window_have_no_ssim() -> None:
    small = np.zeros((2, 1, 6, 9), np.float32)
    assert np.isnan(images.ssim(small, small, 1.0)).all()


def test_the_bias_counts_events_and_adds_up_errors() -> None:
    truth = np.zeros((1, 2, 1, 4, 4), np.float32)
    truth[:, :, :, :2] = 4.0  # 8 events in each frame
    forecast = np.zeros_like(truth)
    forecast[:, 0, :, :1] = 2.0  # 4 events, 8 less than observed in 8 pixels of 16
    forecast[:, 1] = 4.0  # 16 events
    codec = FrameCodec(quantity="rain rate", units="mm h-1", low=0.0, high=60.0)
    scores = Accumulator(2, codec, (1.0,))
    scores.update(forecast, truth)
    found = scores.result()
    np.testing.assert_array_equal(found.per_lead["bias_1"], [0.5, 2.0])
    assert found.overall["bias_1"] == 20 / 16
    np.testing.assert_allclose(found.per_lead["mean_error"], [(4 * 2 - 8 * 4) / 16, 2.0])
