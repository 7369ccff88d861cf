"""The generator of bibliography.md 3.5: speed, walls, determinism, statistics."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.errors import RecipeError
from stpl_train.data import open_data
from stpl_train.data.digits import digit_images
from stpl_train.data.moving_digits import MovingDigits, bounce
from stpl_train.randomness import Stream
from stpl_train.recipe import MovingMnistSection, parse_recipe


def generator(digits: int = 2, side: int = 64, size: int = 28, **keys: int) -> MovingDigits:
    return MovingDigits(
        images=digit_images("scikit-learn", size, "training"),
        frame=(1, side, side),
        length=20,
        digits=digits,
        step=0.1,
        seed=keys.get("seed", 0),
        stream=Stream.TRAINING_DIGITS,
    )


def test_speed_is_3_6_pixels_per_frame_away_from_the_walls() -> None:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    way = 0.1 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    path = bounce(np.full((24, 2), 0.5), way, 4) * 36
    speed = np.linalg.norm(np.diff(path, axis=0), axis=2)
    np.testing.assert_allclose(speed, 3.6, rtol=1e-12)


def test_clamps_at_the_wall_and_does_not_reflect() -> None:
    path = bounce(np.array([0.95, 0.05]), np.array([0.1, -0.1]), 3)
    np.testing.assert_allclose(path, [[1.0, 0.0], [0.9, 0.1], [0.8, 0.2]], atol=1e-12)


def test_moves_before_the_first_frame() -> None:
    path = bounce(np.array([0.5, 0.5]), np.array([0.1, 0.0]), 1)
    np.testing.assert_allclose(path, [[0.6, 0.5]])


def test_a_sequence_does_not_depend_on_its_batch() -> None:
    source = generator()
    together = source.batch(np.array([5, 900, 7, 2**40]))
    for place, index in enumerate([5, 900, 7, 2**40]):
        np.testing.assert_array_equal(source.batch(np.array([index]))[0], together[place])
    assert not np.array_equal(together[0], together[2])
    assert not np.array_equal(generator(seed=1).batch(np.array([5]))[0], together[0])


def test_the_first_sequence_is_the_same_on_every_machine() -> None:
    first = generator(digits=1, side=32, size=14).batch(np.array([0]))[0, :, 0]
    rows, columns = np.nonzero(first[0])
    assert (rows.min(), columns.min()) == (18, 4)
    assert round(float(first.sum()), 2) == 694.27


def test_statistics_of_a_thousand_sequences() -> None:
    """Two digits on 64x64: in [0, 1]; every frame shows both; they cover the canvas evenly."""
    frames = generator().batch(np.arange(1000))
    assert frames.shape == (1000, 20, 1, 64, 64)
    assert frames.dtype == np.float32
    assert frames.min() == 0.0
    assert frames.max() == 1.0
    lit = (frames > 0).mean(axis=(2, 3, 4))
    assert lit.min() > 0.01
    one = (digit_images("scikit-learn", 28, "training") / 255).mean() * 28**2 / 64**2
    # Less than two digits' worth: overlaps take the maximum, not the sum.
    assert 1.7 * one < frames.mean() < 2.0 * one


def test_positions_of_a_thousand_sequences() -> None:
    """Corners use all of 0..36 both ways, evenly: mean 17.5 (the fraction is cut), spread 10.9."""
    source = generator()
    draws = np.stack([source._draws(index) for index in range(1000)])  # (B, digits, 4)
    turn = 2 * np.pi * draws[..., 3]
    way = 0.1 * np.stack([np.sin(turn), np.cos(turn)], axis=-1)
    corners = (bounce(draws[..., 1:3], way, 20) * 36).astype(int)
    assert (corners.min(), corners.max()) == (0, 36)
    np.testing.assert_allclose(corners.mean(axis=(0, 1, 2)), 17.5, atol=0.6)
    np.testing.assert_allclose(corners.std(axis=(0, 1, 2)), 10.9, atol=0.4)


def test_overlap_takes_the_brighter_pixel() -> None:
    two = generator(digits=2)
    for index in range(8):
        draws = two._draws(index)
        path = bounce(
            draws[:, 1:3],
            0.1 * np.stack([np.sin(2 * np.pi * draws[:, 3]), np.cos(2 * np.pi * draws[:, 3])], 1),
            20,
        )
        expected = np.zeros((20, 64, 64), dtype=np.uint8)
        for d in range(2):
            picture = two.images[int(draws[d, 0] * len(two.images))]
            for t in range(20):
                r, c = (path[t, d] * 36).astype(int)
                view = expected[t, r : r + 28, c : c + 28]
                np.maximum(view, picture, out=view)
        found = two.batch(np.array([index]))[0, :, 0]
        np.testing.assert_array_equal(np.round(found * 255).astype(np.uint8), expected)


def test_three_digits_on_a_canvas_that_is_not_square() -> None:
    section = MovingMnistSection(
        source="moving-mnist", frame=(1, 24, 40), digit_size=9, digits=3, validation_sequences=3
    )
    split = open_data(section, seed=0)
    assert split.validation.shape == (3, 20, 1, 24, 40)
    assert split.training.batch(np.array([3])).shape == (1, 20, 1, 24, 40)


def test_validation_uses_other_digits_and_not_the_seed() -> None:
    training = digit_images("scikit-learn", 10, "training")
    held_out = digit_images("scikit-learn", 10, "validation")
    assert len(training) + len(held_out) == 1797
    seen = {image.tobytes() for image in training}
    assert not any(image.tobytes() in seen for image in held_out)
    section = MovingMnistSection(source="moving-mnist", validation_sequences=2)
    np.testing.assert_array_equal(
        open_data(section, 1).validation, open_data(section, 2).validation
    )


def test_a_digit_larger_than_the_frame_is_refused() -> None:
    with pytest.raises(RecipeError, match="digit_size 40 must not exceed the frame of 32x32"):
        parse_recipe(
            {
                "model": {"name": "modernn"},
                "data": {"source": "moving-mnist", "frame": [1, 32, 32], "digit_size": 40},
                "training": {"iterations": 1},
            }
        )
