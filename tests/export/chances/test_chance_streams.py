"""Chances of events over tiles, in streams and in scores."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.frames import Frame
from stpl_deploy.cli import run
from stpl_runtime.chances import thresholds_of
from stpl_runtime.engine import open_session
from stpl_runtime.engines.tiled import TiledSession, Tiling, on_domain
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.predict import finish, predict_sequences, predict_with_chances
from stpl_train.data.stand_in import stand_in_sequences
from tests.export.chances.small_advect import (
    CONTEXT,
    FRAME,
    HORIZON,
    by_torch,
    contexts,
    small,
)

# Tiles


def test_tiles_are_joined_as_the_frames_are(bundle: Bundle) -> None:
    domain = (40, 80)
    tiling = Tiling(domain, (32, 48), 16)
    wide = replace(bundle, manifest=bundle.manifest.model_copy(update={"frame": (1, *domain)}))
    frames = contexts(wide)
    inner = open_session(bundle, ("step",))
    session = TiledSession(inner, tiling)
    made, chances = predict_with_chances(wide, session, frames, HORIZON)
    assert chances.values.shape == (2, HORIZON, 2, 1, *domain)
    assert made.shape == (2, HORIZON, 1, *domain)
    corner = (..., slice(0, 16), slice(0, 28))  # of the first tile alone
    alone, own = predict_with_chances(bundle, inner, frames[..., :32, :48], 1)
    np.testing.assert_array_equal(
        chances.values[:, :1][corner][..., :8, :], own.values[corner][..., :8, :]
    )
    np.testing.assert_array_equal(made[:, :1][corner][..., :8, :], alone[corner][..., :8, :])
    inner.close()


@pytest.mark.parametrize("domain", [(40, 60), (30, 41)])  # in tiles; padded
def test_on_a_domain_a_tile_rolls_out_by_itself_with_chances_too(
    bundle: Bundle, domain: tuple[int, int]
) -> None:
    """The step graph, which gives chances, makes the frames of the forecast graph."""
    inner = open_session(bundle, ("step", "forecast"))
    wide, session = on_domain(bundle, inner, domain)
    frames = np.tile(contexts(bundle), (1, 1, 1, 2, 2))[..., : domain[0], : domain[1]]
    made, chances = predict_with_chances(wide, session, frames, HORIZON)
    unrolled = predict_sequences(wide, session, frames, HORIZON)
    np.testing.assert_allclose(made, unrolled, rtol=1e-4, atol=1e-4)
    assert np.abs(np.diff(made, axis=1)).max() > 0.01
    assert chances.values.shape == (2, HORIZON, 2, 1, *domain)
    inner.close()


# Streams


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_a_stream_gives_those_that_predict_gives(bundle: Bundle, mode: Any) -> None:
    frames = stand_in_sequences(FRAME, CONTEXT + 3, 1)[0]
    physical = bundle.manifest.codec.physical_from_model(frames)
    session = open_session(bundle, ("step",))
    nowcaster = Nowcaster(bundle, session, mode=mode, cadence_s=300)
    nowcaster.add_chances()
    nowcaster.warm_up()
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    made = []
    for t, data in enumerate(physical):
        nowcaster.put(Frame(start + timedelta(minutes=5 * t), data))
        if (one := nowcaster.issue()) is not None:
            made.append(one)
        while nowcaster.idle_step():
            pass
    assert len(made) == 4
    for n, nowcast in enumerate(made):
        assert nowcast.chances is not None
        first = n if mode == "window" else 0
        inside = bundle.manifest.codec.model_from_physical(physical[None, first : n + CONTEXT])
        state = session.zero_state(1)
        for t in range(inside.shape[1] - 1):
            _, state = session.step(np.ascontiguousarray(inside[:, t]), state)
        whole = finish(
            session,
            bundle.manifest,
            np.ascontiguousarray(inside[:, -1]),
            state,
            HORIZON,
            chances=True,
        )
        assert whole.chances is not None
        np.testing.assert_array_equal(nowcast.chances.values, whole.chances[0])
    session.close()


def test_the_verb_writes_them_into_files_and_lines(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for t, data in enumerate(contexts(bundle, 1)[0]):
        np.save(source / f"20240101T00{5 * t:02d}00.npy", data)
    words = ["stream", str(bundle.path), str(source), "--probabilities", "--cadence", "300"]
    words += ["--sink", f"npz:{tmp_path / 'out'}", "--sink", f"jsonl:{tmp_path / 'lines'}"]
    assert run([*words, "--max-nowcasts", "1", "--idle-timeout", "20"]) == 0, (
        capsys.readouterr().err
    )
    (file,) = (tmp_path / "out").glob("*.npz")
    with np.load(file) as archive:
        values = archive["probability_of_exceedance"]
    assert values.shape == (HORIZON, 2, *FRAME)
    lead = json.loads((tmp_path / "lines").read_text())["leads"][-1]
    assert [one["threshold"] for one in lead["chances"]] == [*thresholds_of(bundle.manifest)]
    assert lead["chances"][0]["max"] == pytest.approx(float(values[-1, 0].max()))


# Scores


def test_evaluate_scores_them_beside_climatology(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    frames = stand_in_sequences(FRAME, CONTEXT + HORIZON, 2)
    physical = bundle.manifest.codec.physical_from_model(frames)
    np.save(tmp_path / "truth.npy", physical)
    out = tmp_path / "report"
    words = ["evaluate", str(bundle.path), "--data", str(tmp_path / "truth.npy")]
    words += ["--baseline", "persistence", "--members", "3", "--out", str(out)]
    assert run(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "Brier skill score" in printed
    assert "Ensemble of 3 members, mm h-1" in printed
    assert len(json.loads((out / "scores.json").read_text())["ensemble"]["crps"]) == HORIZON
    inside = bundle.manifest.codec.model_from_physical(physical[:, :CONTEXT])
    _, expected = by_torch(small(), inside, HORIZON)
    document = json.loads((out / "scores.json").read_text())["chances"]["by_threshold"]
    for q, (found, threshold) in enumerate(
        zip(document, thresholds_of(bundle.manifest), strict=True)
    ):
        assert found["threshold"] == threshold
        event = physical[:, CONTEXT:] >= np.float32(threshold)
        brier = np.square(expected[:, :, q] - event).mean((0, 2, 3, 4))
        np.testing.assert_allclose(found["brier"], brier, rtol=1e-2)
        assert sum(found["reliability"]["pixels"]) == event.size
    assert "Reliability of chances, ≥ 1.778 mm h-1" in (out / "report.html").read_text()
