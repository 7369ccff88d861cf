"""The noise of an ensemble: standard normal everywhere, and like the field in waves and motion."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.codec import Array
from stpl_core.scores.spectrum import radial_power
from stpl_runtime.ensembles.motion import block_motion, paths_back
from stpl_runtime.ensembles.noise import Noise, exceeded_share, noise_of

ndimage, stats = pytest.importorskip("scipy.ndimage"), pytest.importorskip("scipy.stats")

SIZE = (96, 80)


def drifting(steps: int, down: float, right: float, size: tuple[int, int] = SIZE) -> Array:
    """`(steps, H, W)`: smooth blobs that move by so many pixels a frame."""
    draw = np.random.default_rng(3)
    wide = ndimage.gaussian_filter(draw.standard_normal((size[0] + 80, size[1] + 80)), 4)
    frames = [
        ndimage.shift(wide, (down * t, right * t), order=3, mode="wrap")[40:-40, 40:-40]
        for t in range(steps)
    ]
    return np.asarray(np.clip(np.stack(frames) * 3 + 0.2, 0, 1), np.float32)


def draws(noise: Noise, count: int) -> Array:
    """`(2 count, K, H, W)`"""
    made = [np.stack([np.stack(pair) for pair in noise.pairs((n,))], 1) for n in range(count)]
    return np.concatenate(made)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-1.5, 2.25)])
def test_the_motion_is_found_to_a_part_of_a_pixel(down: float, right: float) -> None:
    found = block_motion(drifting(4, down, right))
    np.testing.assert_allclose(found.mean(axis=(1, 2)), (down, right), atol=0.3)


def test_parts_of_a_large_field_have_motions_of_their_own() -> None:
    left, right = drifting(3, 0, 4, (128, 160)), drifting(3, 0, -4, (128, 160))
    motion = block_motion(np.concatenate([left, right], axis=2))
    assert motion[1, :, :40].mean() > 3
    assert motion[1, :, -40:].mean() < -3


def test_a_dry_field_stands_still_and_has_noise_all_the_same() -> None:
    dry = np.zeros((3, 24, 30), np.float32)
    assert not block_motion(dry).any()
    made = draws(noise_of(dry, 2), 2)
    assert np.isfinite(made).all()
    assert made.std() > 0.3


def test_the_edge_of_a_radar_does_not_hold_the_motion_back() -> None:
    frames = drifting(4, 0, 4)
    frames[:, 30:60, 20:26] = frames[:, 10:20, 40:70] = np.nan
    assert block_motion(frames)[1].mean() == pytest.approx(4, abs=0.7)
    assert block_motion(np.where(np.isnan(frames), np.float32(3), frames))[1].mean() < 1


def test_a_path_leads_back_along_the_motion() -> None:
    motion = np.stack([np.full((9, 9), 2.0), np.full((9, 9), -1.0)])
    *_, (rows, columns) = paths_back(motion, 3)
    assert (rows[8, 0], columns[8, 0]) == (2, 3)


@pytest.mark.parametrize("frames", [1, 4])
def test_every_value_is_standard_normal(frames: int) -> None:
    """Over members, at each of some pixels and lead times; judged by scipy."""
    made = draws(noise_of(drifting(frames, 1, 2)[:, :48, :40], 3), 300)
    for k in range(3):
        for pixel in ((0, 0), (20, 31), (47, 39)):
            values = made[(slice(None), k, *pixel)]
            assert stats.kstest(values, "norm").pvalue > 1e-3
    assert made.var(axis=0).mean() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(exceeded_share(made[0, 0]), stats.norm.sf(made[0, 0]), atol=3e-7)


def test_its_waves_are_those_of_the_field_that_is_forgotten() -> None:
    frames = drifting(4, 1, 2)
    noise = noise_of(frames, 1)
    forgets_all = Noise(noise.amplitude, np.zeros_like(noise.memory), noise.paths)
    window = np.outer(np.hanning(SIZE[0]), np.hanning(SIZE[1]))
    expected = radial_power(((frames[-1] - frames[-1].mean()) * window)[None, None])[2:20]
    found = radial_power(draws(forgets_all, 20)[:, :1])[2:20]
    share = np.log(found / found.sum()) - np.log(expected / expected.sum())
    assert np.abs(share).max() < 0.5


def test_long_waves_come_later_and_live_longer() -> None:
    frames = drifting(4, 0, 0)
    rough = np.random.default_rng(0).standard_normal(frames.shape) * 0.05
    noise = noise_of(np.asarray(frames + rough, np.float32), 6)
    across = noise.memory[0, : SIZE[1] // 2]
    assert (np.diff(across) <= 1e-6).all()
    assert across[2] > 0.9 > 0.3 > across[-1]
    made = draws(noise, 30)
    first, last = radial_power(made[:, :1]), radial_power(made[:, -1:])
    assert (first[3:5] / first.sum()).sum() < 0.9 * (last[3:5] / last.sum()).sum()


def test_it_moves_with_the_field() -> None:
    noise = noise_of(drifting(4, 2, -3), 4)
    made = draws(noise, 10)

    def alike(down: int, right: int) -> float:
        before = np.roll(made[:, 2], (down, right), axis=(1, 2))
        return float(np.corrcoef(before.ravel(), made[:, 3].ravel())[0, 1])

    assert alike(2, -3) > 0.8
    assert alike(2, -3) > alike(0, 0) + 0.2


def test_the_seed_alone_decides() -> None:
    noise = noise_of(drifting(3, 1, 1), 3)
    first, again = (np.stack(list(noise.pairs((7, 1)))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, np.stack(list(noise.pairs((7, 2)))))
    shorter = noise_of(drifting(3, 1, 1), 2)
    np.testing.assert_array_equal(first[:2], np.stack(list(shorter.pairs((7, 1)))))
    assert not np.array_equal(first[:, 0], first[:, 1])
