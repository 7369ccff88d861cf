"""What was understood of frames, and ways on that advice offers, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("xarray")

DATA = Path(__file__).parents[1] / "data"
TINY, MINI = DATA / "convlstm-tiny.bundle", DATA / "predrnn-digits.bundle"

Cli = Callable[..., Any]


def frames(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture
def ambiguous(tmp_path: Path) -> Path:
    path = tmp_path / "a.npy"
    np.save(path, frames(12, 20, 16, 16))
    return path


def test_inspect_asks_for_the_layout_and_takes_it(cli_here: Cli, ambiguous: Path) -> None:
    refused = cli_here("data", "inspect", ambiguous)
    assert refused.returncode == 2
    assert "12 sequences of 20 frames" in refused.stderr
    assert "try: --layout NTHW" in refused.stderr
    done = cli_here("data", "inspect", ambiguous, "--layout", "NTHW")
    first = done.stdout.splitlines()[0]
    assert f"data {ambiguous}: 12 sequences, 240 frames, 1 channel, 16x16, grey level" in first


def test_predict_says_what_it_understood(cli_here: Cli, ambiguous: Path, tmp_path: Path) -> None:
    done = cli_here("predict", TINY, ambiguous, "--out", tmp_path / "n.npz", "--layout", "NTHW")
    assert done.returncode == 0, done.stderr
    assert "the newest: 12 sequences, 48 frames, 1 channel, 16x16, grey level" in done.stderr


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    folder = tmp_path / "colours"
    folder.mkdir()
    for n in range(6):
        values = np.random.default_rng(n).integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(values).save(folder / f"f{n:03}.png")
    return folder


def test_colours_are_kept_if_asked_for(cli_here: Cli, coloured: Path) -> None:
    grey = cli_here("data", "inspect", coloured)
    assert "1 channel, 8x12" in grey.stdout
    assert "colours      turned to grey; --variable rgb keeps them" in grey.stdout
    kept = cli_here("data", "inspect", coloured, "--variable", "rgb", "--json")
    assert json.loads(kept.stdout)["shape"] == [3, 8, 12]
    from stpl_core.reader import ReadOptions
    from stpl_core.readers.opening import open_frames

    opened = open_frames(coloured, options=ReadOptions(variable="rgb"))["frames"].values
    first = np.asarray(Image.open(coloured / "f000.png"), np.float32) / 255  # (H, W, C)
    np.testing.assert_allclose(opened[0], np.moveaxis(first, -1, 0), rtol=1e-6)


def test_three_channels_of_pictures_are_offered_by_what_keeps_them(coloured: Path) -> None:
    from stpl_core.errors import FrameError
    from stpl_core.windows.archive import open_archive
    from stpl_core.windows.settings import ArchiveSettings

    asked = ArchiveSettings(path=coloured, frame=(3, 8, 12), context=1, horizon=1)
    with pytest.raises(FrameError, match=r"turned to grey; .*try: --set data\.variable=rgb"):
        open_archive(asked, "model")
    opened = open_archive(asked.model_copy(update={"variable": "rgb"}), "model")
    assert opened.shape == (3, 8, 12)


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    folder = tmp_path / "timed"
    folder.mkdir()
    for n in range(8):
        np.save(folder / f"20260501T12{5 * n:02}.npy", frames(16, 16) * (n + 1) / 8)
    return folder


def test_predict_at_an_earlier_time_equals_what_was_known_then(
    cli_here: Cli, timed: Path, tmp_path: Path
) -> None:
    at = cli_here(
        "predict", TINY, timed, "--out", tmp_path / "at.npy", "--at", "2026-05-01T12:25", "--json"
    )
    assert json.loads(at.stdout)["issue_time"] == "2026-05-01T12:25:00Z"
    for file in sorted(timed.iterdir())[6:]:
        file.unlink()
    cli_here("predict", TINY, timed, "--out", tmp_path / "then.npy")
    assert np.array_equal(np.load(tmp_path / "at.npy"), np.load(tmp_path / "then.npy"))
    late = cli_here("predict", TINY, timed, "--out", tmp_path / "x.npy", "--at", "2026-05-01T13:00")
    assert late.returncode == 2
    assert "try: --at 2026-05-01T12:25:00Z" in late.stderr
    wrong = cli_here("predict", TINY, timed, "--out", tmp_path / "x.npy", "--at", "noon")
    assert "try: --at 2026-05-01T12:00" in wrong.stderr


def test_evaluate_does_not_shrink_in_silence(cli_here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for n in range(12):
        Image.fromarray((frames(32, 40) * 255).astype(np.uint8)).save(folder / f"f{n:03}.png")
    done = cli_here("evaluate", TINY, "--data", folder, "--baseline", "persistence")
    assert done.returncode == 2
    assert "try: --grid 32x40 covers them in tiles" in done.stderr
    wrong = cli_here("evaluate", TINY, "--data", folder, "--grid", "20x20")
    assert wrong.returncode == 2
    assert "--grid 32x40" in wrong.stderr
    whole = cli_here(
        "evaluate", TINY, "--data", folder, "--baseline", "persistence", "--grid", "32x40", "--json"
    )
    assert whole.returncode == 0, whole.stderr
    array = tmp_path / "large.npy"
    np.save(array, frames(2, 8, 1, 32, 40))
    plain = cli_here("evaluate", TINY, "--data", array)
    assert "try: --grid 32x40" in plain.stderr


def test_evaluate_takes_the_file_of_moving_mnist(cli_here: Cli, tmp_path: Path) -> None:
    """As published: unsigned bytes, time first."""
    path = tmp_path / "mnist_test_seq.npy"
    np.save(path, (frames(20, 6, 32, 32) * 255).astype(np.uint8))
    done = cli_here("evaluate", MINI, "--data", path, "--baseline", "persistence", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sequences"] == 18  # 6 of 20 frames, cut every 5


def test_evaluate_of_nothing_does_not_advise_training(cli_here: Cli, tmp_path: Path) -> None:
    done = cli_here("evaluate", tmp_path / "missing.bundle")
    assert done.returncode == 2
    assert "nothing is at" in done.stderr
    assert "stpl-deploy export RUN" in done.stderr
    assert "stpl-deploy train" not in done.stderr


def test_json_of_convert_and_parts(cli_here: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frames(6, 1, 8, 8))
    done = cli_here("data", "convert", tmp_path / "a.npy", "--out", tmp_path / "a.npz", "--json")
    assert json.loads(done.stdout)["frames"] == 6
    split = cli_here("parts", "split", TINY, "--out", tmp_path / "parts", "--json")
    assert json.loads(split.stdout)["parts"] >= 1
    join = cli_here("parts", "join", tmp_path / "parts", "--out", tmp_path / "whole", "--json")
    paths = {file["path"] for file in json.loads(join.stdout)["files"]}
    assert "manifest.json" in paths


def test_short_help() -> None:
    """Of every verb; in this process, since a verb's help takes 0.2 s to start."""
    import contextlib
    import io

    from stpl_deploy.cli import run, verbs

    for words in ([], *([verb] for verb in verbs.VERBS), ["data", "inspect"], ["parts", "split"]):
        texts = []
        for flag in ("-h", "--help"):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert run([*words, flag]) == 0, words
            texts.append(out.getvalue())
        assert texts[0] == texts[1] != "", words
