"""Archives of any format: contiguous windows, the split in time, the grid, one-line refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xarray")

from stpl_core.errors import FrameError, RecipeError
from stpl_core.readers.store import convert
from stpl_core.windows import frames as archives
from stpl_core.windows.archive import Archive, open_archive
from stpl_core.windows.placing import (
    Layout,
    as_published,
    breaks,
    by_time,
    place,
)
from stpl_train.data import open_data
from stpl_train.recipe import ArchiveSection, load_recipe
from stpl_train.training import with_frame

RATE = {"quantity": "rain rate", "units": "mm h-1", "low": 0.0, "high": 1000.0}


def written(path: Path, frames: np.ndarray, minutes: np.ndarray | None = None) -> Path:
    """Frames `(T, 1, H, W)` in mm h-1 at these minutes."""
    minutes = 5 * np.arange(len(frames)) if minutes is None else minutes
    time = np.datetime64("2024-05-01T00:00", "ns") + minutes.astype("timedelta64[m]")
    np.savez(path, frames=frames, time=time, units="mm h-1")
    return path


def numbered(count: int, height: int = 4, width: int = 6) -> np.ndarray:
    """`(T, 1, H, W)`: every frame shows its own number."""
    values = np.arange(count, dtype=np.float32)[:, None, None, None]
    return np.broadcast_to(values, (count, 1, height, width)).copy()


def section(path: Path, **keys: Any) -> ArchiveSection:
    settings = {"context": 3, "horizon": 2, "codec": RATE, **keys}
    return ArchiveSection(source="archive", path=path, **settings)


def opened(settings: ArchiveSection) -> Archive:
    return open_archive(settings, keep="model")


def rows(archive: Archive, part: str) -> np.ndarray:
    """The numbers of the frames in each window, `(count, T + K)`."""
    windows = archive.parts[part]
    if not windows.count:
        return np.zeros((0, 5), int)
    return windows.read(np.arange(windows.count), "physical")[0][:, :, 0, 0, 0].round().astype(int)


@pytest.mark.parametrize(("every", "stride"), [(1, 1), (2, 1), (3, 2), (1, 7)])
def test_windows_are_contiguous_and_none_crosses_a_split(
    tmp_path: Path, every: int, stride: int
) -> None:
    path = written(tmp_path / "rain.npz", numbered(200))
    archive = opened(
        section(path, every=every, stride=stride, validation_fraction=0.2, test_fraction=0.2)
    )
    assert archive.cadence_s == 300 * every
    blocks = {"training": (0, 120), "validation": (120, 160), "test": (160, 200)}
    for part, (low, high) in blocks.items():
        found = rows(archive, part)
        assert (np.diff(found, axis=1) == every).all()
        assert low <= found.min()
        assert found.max() < high
        expected = np.arange(low, high - 4 * every, stride)
        assert found[:, 0].tolist() == expected.tolist()


def test_a_gap_ends_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    minutes = 5 * np.arange(60)
    minutes[20:] += 5  # one frame is missing
    minutes[40:] += 2  # off the cadence by more than a quarter
    path = written(tmp_path / "rain.npz", numbered(60), minutes)
    archive = opened(section(path, test_fraction=0.0, validation_fraction=0.25))
    training = rows(archive, "training")
    assert training[:, 0].tolist() == [*range(16), *range(20, 36), *range(40, 41)]
    assert "2 gap(s) or uneven steps, the first before" in caplog.text
    assert str(path) in caplog.text


def test_a_frame_without_data_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = numbered(60)
    frames[10] = np.nan
    frames[30, 0, :, :2] = np.nan  # a part only: it stays
    path = written(tmp_path / "rain.npz", frames)
    archive = opened(section(path))
    training = archive.parts["training"]
    assert 10 not in training.read(np.arange(training.count), "physical")[0][:, :, 0, 0, 5]
    assert f"{path} (2024-05-01T00:50:00Z) has no data all over: left out" in caplog.text
    at = np.flatnonzero(training.places[:, 1] == 28)
    observed = training.read(at, "physical")[1][0]
    assert observed.sum(axis=(1, 2)).tolist() == [24, 24, 16, 24, 24]
    model = training.batch(at)[0, 2, 0]
    assert (model[:, :2] == 0).all()  # no rain
    np.testing.assert_allclose(model[:, 2:], 0.03, rtol=1e-6)


def test_the_validation_part_keeps_its_mask(tmp_path: Path) -> None:
    frames = numbered(60)
    frames[:, 0, 0, 0] = np.nan
    split = open_data(section(written(tmp_path / "rain.npz", frames)), seed=0)
    assert split.validation_observed is not None
    assert split.validation_observed.shape == split.validation[:, :, 0].shape
    assert not split.validation_observed[..., 0, 0].any()
    assert split.validation_observed[..., 1:, :].all()
    assert split.frame == (1, 4, 6)
    recipe = load_recipe("modernn-mini").model_copy(update={"data": section(tmp_path)})
    resolved = with_frame(recipe, split).data
    assert (resolved.frame, resolved.cadence_s) == ((1, 4, 6), 300.0)


def test_crop_and_area_mean(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((60, 1, 10, 12), dtype=np.float32)
    path = written(tmp_path / "rain.npz", frames)
    archive = opened(section(path, crop=(1, 2, 8, 9), frame=(1, 4, 3)))
    block = frames[:5, :, 1:9, 2:11].reshape(5, 1, 4, 2, 3, 3).mean(axis=(3, 5))
    found = archive.parts["training"].read(np.array([0]), "physical")[0][0]
    np.testing.assert_allclose(found, block, rtol=1e-6)
    assert archive.frames[0].grid.affine == (2.0, 1.0, 3.0, 2.0)


def test_from_a_store_as_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zarr")
    path = written(tmp_path / "rain.npz", numbered(60))
    convert(path, tmp_path / "rain.zarr")
    chosen = np.array([3, 0, 7])
    there = opened(section(path, crop=(0, 0, 4, 4))).parts["training"]
    monkeypatch.setattr(archives, "_IN_MEMORY", 0)
    lazy = opened(section(tmp_path / "rain.zarr", crop=(0, 0, 4, 4))).parts["training"]
    np.testing.assert_array_equal(there.batch(chosen), lazy.batch(chosen))
    np.testing.assert_array_equal(
        there.read(chosen, "physical")[1], lazy.read(chosen, "physical")[1]
    )


def test_the_published_split() -> None:
    usable = np.ones(40, bool)
    broken = breaks(
        np.datetime64("2024-01-01", "ns") + np.arange(40) * np.timedelta64(1, "h"),
        np.zeros(40, np.int32),
        usable,
        3600.0,
    )
    split = np.repeat(np.array([0, 2], np.int8), [30, 10])
    parts = as_published(broken, usable, Layout(4), split, 0.2)
    assert parts["test"].tolist() == list(range(30, 37))
    assert parts["validation"].tolist() == list(range(24, 30))
    assert parts["training"].tolist() == list(range(21))
    three = np.repeat(np.array([0, 1, 2], np.int8), [20, 10, 10])
    parts = as_published(broken, usable, Layout(4), three, 0.2)
    assert parts["training"].tolist() == list(range(20))
    assert parts["validation"].tolist() == list(range(20, 30))


def test_sequences_do_not_mix() -> None:
    time = np.datetime64("2024-01-01", "ns") + np.arange(20) * np.timedelta64(1, "s")
    usable = np.ones(20, bool)
    broken = breaks(time, np.repeat(np.arange(4, dtype=np.int32), 5), usable, 1.0)
    assert place(broken, usable, Layout(4), 0, 20).tolist() == [0, 1, 5, 6, 10, 11, 15, 16]
    assert breaks(time, np.zeros(20, np.int32), usable, None).all()
    assert by_time(broken, usable, Layout(4), 0.25, 0.0)["test"].tolist() == []


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"codec": {}}, r"rain.npz is in mm h-1; expected 1, as data.codec.units says"),
        ({"codec": RATE | {"high": 20.0}}, r"rain.npz \(2024.*\) has values from 21 to 21"),
        ({"crop": (0, 0, 5, 5)}, "has 4x6 pixels; expected room for the crop of 5x5"),
        ({"frame": (1, 8, 8)}, "at least the model's 8x8"),
        ({"frame": (3, 4, 6)}, "has 1 channel"),
        ({"context": 50}, "leaves no window of 52 contiguous frames for training"),
        ({"context": 10}, "leaves no window of 12 contiguous frames for validation"),
        ({"path": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, keys: dict[str, Any], reason: str
) -> None:
    path = written(tmp_path / "rain.npz", numbered(60))
    with pytest.raises(FrameError, match=reason) as caught:
        open_data(section(**{"path": path, **keys}), seed=0)
    assert "\n" not in str(caught.value)
    assert "try: " in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"cadence_s": 900.0}, "every 300 s and data.every is 1; expected 300; try: .*every=3"),
        ({"split": "published"}, "has none"),
    ],
)
def test_recipes_that_the_data_does_not_hold(
    tmp_path: Path, keys: dict[str, Any], reason: str
) -> None:
    path = written(tmp_path / "rain.npz", numbered(60))
    with pytest.raises(RecipeError, match=reason):
        open_data(section(path, **keys), seed=0)


def test_mixed_units_are_named(tmp_path: Path) -> None:
    written(tmp_path / "a.npz", numbered(30))
    time = np.datetime64("2024-05-02T00:00", "ns") + 300 * np.arange(30) * np.timedelta64(1, "s")
    np.savez(tmp_path / "b.npz", frames=numbered(30), time=time, units="dBZ")
    with pytest.raises(FrameError, match=r"b.npz has units dBZ; expected mm h-1"):
        open_data(section(tmp_path), seed=0)
