"""`predict` on the command line: what it does, and its messages on bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_core import baselines
from stpl_core.bundle import Bundle
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.predict import predict_sequences
from tests.runtime.conftest import Cli, picture, slot_time
from tests.runtime.verbs.folders import LIMITED, expected, faults, left, sequence


def test_predict_reads_a_folder(
    cli: Cli, bundle: Bundle, session: Session, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "nowcast.npz"
    code, stdout, _ = cli("predict", bundle.path, folder, "--out", out, "--json")
    assert code == 0
    report = json.loads(stdout)
    assert report["issue_time"] == f"{slot_time(5):%Y-%m-%dT%H:%M:%SZ}"
    assert report["valid_times"][0] == f"{slot_time(6):%Y-%m-%dT%H:%M:%SZ}"
    assert report["shape"] == [3, 1, 16, 16]
    assert report["made_by"]["provider"] == "CPUExecutionProvider"
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["frames"], expected(bundle, session, sequence(6)[2:]))
        assert archive["issue_time"] == np.datetime64("2026-02-01T00:15")
    assert left(out.parent) == ["nowcast.npz"]


@pytest.mark.parametrize("baseline", ["persistence", "flow"])
def test_predict_by_a_baseline_beside_the_model(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path, baseline: str
) -> None:
    """On the model's pixels and times, and scored as `evaluate` scores it: the same array."""
    if baseline == "flow":
        pytest.importorskip("cv2")
    out, grid = tmp_path / "baseline.npz", ("--grid", "20x24")
    for n in range(6):
        large = np.pad(picture(n), ((0, 0), (0, 4), (0, 8)), mode="wrap")  # (C, H, W)
        np.save(folder / f"r{slot_time(n):%Y%m%d%H%M}.npy", large)
    words = ("predict", bundle.path, folder, *grid, "--horizon", 5)
    code, stdout, err = cli(*words, "--baseline", baseline, "--out", out)
    assert code == 0, err
    assert f"5 frames of 1x20x24 by {baseline}, issued " in stdout
    assert "next:" not in stdout
    seen = np.stack([np.load(path) for path in sorted(folder.iterdir())])[2:]  # (T, C, H, W)
    way = {"flow": baselines.flow, "persistence": baselines.persistence}[baseline]
    model = tmp_path / "model.npz"
    assert cli(*words, "--out", model)[0] == 0
    with np.load(out) as archive, np.load(model) as beside:
        np.testing.assert_allclose(archive["frames"], way(seen[None], 5)[0], atol=1e-6)
        assert json.loads(str(archive["made_by"])) == {"baseline": baseline}
        np.testing.assert_array_equal(archive["valid_times"], beside["valid_times"])
        assert not np.array_equal(archive["frames"], beside["frames"])


def test_a_baseline_gives_no_chances(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    words = ("--baseline", "persistence", "--probabilities", "--out", tmp_path / "o.npz")
    code, _, err = cli("predict", bundle.path, folder, *words)
    assert code == 2
    assert "--probabilities with --baseline persistence" in err
    code, _, err = cli("predict", bundle.path, folder, "--baseline", "day", *words[3:])
    assert code == 2
    assert "'persistence', 'flow'" in err
    assert left(tmp_path) == sorted(f"in/{path.name}" for path in folder.iterdir())


@pytest.mark.parametrize("form", ["one", "many", "npz"])
def test_predict_reads_arrays(
    cli: Cli, bundle: Bundle, session: Session, tmp_path: Path, form: str
) -> None:
    frames, file, out = sequence(7), tmp_path / "in.npy", tmp_path / "out.npy"
    many = np.stack([frames[:6], frames[1:]])
    if form == "npz":
        file = tmp_path / "in.npz"
        np.savez(file, frames=frames, other=1)
    else:
        np.save(file, frames if form == "one" else many)
    code, stdout, err = cli("predict", bundle.path, file, "--out", out, "--horizon", 5)
    assert code == 0, err
    count = "2 x 5" if form == "many" else "5"
    assert re.search(rf"out.npy: {count} frames of 1x16x16, in [\d.]+ m?s\n$", stdout)
    found = np.load(out)
    if form == "many":
        assert found.shape == (2, 5, 1, 16, 16)
        wanted = predict_sequences(bundle, session, many, 5)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected(bundle, session, frames[3:], 5))


