"""Tiles of large frames, and several archives one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xarray")

from stpl_core.errors import FrameError, RecipeError
from stpl_core.windows.archive import Archive, open_archive
from stpl_core.windows.cut import Windows
from stpl_train.data import open_data
from stpl_train.recipe import ArchiveSection

RATE = {"quantity": "rain rate", "units": "mm h-1", "low": 0.0, "high": 1e7}
T0 = np.datetime64("2024-05-01T00:00", "ns")


def written(path: Path, frames: np.ndarray, step_m: int = 5, units: str = "mm h-1") -> Path:
    """Frames `(T, 1, H, W)`."""
    time = T0 + np.arange(len(frames)) * np.timedelta64(step_m, "m")
    np.savez(path, frames=frames.astype(np.float32), time=time, units=units)
    return path


def coded(count: int, height: int, width: int, base: int = 0) -> np.ndarray:
    """Every pixel has its frame, row and column: `base + 10^4 frame + 100 row + column + 1`.

    In 512ths of a mm/h, which float32 holds exactly and rain can have.
    """
    frame, row, column = np.ogrid[:count, :height, :width]
    return (base + 10_000 * frame + 100 * row + column + 1)[:, None].astype(np.float32) / 512


def section(path: Path | tuple[Path, ...], **keys: Any) -> ArchiveSection:
    settings = {"context": 3, "horizon": 2, "codec": RATE, "tiles": True, "frame": (1, 8, 8)}
    return ArchiveSection(source="archive", path=path, **(settings | keys))


def opened(settings: ArchiveSection) -> Archive:
    return open_archive(settings, keep="model")


def part(archive: Archive, name: str) -> Windows:
    return archive.parts[name]


def places(tiles: Windows) -> set[tuple[int, int]]:
    return {(int(top), int(left)) for top, left in tiles.places[:, 2:]}


def test_every_tile_is_the_part_of_the_frames_that_its_place_says(tmp_path: Path) -> None:
    frames = coded(60, 20, 25)
    archive = opened(section(written(tmp_path / "a.npz", frames)))
    assert archive.shape == (1, 8, 8)
    assert archive.cadence_s == 300
    for name in ("training", "validation", "test"):
        tiles = part(archive, name)
        found = tiles.read(np.arange(tiles.count), "physical")[0]
        assert found.shape == (tiles.count, 5, 1, 8, 8)
        for (number, start, top, left), window in zip(tiles.places, found, strict=True):
            assert number == 0
            whole = frames[start : start + 5, :, top : top + 8, left : left + 8]
            np.testing.assert_array_equal(window, whole)
        assert tiles.read(np.arange(tiles.count), "physical")[1].all()
        times = tiles.times(np.arange(tiles.count))
        np.testing.assert_array_equal(times[:, 0], T0 + tiles.places[:, 1] * np.timedelta64(5, "m"))


def test_training_tiles_overlap_by_half_and_the_others_cover_once(tmp_path: Path) -> None:
    archive = opened(section(written(tmp_path / "a.npz", coded(60, 20, 25))))
    rows, columns = {0, 4, 8, 12}, {0, 4, 8, 12, 16, 17}
    assert places(part(archive, "training")) == {(r, c) for r in rows for c in columns}
    rows, columns = {0, 8, 12}, {0, 8, 16, 17}
    assert places(part(archive, "test")) == {(r, c) for r in rows for c in columns}


def test_unobserved_and_empty_tiles_are_left_out(tmp_path: Path) -> None:
    frames = coded(60, 8, 32)
    frames[:, :, :, :5] = np.nan  # five of the first tile's eight columns
    frames[:, :, :, 16:] = 0.0
    path = written(tmp_path / "a.npz", frames)
    archive = opened(section(path, least_echo=0.3))
    # at 4: 7 of 8 seen, 8: all, 12: half echo; at 16 and beyond nothing
    assert {left for _, left in places(part(archive, "training"))} == {4, 8, 12}
    held_out = part(archive, "validation")
    assert {left for _, left in places(held_out)} == {8, 16, 24}  # dry ones are judged too
    tiles = part(archive, "training")
    first = int(np.flatnonzero(tiles.places[:, 3] == 4)[0])
    observed = tiles.read(np.array([first]), "physical")[1]
    assert not observed[..., 0].any()
    assert observed[..., 1:].all()
    assert (~archive.frames[0].read(slice(0, 1), "physical")[1]).sum() == 8 * 5


def test_the_split_in_time_runs_through_several_archives(tmp_path: Path) -> None:
    first = written(tmp_path / "a.npz", coded(20, 8, 12))
    second = written(tmp_path / "b.npz", coded(80, 16, 9, base=400_000))
    archive = opened(section((first, second), validation_fraction=0.2, test_fraction=0.2))
    training, held_out, tested = (part(archive, n) for n in ("training", "validation", "test"))
    assert set(training.places[:, 0]) == {0, 1}
    assert set(held_out.places[:, 0]) == set(tested.places[:, 0]) == {1}
    of_second = training.places[training.places[:, 0] == 1]
    assert of_second[:, 1].max() == 40 - 5  # frames 0 to 39 of it, of all 100 the first 60
    assert (held_out.places[:, 1].min(), held_out.places[:, 1].max()) == (40, 60 - 5)
    assert tested.places[:, 1].min() == 60
    assert training.places[training.places[:, 0] == 0][:, 1].max() == 20 - 5  # none crosses over
    values = training.read(np.flatnonzero(training.places[:, 0] == 1)[:1], "physical")[0]
    assert values.min() > 400_000 / 512
    data = open_data(section((first, second), validation_fraction=0.2, test_fraction=0.2), seed=0)
    assert data.frame == (1, 8, 8)
    assert data.validation.shape[1:] == (5, 1, 8, 8)


def test_archives_in_several_units_become_one(tmp_path: Path) -> None:
    rates = np.full((30, 1, 8, 8), 4.0)
    dbz = 10 * np.log10(200.0 * rates**1.6)
    pair = (written(tmp_path / "a.npz", rates), written(tmp_path / "b.npz", dbz, units="dBZ"))
    archive = opened(section(pair, validation_fraction=0.2, test_fraction=0.2))
    for name in ("training", "test"):
        tiles = part(archive, name)
        np.testing.assert_allclose(
            tiles.read(np.arange(tiles.count), "physical")[0], 4.0, rtol=1e-5
        )


def test_archives_of_any_cadence_where_that_is_asked_for(tmp_path: Path) -> None:
    quick = written(tmp_path / "quick.npz", coded(40, 8, 8), step_m=2)
    slow = written(tmp_path / "slow.npz", coded(40, 8, 8))
    both = {"cadences": "any", "validation_fraction": 0.2, "test_fraction": 0.1}
    archive = opened(section((quick, slow), cadence_s=300.0, **both))
    assert archive.cadence_s == 300.0  # of the held-out windows, which are of the last
    assert {name: set(part(archive, name).places[:, 0]) for name in archive.parts} == {
        "training": {0, 1}, "validation": {1}, "test": {1},
    }  # fmt: skip
    with pytest.raises(RecipeError, match=r"cadence_s = 120, but .*every 300 s"):
        opened(section((quick, slow), cadence_s=120.0, **both))


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    slow = written(tmp_path / "slow.npz", coded(40, 8, 8), step_m=10)
    quick = written(tmp_path / "quick.npz", coded(40, 8, 8))
    with pytest.raises(RecipeError, match=r"slow.npz has a frame every 600 s; expected 300 s"):
        opened(section((quick, slow)))
    with pytest.raises(FrameError, match=r"has 8x8 pixels; expected at least tiles of 16x16"):
        opened(section(quick, frame=(1, 16, 16)))
    with pytest.raises(ValueError, match="tiles need a frame"):
        section(quick, frame=None)
