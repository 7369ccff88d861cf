"""Tiles: every pixel is covered once in all, and a domain's nowcast is that of its tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_core.frames import Frame
from stpl_runtime.engine import Session, closed_loop, open_session
from stpl_runtime.engines.tiled import TiledSession, Tiling, default_overlap, domain_size, on_domain
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.predict import predict_sequences
from tests.runtime.conftest import START, Cli, slot_time

DOMAIN = (37, 22)


@given(
    domain=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    share=st.floats(0, 1),
    shift=st.floats(0, 0.99),
)
def test_split_and_join_give_back_every_pixel(
    domain: tuple[int, int], tile: tuple[int, int], share: float, shift: float
) -> None:
    overlap = int(share * (min(tile) // 2))
    moved = (int(shift * tile[0]), int(shift * tile[1]))
    tiling = Tiling(domain, tile, overlap, moved)
    frames = np.random.default_rng(0).random((2, 1, *domain), dtype=np.float32)
    tiles = tiling.split(frames)
    assert tiles.shape == (2 * tiling.count, 1, *tile)
    np.testing.assert_allclose(tiling.join(tiles), frames, rtol=0, atol=1e-6)


@given(domain=st.integers(17, 200), overlap=st.integers(0, 8))
def test_neighbours_share_the_overlap_and_weights_are_smooth(domain: int, overlap: int) -> None:
    tiling = Tiling((domain, 16), (16, 16), overlap)
    steps = np.diff(tiling.rows)
    assert tiling.rows[0] == 0
    assert tiling.rows[-1] == domain - 16
    assert steps.max() <= 16 - overlap
    ones = np.zeros((tiling.count, 1, 16, 16), np.float32)
    ones[0] = 1.0  # the first tile alone: its weight
    weight = tiling.join(ones)[0, 0, :, 0]  # (H,)
    assert (np.diff(weight[: 16 + 1]) <= 1e-6).all()  # falls off towards the seam, never rises
    if overlap:
        assert np.abs(np.diff(weight)).max() <= np.pi / (2 * overlap) + 1e-6


def test_a_shifted_tiling_has_its_seams_elsewhere() -> None:
    plain, moved = Tiling((64, 64), (16, 16), 4), Tiling((64, 64), (16, 16), 4, (6, 6))
    assert set(plain.rows[1:-1]).isdisjoint(moved.rows[1:-1])
    assert moved.rows[0] == 0
    assert moved.rows[-1] == 48


@pytest.fixture(scope="module")
def tiled(bundle: Bundle) -> tuple[Bundle, Session]:
    return on_domain(bundle, open_session(bundle, ("step", "forecast", "rollout")), DOMAIN, 5)


def frames_of(count: int) -> list[Frame]:
    generator = np.random.default_rng(1)
    return [
        Frame(slot_time(n), generator.random((1, *DOMAIN), dtype=np.float32), source_id=f"f{n}")
        for n in range(count)
    ]


def test_a_domains_nowcast_is_that_of_its_tiles(
    session: Session, tiled: tuple[Bundle, Session]
) -> None:
    """Each tile by itself, step by step, joined here by plain sums; the codec is [0, 1]."""
    whole, on = tiled
    sequence = np.stack([frame.data for frame in frames_of(4)])[None]
    found = predict_sequences(whole, on, sequence, 3)
    tiling = Tiling(DOMAIN, (16, 16), 5)
    total, weights = np.zeros((3, 1, *DOMAIN)), np.zeros(DOMAIN)
    for row, top in enumerate(tiling.rows):
        for column, left in enumerate(tiling.columns):
            part = sequence[..., top : top + 16, left : left + 16]
            alone = np.zeros((tiling.count, 1, 16, 16), np.float32)
            alone[row * len(tiling.columns) + column] = 1.0
            weight = tiling.join(alone)[0, 0]  # (H, W)
            guess = closed_loop(session, part, 3)[0]  # (K, C, h, w), unclipped
            here = (..., slice(top, top + 16), slice(left, left + 16))
            total[here] += guess * weight[here]
            weights += weight
    np.testing.assert_allclose(weights, 1.0, atol=1e-6)
    np.testing.assert_allclose(found[0], np.clip(total, 0, 1), atol=1e-5)


def test_all_graphs_agree_on_a_domain(tiled: tuple[Bundle, Session]) -> None:
    whole, on = tiled
    context = np.random.default_rng(2).random((2, 4, 1, *DOMAIN), dtype=np.float32)
    state = on.zero_state(2)
    for t in range(3):
        _, state = on.step(context[:, t], state)
    copied = on.state_from_arrays(on.state_arrays(state))
    assert copied.batch == 2
    unrolled, _ = on.forecast(context[:, 3], copied)  # (B, K, C, H, W)
    np.testing.assert_allclose(on.rollout(context), unrolled, atol=1e-6)
    first, _ = on.step(context[:, 3], state)
    np.testing.assert_allclose(first, unrolled[:, 0], atol=1e-6)
    assert unrolled.shape == (2, 3, *whole.manifest.frame)


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_streamed_is_predicted_on_a_domain(mode: str, tiled: tuple[Bundle, Session]) -> None:
    whole, on = tiled
    caster = Nowcaster(whole, on, mode="window" if mode == "window" else "carry", cadence_s=300.0)
    frames = frames_of(6)
    for frame in frames:
        caster.put(frame)
        nowcast = caster.issue()
        while caster.idle_step():
            pass
        if frame is frames[3]:  # the first whole window: both modes have read the same
            assert nowcast is not None
            sequence = np.stack([f.data for f in frames[:4]])[None]
            np.testing.assert_array_equal(
                nowcast.frames, predict_sequences(whole, on, sequence, 3)[0]
            )
    assert nowcast is not None
    assert nowcast.issue_time == START + 5 * (slot_time(1) - slot_time(0))


def test_a_field_smaller_than_the_model_is_padded_and_cut_back(bundle: Bundle) -> None:
    whole, on = on_domain(bundle, open_session(bundle, ("step", "forecast")), (14, 16))
    assert isinstance(on, TiledSession)
    assert on.tiling.count == 1
    frames = np.random.default_rng(3).random((1, 4, 1, 14, 16), dtype=np.float32)
    padded = np.pad(frames, ((0, 0),) * 3 + ((0, 2), (0, 0)), mode="edge")
    plain = predict_sequences(bundle, open_session(bundle, ("step", "forecast")), padded, 3)
    np.testing.assert_array_equal(predict_sequences(whole, on, frames, 3), plain[..., :14, :])


def test_the_models_own_size_is_left_alone(bundle: Bundle, session: Session) -> None:
    assert on_domain(bundle, session, (16, 16)) == (bundle, session)


@pytest.mark.parametrize("text", ["16", "0x3", "axb", "1x2x3", "-4x4", ""])
def test_a_size_is_rows_by_columns(text: str) -> None:
    with pytest.raises(UsageError, match="rows x columns"):
        domain_size(text)
    assert domain_size("1226X760") == (1226, 760)


def test_an_overlap_of_more_than_half_a_tile_is_refused(bundle: Bundle, session: Session) -> None:
    with pytest.raises(UsageError, match="0 to 8"):
        on_domain(bundle, session, (64, 64), 9)
    assert default_overlap((128, 192), 4) == 32  # a quarter
    assert default_overlap((128, 192), 12) == 48  # as far as rain moves
    assert default_overlap((64, 64), 20) == 32  # half


def test_predict_and_stream_cover_a_larger_field(
    cli: Cli, bundle: Bundle, tiled: tuple[Bundle, Session], tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out.npz"
    folder.mkdir()
    for frame in frames_of(4):
        np.save(folder / f"{frame.valid_time:%Y%m%d%H%M}.npy", frame.data)
    sequence = np.stack([frame.data for frame in frames_of(4)])[None]
    wanted = predict_sequences(*tiled, sequence, 3)[0]
    size = ("--grid", "37x22", "--overlap", 5)
    assert cli("predict", bundle.path, folder, "--out", out, *size)[0] == 0
    np.testing.assert_array_equal(np.load(out)["frames"], wanted)
    sink = ("--sink", f"npz:{tmp_path / 'live'}", "--cadence", 300, "--max-nowcasts", 1)
    code, _, err = cli("stream", bundle.path, folder, *size, *sink)
    assert code == 0, err
    (streamed,) = (tmp_path / "live").glob("*.npz")
    np.testing.assert_array_equal(np.load(streamed)["frames"], wanted)


def test_a_size_that_the_frames_do_not_have_is_reported(
    cli: Cli, bundle: Bundle, tmp_path: Path
) -> None:
    np.save(tmp_path / "in.npy", np.zeros((4, 1, *DOMAIN), np.float32))
    code, _, err = cli(
        "predict", bundle.path, tmp_path / "in.npy", "--out", tmp_path / "o.npz", "--grid", "40x40"
    )
    assert code == 2
    assert "(4, 1, 37, 22)" in err
    assert "40, 40" in err
