"""The user's own file: windows, the split in time, and one-line refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.errors import FrameError
from stpl_train.data import DataSplit, open_data, training_indices
from stpl_train.recipe import ArraySection


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def opened(path: Path, **keys: Any) -> DataSplit:
    settings = {"context": 3, "horizon": 2, **keys}
    return open_data(ArraySection(source="array", path=path, **settings), seed=0)


def numbered(sequences: int, frames: int) -> np.ndarray:
    """`(N, T, 1, 2, 2)`: every frame shows its own number, as a fraction."""
    values = np.arange(sequences * frames, dtype=np.float32).reshape(sequences, frames)
    return np.broadcast_to(
        (values / 10000)[..., None, None, None], (sequences, frames, 1, 2, 2)
    ).copy()


def numbers(windows: np.ndarray) -> np.ndarray:
    return np.round(windows[:, :, 0, 0, 0] * 10000).astype(int)


@pytest.mark.parametrize(
    ("sequences", "frames", "stride"), [(1, 100, 1), (1, 100, 4), (3, 40, 1), (20, 5, 1), (7, 9, 2)]
)
def test_windows_are_contiguous_and_never_cross_the_split(
    tmp_path: Path, sequences: int, frames: int, stride: int
) -> None:
    array = numbered(sequences, frames)
    path = saved(tmp_path / "own.npy", array[0] if sequences == 1 else array)
    split = opened(path, stride=stride, validation_fraction=0.2)
    assert split.frame == (1, 2, 2)
    assert split.training.count is not None
    train = numbers(split.training.batch(np.arange(split.training.count)))
    held_out = numbers(split.validation)
    for windows in (train, held_out):
        assert (np.diff(windows, axis=1) == 1).all()
        assert (windows // frames == windows[:, :1] // frames).all(), "crosses a sequence"
        assert len(np.unique(windows[:, 0])) == len(windows)
    assert train.max() < held_out.min()
    assert held_out.max() >= sequences * frames - 1 - stride


def test_many_validation_windows_are_thinned_evenly(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.npy", numbered(1, 400)[0])
    split = opened(path, validation_fraction=0.5, validation_sequences=7)
    starts = numbers(split.validation)[:, 0]
    assert len(starts) == 7
    assert (starts[0], starts[-1]) == (200, 395)
    assert np.ptp(np.diff(starts)) <= 1


def test_every_window_comes_once_per_epoch(tmp_path: Path) -> None:
    split = opened(saved(tmp_path / "own.npy", numbered(1, 100)[0]))
    count = split.training.count
    assert count == 86
    places = np.concatenate([training_indices(split.training, 3, i, 8) for i in range(33)])
    for epoch in range(3):
        assert sorted(places[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert not np.array_equal(places[:count], places[count : 2 * count])


def test_units_and_layouts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bytes_ = rng.integers(0, 256, (20, 6, 64, 64), dtype=np.uint8)  # Moving MNIST's test layout
    split = opened(saved(tmp_path / "a.npy", bytes_), context=10, horizon=10)
    assert split.training.count == 5
    np.testing.assert_allclose(
        split.training.batch(np.array([2]))[0, :, 0], bytes_[:, 2] / 255, rtol=1e-6
    )
    np.savez(tmp_path / "rain.npz", frames=numbered(4, 20) * 50)
    codec = {"quantity": "rain rate", "units": "mm h-1", "low": 0.0, "high": 50.0}
    split = opened(tmp_path / "rain.npz", codec=codec)
    np.testing.assert_allclose(
        split.training.batch(np.array([0])), numbered(4, 20)[:1, :5], atol=1e-7
    )


def with_value(value: float) -> np.ndarray:
    array = numbered(2, 30)
    array[1, 29, 0, 1, 1] = value
    return array


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (numbered(3, 4), "has 4 frames in a row; expected at least 5"),
        (numbered(1, 8)[0], "leaves no window of 5 frames for validation"),
        (np.zeros((4, 5), np.float32), r"has shape \(4, 5\)"),
        (np.zeros((4, 0, 1, 2, 2), np.float32), "has shape"),
        (with_value(np.nan), "1 values that are NaN or infinite"),
        (with_value(np.inf), "1 values that are NaN or infinite"),
        (with_value(7.5), "has values from .* to 7.5"),
        (np.zeros((2, 30, 1, 2, 2), np.complex64), "complex64 values"),
    ],
)
def test_data_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, array: np.ndarray, reason: str
) -> None:
    path = saved(tmp_path / "own.npy", array)
    with pytest.raises(FrameError, match=reason) as caught:
        opened(path)
    assert str(path) in str(caught.value)
    assert "try: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="no file"):
        opened(tmp_path / "none.npy")
    whole = saved(tmp_path / "own.npy", numbered(2, 30))
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(FrameError, match="cannot be read"):
        opened(whole)
    with pytest.raises(FrameError, match=r"expected \(N, T, 1, 8, 8\)"):
        opened(saved(tmp_path / "other.npy", numbered(2, 30)), frame=(1, 8, 8))
