"""Lucas-Kanade and sampling, against scipy and fields whose motion is known."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, uniform_filter

from stpl_train.models.motion import LucasKanade, PixelGrid, area_read, finer, window_mean

SIDE = 128
Floats = NDArray[np.float32]
Places = NDArray[np.float64]


def field(seed: int = 0, blur: float = 4.0) -> Floats:
    """A large smooth texture in [0, 1], half of it nothing."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((400, 400)), blur)
    return np.clip(noise / noise.std() * 0.3, 0, 1).astype(np.float32)


def seen(texture: Floats, rows: Places, columns: Places) -> torch.Tensor:
    """The texture at some places, `(1, 1, H, W)`."""
    values = map_coordinates(texture, [rows, columns], order=3).astype(np.float32)
    return torch.from_numpy(values)[None, None]


def moved(t: float, right: float, down: float, seed: int = 0) -> torch.Tensor:
    """The texture `t` steps on."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    return seen(field(seed), rows + 130 - down * t, columns + 130 - right * t)


def estimate(new: torch.Tensor, old: torch.Tensor, patch: int = 4) -> torch.Tensor:
    height, width = new.shape[2:]
    start = torch.zeros(len(new), 2, height // patch, width // patch)
    found: torch.Tensor = LucasKanade(height, width, patch)(new, old, start)
    return found


@pytest.mark.parametrize(
    ("right", "down"), [(1.3, -0.7), (3.2, 2.1), (0.25, 0.4), (6.0, -4.5), (-9.0, 8.0)]
)
def test_a_translation_is_found_to_a_twentieth_of_a_pixel(right: float, down: float) -> None:
    v = estimate(moved(1, right, down), moved(0, right, down))
    inner = v[0, :, 6:-6, 6:-6]
    error = (inner - torch.tensor([-right, -down]).view(2, 1, 1)).abs()
    assert float(error.mean()) < 0.05
    assert float(error.max()) < 0.25


def test_a_turning_field_has_a_motion_of_its_own_at_every_place() -> None:
    """The texture is read along the turn by scipy's splines; no one motion fits all of it."""
    angle, middle = 0.04, SIDE / 2

    def turned(rows: Places, columns: Places) -> tuple[Places, Places]:
        y, x = rows - middle, columns - middle
        cos, sin = np.cos(angle), np.sin(angle)
        return cos * y - sin * x + middle, sin * y + cos * x + middle

    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    there = turned(rows, columns)
    old = seen(field(), rows + 130, columns + 130)
    new = seen(field(), there[0] + 130, there[1] + 130)
    v = estimate(new, old)[0].numpy()  # (2, 32, 32)
    rows, columns = 4 * np.mgrid[:32, :32] + 1.5  # the patches' centres
    there = turned(rows, columns)
    true = np.stack([there[1] - columns, there[0] - rows])
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert np.ptp(true[inner]) > 3
    assert np.abs(v - true)[inner].mean() < 0.08


def test_the_last_round_sees_what_is_too_small_for_the_smooth_motion() -> None:
    """A drift with waves of 24 pixels in it; the texture is read along them by scipy's splines."""
    wave = 2 * np.pi / 24

    def true(rows: Places, columns: Places) -> Places:
        waves = 0.6 * np.sin(wave * rows), 0.6 * np.cos(wave * columns)
        return np.stack([-2.0 + waves[0], 1.0 + waves[1]])  # to the right and down

    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    right, down = true(rows, columns)
    texture = field(blur=2.0)
    old = seen(texture, rows + 130, columns + 130)
    new = seen(texture, rows + down + 130, columns + right + 130)
    smooth = estimate(new, old)
    fine = finer(PixelGrid(SIDE, SIDE), 4, new, old, smooth)
    rows, columns = 4 * np.mgrid[:32, :32] + 1.5
    inner = (slice(None), slice(6, -6), slice(6, -6))
    wrong = [np.abs(v[0].numpy() - true(rows, columns))[inner].mean() for v in (smooth, fine)]
    assert wrong[1] < 0.8 * wrong[0]


