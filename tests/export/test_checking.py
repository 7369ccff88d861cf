"""Data that cannot break a promise does not prove one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import REFERENCE, Bundle, open_bundle, seal
from stpl_core.errors import AccuracyError, FrameError
from stpl_export.checking import judging_sequences
from stpl_export.precision.calibrate import split_sequences
from stpl_export.regrid import regrid
from stpl_runtime.proof.live_sequences import live_sequences
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import verify_bundle
from stpl_train import run as runs
from stpl_train.run import open_run
from tests.export.conftest import TRAINED, RunMaker

DEAD = {
    "zeros": lambda frames: np.zeros_like(frames),
    "constant": lambda frames: np.full_like(frames, 0.75),
    "a still picture": lambda frames: np.broadcast_to(frames[:, :1], frames.shape),
    "noise of a dark lens": lambda frames: frames * np.float32(0.001),
}


def _physical() -> tuple[Any, Any]:
    run = open_run(TRAINED)
    return run, run.recipe.data.codec.physical_from_model(run.validation())


@pytest.mark.parametrize("kind", DEAD)
def test_dead_data_is_completed_and_reported(kind: str, tmp_path: Path) -> None:
    run, frames = _physical()
    np.save(tmp_path / "dead.npy", np.asarray(DEAD[kind](frames)))
    made, _, label = judging_sequences(run, tmp_path / "dead.npy", run.frame_shape)
    assert label == "16 sequences of moving-mnist, validation part, and dead.npy (0 of 16 move)"
    judging, calibrating = split_sequences(len(made), 16)
    for part in (judging, calibrating):
        assert live_sequences(made[part]).sum() >= 4


def test_live_data_judges_alone(tmp_path: Path) -> None:
    run, frames = _physical()
    np.save(tmp_path / "live.npy", frames[:3])
    made, _, label = judging_sequences(run, tmp_path / "live.npy", run.frame_shape)
    assert label == "live.npy"
    np.testing.assert_allclose(made, run.validation()[:3], atol=1e-6)


def test_one_sequence_alone_is_completed(tmp_path: Path) -> None:
    run, frames = _physical()
    np.save(tmp_path / "one.npy", frames[:1])
    *_, label = judging_sequences(run, tmp_path / "one.npy", run.frame_shape)
    assert "one.npy (1 of 1 move)" in label


def test_sequences_of_a_grid_to_export_for_are_completed(
    run_maker: RunMaker, tmp_path: Path
) -> None:
    """The run's own are of 8x8: they are cut below, and mirrored on the right."""
    run = open_run(run_maker("convlstm"))
    kept = run.validation()
    data = run.recipe.data.codec.physical_from_model(kept)
    np.save(tmp_path / "one.npy", np.tile(data[:1], 2)[..., :6, :12])
    larger, _ = regrid(run, (6, 12))
    made, _, label = judging_sequences(larger, tmp_path / "one.npy", (1, 6, 12))
    assert made.shape == (len(kept) + 1, *kept.shape[1:3], 6, 12)
    assert "and one.npy (1 of 1 move)" in label
    mirrored = np.concatenate([kept, kept[..., ::-1]], axis=-1)[..., :6, :12]
    for own in mirrored:
        assert (np.abs(made - own).max(axis=(1, 2, 3, 4)) < 1e-6).sum() == 1


def test_a_run_that_kept_dead_sequences_is_refused(run_maker: RunMaker, tmp_path: Path) -> None:
    path = run_maker("convlstm")
    kept = open_run(path).validation()
    (path / runs.VALIDATION).unlink()
    runs.save_validation(path, np.zeros_like(kept))
    run = open_run(path)
    with pytest.raises(FrameError, match=r"nothing moves in any of the 4 sequences.*--data FILE"):
        judging_sequences(run, None, run.frame_shape)


def test_an_int8_bundle_with_dead_sequences_is_not_verified(
    trained_bundle: Bundle, tmp_path: Path
) -> None:
    import shutil

    path = tmp_path / "bundle"
    shutil.copytree(trained_bundle.path, path)
    reference = load_reference(trained_bundle)
    arrays = reference.arrays()
    for name in ("context", "truth"):
        arrays[name] = np.zeros_like(arrays[name])
    early = reference.float32[:, :1]
    arrays |= {
        "int8/min_psnr_db": np.zeros(len(reference.tolerance)),
        "int8/early": early,
        "int8/early_psnr_db": np.zeros(early.shape[1]),
    }
    np.savez_compressed(path / REFERENCE, allow_pickle=False, **arrays)
    seal(path, trained_bundle.manifest.model_copy(update={"precision": "int8"}))
    with pytest.raises(AccuracyError, match="nothing moves in the 4 sequences"):
        verify_bundle(open_bundle(path))
