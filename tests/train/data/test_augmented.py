"""Augmented windows: pure, turned and sped up as stated, and never from held-out frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xarray")

from stpl_core.errors import RecipeError
from stpl_train.data import open_data
from stpl_train.data.augmented import Augmented, Variant
from stpl_train.recipe import ArchiveSection, load_recipe, parse_recipe

COUNT, HEIGHT, WIDTH, SIDE = 60, 40, 48, 16
PLAIN = Variant(place=0, down=0, right=0, zoom=1.0, every=1, turn=0, brighter=0.0)
CODEC = {
    "quantity": "rain rate", "units": "mm h-1", "low": 0.0, "high": 100.0, "kind": "db",
    "threshold": 0.1, "clip": True,
}  # fmt: skip


def rain() -> np.ndarray:
    """`(T, 1, H, W)` mm/h: a pattern of its own in each frame, part of it nothing."""
    values = np.random.default_rng(0).gamma(0.3, 3.0, (COUNT, 1, HEIGHT, WIDTH))
    return np.where(values < 0.2, 0, values).astype(np.float32)


def written(path: Path, frames: np.ndarray) -> Path:
    time = np.datetime64("2024-05-01T00:00", "ns") + np.arange(len(frames)) * np.timedelta64(5, "m")
    np.savez(path, frames=frames, time=time, units="mm h-1")
    return path


def opened(tmp_path: Path, frames: np.ndarray | None = None, **augment: Any) -> Augmented:
    return of(written(tmp_path / "rain.npz", rain() if frames is None else frames), **augment)


def of(path: Path | tuple[Path, ...], **augment: Any) -> Augmented:
    section = ArchiveSection.model_validate(
        {
            "path": path, "frame": (1, SIDE, SIDE), "tiles": True, "context": 3, "horizon": 3,
            "validation_fraction": 0.2, "test_fraction": 0.2, "codec": CODEC, "augment": augment,
        }
    )  # fmt: skip
    found = open_data(section, 5).training
    assert isinstance(found, Augmented)
    return found


def made(data: Augmented, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    variant = replace(PLAIN, **changes)
    return data._changed(*data._cut(variant), variant)


def test_a_sequence_depends_on_its_number_alone(tmp_path: Path) -> None:
    data = opened(tmp_path)
    frames, observed = data.masked(np.arange(8))
    again, _ = data.masked(np.array([5, 2]))
    np.testing.assert_array_equal(again, frames[[5, 2]])
    assert frames.shape == (8, 6, 1, SIDE, SIDE)
    assert observed.shape == (8, 6, SIDE, SIDE)
    assert frames.dtype == np.float32
    assert len({one.tobytes() for one in frames}) == 8
    other, _ = replace(data, seed=6).masked(np.arange(8))
    assert not np.array_equal(other, frames)
    assert 0 <= frames.min() <= frames.max() <= 1


def test_nothing_changed_is_the_window_itself(tmp_path: Path) -> None:
    data = opened(tmp_path)
    frames, observed = made(data, place=7)
    expected, seen = data.windows.masked(np.array([7]))
    np.testing.assert_array_equal(frames, expected[0])
    np.testing.assert_array_equal(observed, seen[0])


@pytest.mark.parametrize("turn", range(8))
def test_turns(tmp_path: Path, turn: int) -> None:
    data = opened(tmp_path)
    expected = made(data, place=3)[0]
    if turn & 1:
        expected = np.flip(expected, -2)
    if turn & 2:
        expected = np.flip(expected, -1)
    if turn & 4:
        expected = np.swapaxes(expected, -1, -2)
    np.testing.assert_array_equal(made(data, place=3, turn=turn)[0], expected)


def numbered() -> np.ndarray:
    """Every frame shows its own number, from 1 mm/h."""
    values = 1 + np.arange(COUNT, dtype=np.float32)[:, None, None, None]
    return np.broadcast_to(values, (COUNT, 1, HEIGHT, WIDTH)).copy()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_thinned_frames_are_the_archive_s_and_never_held_out_ones(
    tmp_path: Path, every: int
) -> None:
    data = opened(tmp_path, numbered())
    last = COUNT - 2 * round(0.2 * COUNT) - 1  # of the training part
    ends = set()
    for place in range(data.windows.count):
        frames, observed = made(data, place=place, every=every)
        rate = data.codec.physical_from_model(frames)[:, 0, 0, 0].round().astype(int) - 1
        start = int(data.windows.places[place, 1])
        wanted = start + every * np.arange(6)
        there = wanted <= last
        np.testing.assert_array_equal(rate[there], wanted[there])
        np.testing.assert_array_equal(observed.all((1, 2)), there)
        assert not observed[~there].any()
        assert not frames[~there].any()
        ends.add(int(there.sum()))
    assert (len(ends) > 1) == (every > 1)  # windows near the end lack their last frames


def test_zoom_is_a_mean_or_between_pixels(tmp_path: Path) -> None:
    frames = np.broadcast_to(
        np.geomspace(1, 100, WIDTH, dtype=np.float32), (COUNT, 1, HEIGHT, WIDTH)
    ).copy()
    data = opened(tmp_path, frames)
    slope = 1 / (WIDTH - 1) * 20 / 35  # of a geometric row, in the codec's decibels
    for zoom in (0.5, 2.0):
        found, observed = made(data, zoom=zoom)
        assert observed.all()
        assert found.shape == (6, 1, SIDE, SIDE)
        inner = found[0, 0, 0, 2:-2]
        np.testing.assert_allclose(np.diff(inner), slope / zoom, rtol=0.02)


def test_a_zoom_stays_inside_the_frame(tmp_path: Path) -> None:
    data = opened(tmp_path)
    for place in range(0, data.windows.count, 17):
        frames, observed = made(data, place=place, zoom=0.1, down=0.25, right=-0.25)
        assert frames.shape == (6, 1, SIDE, SIDE)
        assert observed.all()


def test_brightness_makes_no_rain_of_nothing(tmp_path: Path) -> None:
    data = opened(tmp_path)
    plain, _ = made(data, place=2)
    more, less = made(data, place=2, brighter=0.05)[0], made(data, place=2, brighter=-0.05)[0]
    np.testing.assert_array_equal(more == 0, plain == 0)
    np.testing.assert_allclose(more[plain > 0], (plain[plain > 0] + 0.05).clip(0, 1), atol=1e-6)
    rate = data.codec.physical_from_model(less)
    assert ((rate == 0) | (rate >= 0.0999)).all()
    assert (less <= plain).all()


def test_unobserved_stays_unobserved(tmp_path: Path) -> None:
    frames = rain()
    frames[:, :, :20, :8] = np.nan
    data = opened(tmp_path, frames)
    for zoom in (0.5, 1.0, 2.0):
        found, observed = made(data, place=0, zoom=zoom)
        assert not observed.all()
        assert observed.any()
        assert np.isfinite(found).all()
        assert not found[:, 0][~observed].any()


def test_heavy_rain_is_favoured(tmp_path: Path) -> None:
    frames = rain() * np.linspace(0, 2, WIDTH, dtype=np.float32) ** 2  # heavier to the right
    heavy = [
        float((opened(tmp_path, frames, candidates=n).batch(np.arange(60)) >= 0.55).mean())
        for n in (1, 8)
    ]
    assert heavy[1] > 1.2 * heavy[0]


def test_variants_are_spread_over_what_is_allowed(tmp_path: Path) -> None:
    data = opened(tmp_path, zoom=(0.5, 2.0), zoomed=0.5, every=(1, 1, 3), brighter=0.1)
    drawn = [data.variant(n, 0) for n in range(2000)]
    assert {one.turn for one in drawn} == set(range(8))
    assert np.mean([one.every == 3 for one in drawn]) == pytest.approx(1 / 3, abs=0.05)
    assert np.mean([one.zoom == 1.0 for one in drawn]) == pytest.approx(0.5, abs=0.05)
    assert min(one.zoom for one in drawn) >= 0.5
    assert max(one.zoom for one in drawn) <= 2.0
    assert np.mean([one.brighter == 0 for one in drawn]) == pytest.approx(0.5, abs=0.05)
    assert max(abs(one.brighter) for one in drawn) <= 0.1
    assert {one.brighter > 0 for one in drawn if one.brighter} == {True, False}


def test_archives_are_drawn_by_their_weights(tmp_path: Path) -> None:
    pair = written(tmp_path / "a.npz", rain()[:20]), written(tmp_path / "b.npz", rain())
    shares = []
    for weights in (None, [3.0, 1.0]):
        data = of(pair, weights=weights)
        places = [data.variant(n, 0).place for n in range(4000)]
        numbers = data.windows.places[:, 0]
        for archive in (0, 1):  # all of each, evenly
            own = np.flatnonzero(numbers == archive)
            drawn = [place for place in places if numbers[place] == archive]
            assert np.mean(drawn) == pytest.approx(own.mean(), abs=0.05 * len(own))
            assert own.min() <= min(drawn) < max(drawn) <= own.max()
        shares.append((np.mean(numbers[places] == 0), np.mean(numbers == 0)))
    (plain, windows), (weighted, _) = shares
    assert plain == pytest.approx(windows, abs=0.03)
    assert windows < 0.5
    assert weighted == pytest.approx(0.75, abs=0.03)
    with pytest.raises(ValueError, match=r"augment.weights has 1 for 2 archives"):
        of(pair, weights=[1.0])


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    document = load_recipe("radar-nowcast").model_dump(mode="json", exclude_none=True)
    for key, value in (("zoom", [2.0, 0.5]), ("candidates", 99), ("every", [])):
        changed = {**document["data"], "augment": {**document["data"]["augment"], key: value}}
        with pytest.raises(RecipeError, match=key):
            parse_recipe({**document, "data": changed})
    with pytest.raises(RecipeError, match="every = 2 with augment"):
        parse_recipe({**document, "data": {**document["data"], "every": 2}})