@pytest.mark.parametrize(
    ("turn", "sign", "swap"),
    [
        (lambda f: f.flip(-1), (-1, 1), False),
        (lambda f: f.flip(-2), (1, -1), False),
        (lambda f: f.transpose(-1, -2), (1, 1), True),
    ],
    ids=["columns reversed", "rows reversed", "transposed"],
)
def test_motion_turns_with_the_field(turn, sign, swap: bool) -> None:  # type: ignore[no-untyped-def] # lambdas
    new, old = moved(1, 3.2, 2.1), moved(0, 3.2, 2.1)
    v = turn(estimate(new, old)) * torch.tensor(sign).view(1, 2, 1, 1)
    expected = v.flip(1) if swap else v
    torch.testing.assert_close(estimate(turn(new), turn(old)), expected, rtol=0, atol=2e-3)


def test_nothing_to_see_is_no_motion() -> None:
    for value in (0.0, 0.7):
        still = torch.full((2, 3, 64, 64), value)
        v = estimate(still, still)
        assert v.isfinite().all()
        assert float(v.abs().max()) < 1e-4
    appears = torch.zeros(1, 1, 64, 64)
    appears[..., 20:30, 20:30] = 1.0
    assert estimate(appears, torch.zeros(1, 1, 64, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(59, 59, 1), (100, 100, 5), (8, 8, 2), (72, 40, 4)]
)
def test_any_size_is_padded(height: int, width: int, patch: int) -> None:
    new, old = moved(1, 1.0, 0.5)[..., :height, :width], moved(0, 1.0, 0.5)[..., :height, :width]
    v = estimate(new, old, patch)
    assert v.shape == (1, 2, height // patch, width // patch)
    if min(height, width) >= 40:
        assert abs(float(v[0, 0].median()) + 1.0) < 0.15
        assert abs(float(v[0, 1].median()) + 0.5) < 0.15


def test_sampling_is_that_of_scipy() -> None:
    random = np.random.default_rng(3)
    image = random.random((20, 30)).astype(np.float32)
    shift = random.uniform(-25, 25, (2, 20, 30)).astype(np.float32)  # right, down
    rows, columns = np.mgrid[:20, :30]
    places = [rows + shift[1].astype(float), columns + shift[0].astype(float)]
    grid = PixelGrid(20, 30)
    modes: dict[Literal["zeros", "border"], str] = {"zeros": "grid-constant", "border": "nearest"}
    for outside, mode in modes.items():
        found = grid.sample(
            torch.from_numpy(image)[None, None],
            torch.from_numpy(shift)[None],
            outside,
        )
        expected = map_coordinates(image.astype(float), places, order=1, mode=mode, cval=0.0)
        np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=2e-5)
        some = grid.sample(
            torch.from_numpy(image)[None, None],
            torch.from_numpy(shift)[None],
            outside,
            apart=3,
        )
        torch.testing.assert_close(some, found[..., ::3, ::3])
    beyond = np.maximum.reduce([-places[0], places[0] - 19, -places[1], places[1] - 29]).clip(0)
    np.testing.assert_allclose(
        grid.outside(torch.from_numpy(shift)[None])[0, 0].numpy(), beyond, atol=1e-4
    )


def test_windows_are_two_boxes() -> None:
    values = np.random.default_rng(4).random((2, 3, 12, 17))
    for side in (5, 9):
        expected = values
        for _ in range(2):
            expected = uniform_filter(expected, (0, 0, side, side), mode="constant")
        found = window_mean(torch.from_numpy(values), side).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_place_stands_for_as_much_as_the_determinant_says() -> None:
    """Inside, that of numpy's own gradients; drawn together, 1; folded back, none."""
    x, y = np.meshgrid(np.arange(20.0), np.arange(16.0))
    right, down = 0.3 * x - 0.2 * y + np.sin(y / 3), 0.1 * x - 0.4 * y
    shift = np.stack([right, down])[None].astype(np.float32)
    (x_y, x_x), (y_y, y_x) = np.gradient(right), np.gradient(down)
    wanted = (1 + x_x) * (1 + y_y) - x_y * y_x
    found = area_read(torch.from_numpy(shift))[0, 0].numpy()
    np.testing.assert_allclose(found[1:-1, 1:-1], wanted[1:-1, 1:-1], rtol=1e-5)
    assert 0.5 < float(found.min()) < float(found.max()) < 1.2
    assert torch.equal(area_read(torch.full((1, 2, 8, 8), 3.7)), torch.ones(1, 1, 8, 8))
    back = torch.stack([-2.0 * torch.arange(8.0).expand(8, 8), torch.zeros(8, 8)])
    folded = area_read(back[None])
    assert not folded[..., 1:-1].any()
