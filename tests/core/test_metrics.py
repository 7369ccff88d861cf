"""Scores against numbers worked by hand, and against scikit-image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stpl_core.baselines import persistence
from stpl_core.errors import FrameError
from stpl_core.metrics import mae_per_frame, mse_per_frame, psnr_db


def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.random((3, 4, 2, 16, 12), dtype=np.float32)
    noise = random.normal(0, 0.05, truth.shape).astype(np.float32)
    return truth + noise, truth  # (N, K, C, H, W)


def test_numbers_worked_by_hand() -> None:
    truth = np.zeros((2, 2, 1, 2, 2), np.float32)
    forecast = truth.copy()
    forecast[0, 0, 0] = [[0.5, 0.0], [0.0, -0.5]]  # squares sum to 0.5, absolutes to 1
    forecast[1, 0, 0] = [[1.0, 0.0], [0.0, 0.0]]  # 1 and 1
    forecast[:, 1] = 0.1  # four pixels: 0.04 and 0.4
    np.testing.assert_allclose(mse_per_frame(forecast, truth), [0.75, 0.04], rtol=1e-6)
    np.testing.assert_allclose(mae_per_frame(forecast, truth), [1.0, 0.4], rtol=1e-6)
    # Mean squares 1.5 / 8 and 0.01.
    np.testing.assert_allclose(psnr_db(forecast, truth), [7.2699873, 20.0], rtol=1e-6)
    np.testing.assert_allclose(psnr_db(forecast, truth, peak=10.0), [27.2699873, 40.0], rtol=1e-6)


def test_psnr_as_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is for development")
    forecast, truth = pair()
    ours = psnr_db(forecast, truth)
    for k, value in enumerate(ours):
        theirs = skimage.peak_signal_noise_ratio(
            truth[:, k].astype(np.float64), forecast[:, k].astype(np.float64), data_range=1.0
        )
        assert value == pytest.approx(theirs, rel=1e-12)


def test_identical_frames_have_an_infinite_psnr() -> None:
    _, truth = pair()
    assert np.isposinf(psnr_db(truth, truth)).all()


def test_many_small_errors_are_summed_in_double_precision() -> None:
    truth = np.zeros((1, 1, 1, 2048, 2048), np.float32)
    forecast = np.full_like(truth, 1e-4)
    expected = truth.size * float(np.float32(1e-4)) ** 2
    assert mse_per_frame(forecast, truth)[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("score", [mse_per_frame, mae_per_frame, psnr_db])
def test_shapes_are_never_stretched(score: Callable[..., np.ndarray]) -> None:
    forecast, truth = pair()
    for other in (truth[:1], truth[:, :1], truth[0]):
        with pytest.raises(FrameError, match="shape"):
            score(forecast, other)


def test_persistence_repeats_the_last_frame() -> None:
    _, context = pair()
    repeated = persistence(context, 5)
    assert repeated.shape == (3, 5, 2, 16, 12)
    for k in range(5):
        np.testing.assert_array_equal(repeated[:, k], context[:, -1])