def test_predict_reads_numbered_frames_without_a_cadence(
    cli: Cli, bundle: Bundle, session: Session, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out.npz"
    folder.mkdir()
    for n in range(8, 13):  # 8, 9, 10: not the order of the letters
        np.save(folder / f"f{n}.npy", picture(n - 8))
    assert cli("predict", bundle.path, folder, "--out", out)[0] == 0
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["frames"], expected(bundle, session, sequence(5)[1:]))
        assert "issue_time" not in archive
    (folder / "f11.npy").unlink()
    code, _, err = cli("predict", bundle.path, folder, "--out", out, "--overwrite")
    assert code == 2
    assert "not evenly spaced" in err


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_predict_draws(cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    assert cli("predict", bundle.path, folder, "--out", out)[0] == 0
    with Image.open(out) as image:
        image.load()
        assert image.format == suffix[1:].upper()


Spoil = Callable[[Path], None]


def only_array(array: np.ndarray) -> Spoil:
    """The newest frame is `array`."""
    return lambda folder: np.save(sorted(folder.iterdir())[-1], array)


def truncate(folder: Path) -> None:
    newest = sorted(folder.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-7])


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (only_array(np.zeros((1, 16, 17), np.float32)), ["(1, 16, 17)", "(1, 16, 16)", "--grid"]),
        (only_array(np.zeros((1, 16, 16), np.complex64)), ["complex64", "float32"]),
        (only_array(np.zeros((1, 16, 16), "U3")), ["<U3", "real numbers"]),
        (only_array(np.full((1, 16, 16), 255.0)), ["values from 255", "[0, 1]"]),
        (only_array(np.full((1, 16, 16), np.nan)), ["NaN", "finite"]),
        (truncate, ["cannot be read", "whole"]),
        (clear, ["has no frames", "at least 4, as .npy"]),
        (lambda folder: [p.unlink() for p in sorted(folder.iterdir())[3:]], ["3 frame(s)", "4"]),
        (
            lambda folder: sorted(folder.iterdir())[3].unlink(),
            ["one frame every 300 s", "add the missing frame"],
        ),
    ],
    ids=["shape", "complex", "text", "range", "nan", "truncated", "empty", "few", "hole"],
)
def test_predict_refuses_bad_frames(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path, spoil: Spoil, words: list[str]
) -> None:
    spoil(folder)
    code, out, err = cli("predict", bundle.path, folder, "--out", tmp_path / "o" / "n.npz")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert "expected" in err
    assert "try: " in err
    assert all(word in err for word in words), err
    assert not (tmp_path / "o").exists()


def test_predict_refuses_bad_arguments(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    there, path = tmp_path / "there.npz", bundle.path
    there.write_bytes(b"mine")
    short = tmp_path / "short.npy"
    np.save(short, sequence(3))
    flat = tmp_path / "flat.npy"
    np.save(flat, picture(0))
    many = tmp_path / "many.npy"
    np.save(many, np.stack([sequence(4)] * 2))
    out = tmp_path / "o.npz"
    for words, code, say in [
        ((path, folder, "--out", there), 2, "--overwrite"),
        ((path, folder, "--out", tmp_path / "o.txt"), 2, ".npz, .npy, .png, .gif"),
        ((path, folder, "--out", out, "--engine", "onx"), 2, "--engine onnx"),
        ((path, folder, "--out", out, "--cadence", "-5"), 2, "seconds above 0"),
        ((path, folder, "--out", out, "--horizon", "0"), 2, "horizon"),
        ((path, folder, "--out", out, "--time-format", "%Q"), 2, "strptime"),
        ((path, tmp_path / "no.npy", "--out", out), 2, "no.npy"),
        ((path, tmp_path / "nowhere", "--out", out), 2, "a folder of frames"),
        ((path, short, "--out", out), 2, "3 frame(s); expected at least 4"),
        ((path, flat, "--out", out), 2, "1 frame(s); expected at least 4"),
        ((path, many, "--out", tmp_path / "o.gif"), 2, "--out FILE.npz"),
        ((tmp_path / "no.bundle", folder, "--out", out), 2, "manifest.json"),
        ((folder, folder, "--out", out), 2, "manifest.json"),
        ((path, path, "--out", out), 2, f"{path} is a bundle; expected frames"),
    ]:
        found, stdout, err = cli("predict", *words)
        assert (found, stdout, len(faults(err))) == (code, "", 1), err
        assert say in err
    assert there.read_bytes() == b"mine"
    assert not any(name.startswith("o.") for name in left(tmp_path))


def test_predict_on_a_full_disk(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "n.npz"
    words = ["predict", bundle.path, folder, "--out", out]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert len(faults(done.stderr)) == 1
    assert left(out.parent) == []
