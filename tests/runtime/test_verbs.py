"""`predict` and `stream` on the command line: what they do, and what they say of bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_core import baselines
from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.predict import predict_sequences
from tests.runtime.conftest import Cli, picture, slot_time


def sequence(count: int) -> Array:
    """`(count, C, H, W)`"""
    return np.stack([picture(n) for n in range(count)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six frames with times in their names."""
    path = tmp_path / "in"
    path.mkdir()
    for n in range(6):
        np.save(path / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(n))
    return path


def left(path: Path) -> list[str]:
    """Every file below `path`, hidden ones too."""
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def expected(bundle: Bundle, session: Session, frames: Array, horizon: int = 3) -> Array:
    return predict_sequences(bundle, session, frames[None], horizon)[0]


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


def faults(err: str) -> list[str]:
    """The lines of stderr but the one that says what the frames were taken for."""
    return [line for line in err.splitlines() if not line.startswith("data /")]


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


@pytest.mark.parametrize("verb", ["predict", "stream"])
def test_a_flipped_byte_in_the_bundle(
    cli: Cli, own_bundle: Path, folder: Path, tmp_path: Path, verb: str
) -> None:
    weights = own_bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    new = tmp_path / "new"
    words = ("--out", new / "o.npz") if verb == "predict" else ("--sink", f"npz:{new}")
    code, out, err = cli(verb, own_bundle, folder, *words)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "SHA-256" in err
    assert not new.exists()
    shutil.rmtree(own_bundle)
    assert cli(verb, own_bundle, folder, *words)[0] == 2


def test_stream_writes_what_predict_writes(
    cli: Cli, bundle: Bundle, session: Session, folder: Path, tmp_path: Path
) -> None:
    sinks = [f"npz:{tmp_path}/npz", f"png:{tmp_path}/png", f"gif:{tmp_path}/latest.gif"]
    words = [word for sink in sinks for word in ("--sink", sink)]
    code, stdout, err = cli(
        "stream", bundle.path, f"folder:{folder}", *words, "--idle-timeout", 1, "--json"
    )
    assert code == 0, err
    report = json.loads(stdout)
    assert report["counts"] == {
        **dict.fromkeys(("late", "duplicate", "dropped", "bad", "pending"), 0),
        "received": 6,
        "used": 6,
    }
    assert report["nowcasts"] + report["skipped"] == 3
    assert report["incomplete"] == 3
    assert report["latency_ms"]["median"] > 0
    newest = sorted((tmp_path / "npz").iterdir())[-1]
    assert newest.name == "nowcast_20260201T001500Z.npz"
    with np.load(newest) as archive:
        np.testing.assert_array_equal(archive["frames"], expected(bundle, session, sequence(6)[2:]))
    assert (tmp_path / "latest.gif").is_file()
    assert (tmp_path / "png" / "nowcast_20260201T001500Z.png").is_file()


@pytest.mark.parametrize("horizon", [2, 3])
def test_stream_carries_the_state(
    cli: Cli, bundle: Bundle, session: Session, folder: Path, tmp_path: Path, horizon: int
) -> None:
    out = tmp_path / "npz"
    code, stdout, err = cli(
        *("stream", bundle.path, folder, "--context", "carry", "--horizon", horizon),
        *("--sink", f"npz:{out}", "--idle-timeout", 1),
    )
    assert code == 0, err
    assert "frames: received 6 = 6 used" in stdout
    with np.load(sorted(out.iterdir())[-1]) as archive:
        everything = bundle.manifest.model_copy(update={"context": 6})
        whole = Bundle(bundle.path, everything)
        np.testing.assert_allclose(
            archive["frames"],
            predict_sequences(whole, session, sequence(6)[None], horizon)[0],
            rtol=0,
            atol=1e-6,
        )
        assert json.loads(str(archive["made_by"]))["context"] == "carry"


def test_stream_on_an_empty_folder_waits(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    words, name = ("stream", bundle.path, folder, "--idle-timeout", 0.1), f"folder:{folder}"
    code, stdout, err = cli(*words)
    assert code == 0
    assert "received 0 = 0" in stdout
    assert err.splitlines() == [
        f"watching {name}: 4 frames needed, cadence learned from the first frames; Ctrl-C ends",
        "no --sink: nowcasts are only counted; try: --sink png:out",
    ]
    _, _, err = cli(*words, "--cadence", 5, "--sink", f"png:{tmp_path}/out")
    assert err.splitlines() == [
        f"watching {name}: 4 frames needed, every 5 s (cadence stated); Ctrl-C ends"
    ]


def test_several_sources_over_one_session(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / f"r{slot_time(4):%Y%m%d%H%M}.npy").unlink()
    out, state = tmp_path / "out", tmp_path / "state.npz"
    words = ("stream", bundle.path, folder, f"south={other}", "--sink", f"npz:{out}")
    words = (*words, "--on-gap", "hold", "--policy", "queue", "--state-file", state)
    code, stdout, err = cli(*words, "--idle-timeout", 4, "--json")
    assert code == 0
    report = json.loads(stdout)
    assert {name: one["nowcasts"] for name, one in report["streams"].items()} == {
        folder.name: 3,
        "south": 2,
    }
    assert report["counts"]["used"] == 6 + 5
    assert report["streams"]["south"]["stand_ins"] == 1
    assert f"south: watching folder:{other}" in err
    assert len(list((out / folder.name).iterdir())) == 3
    assert len(list((out / "south").iterdir())) == 2
    assert {path.name for path in tmp_path.glob("state*")} == {
        f"state-{folder.name}.npz",
        f"state-{folder.name}.npz.newest",
        "state-south.npz",
        "state-south.npz.newest",
    }
    code, stdout, err = cli(*words, "--idle-timeout", 2)
    assert code == 0
    assert err.count("resuming from") == 2
    assert "all: received 22 = 11 used" in stdout  # the same files again: late, or duplicates


def test_stream_of_bad_frames_only_is_wrong_input(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        np.save(path, 255 * np.load(path))
    words = ("stream", bundle.path, folder, "--sink", f"npz:{tmp_path}/o", "--idle-timeout", 4)
    code, stdout, err = cli(*words)
    assert code == 2
    first = f"r{slot_time(0):%Y%m%d%H%M}.npy has values from"
    assert err.count("bad frame") == err.count(f"bad frame {first}") == 1
    assert "received 6 = 6 bad" in stdout
    (line,) = [line for line in stdout.splitlines() if line.startswith("bad: ")]
    assert line.startswith(f"bad: {first}")
    assert line.endswith(" (and 5 more)")


def test_stream_refuses_bad_arguments(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    path, file = bundle.path, next(folder.iterdir())
    before = left(tmp_path)
    for words, say in [
        ((path, tmp_path / "no"), "no folder"),
        ((path, path), f"{path} is a bundle; expected frames"),
        ((path, f"foldr:{folder}"), f"try: folder:{folder}"),
        ((path, folder, "--sink", f"nzp:{tmp_path}/o"), f"--sink npz:{tmp_path}/o"),
        ((path, folder, "--sink", f"npz:{file}"), "a file is in the way"),
        ((path, folder, "--engine", "tensor"), "unknown engine tensor"),
        ((path, folder, "--cadence", "0"), "seconds above 0"),
        ((path, folder, "--lateness", "4"), "0 to 3 slots"),
        ((path, folder, "--time-format", "x"), "strptime"),
        ((path, folder, "--context", "all"), "window"),
        ((path, folder, "--on-gap", "skip"), "bridge"),
        ((path, folder, "--policy", "all"), "queue"),
        ((path, folder, "--keep-age", "7"), "--keep-age 7d"),
        ((path, folder, "--source-option", "x"), "NAME=VALUE"),
        ((path, folder, folder), "two sources have the name in"),
        ((tmp_path / "no.bundle", folder), "manifest.json"),
    ]:
        code, out, err = cli("stream", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert say in err
    assert left(tmp_path) == before


def test_stream_says_that_an_index_needs_a_cadence(
    cli: Cli, bundle: Bundle, tmp_path: Path
) -> None:
    for n in range(5):
        np.save(tmp_path / f"f{n}.npy", picture(n))
    code, stdout, err = cli("stream", bundle.path, tmp_path)
    assert code == 2
    assert "--cadence SECONDS" in err
    assert "ended: error\n" in stdout
    assert "--cadence" not in stdout  # the error is reported once
    code, stdout, _ = cli("stream", bundle.path, tmp_path, "--cadence", 60, "--idle-timeout", 1)
    assert code == 0
    assert "received 5 = 5 used" in stdout


def test_stream_waits_for_its_folder_that_went_away(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    out, staged = tmp_path / "out", tmp_path / "staged"
    staged.mkdir()
    np.save(staged / f"r{slot_time(6):%Y%m%d%H%M}.npy", picture(6))
    script = """
import os, shutil, sys, time
from pathlib import Path
folder, out, staged = map(Path, sys.argv[1:])
deadline = time.monotonic() + 60
while not list(out.glob("*.npz")) and time.monotonic() < deadline:
    time.sleep(0.01)
shutil.rmtree(folder)
time.sleep(0.5)
staged.rename(folder)
"""
    remover = subprocess.Popen([sys.executable, "-c", script, folder, out, staged])
    words = ("--sink", f"npz:{out}", "--idle-timeout", 4, "--json")
    code, stdout, err = cli("stream", bundle.path, folder, *words)
    assert remover.wait(timeout=30) == 0
    assert code == 0
    assert f"folder:{folder} is down: " in err
    assert f"folder:{folder} is up again" in err
    assert json.loads(stdout)["counts"]["used"] == 7


LIMITED = """
import resource, sys
from stpl_deploy.cli import run
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(run(sys.argv[1:]))
"""


def test_stream_goes_on_when_the_disk_is_full(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["stream", bundle.path, folder, "--sink", f"npz:{out}", "--idle-timeout", "1"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, words), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 4, done.stderr
    report = json.loads(done.stdout)
    assert report["counts"]["used"] == 6
    assert sum(report["sink_failures"].values()) == report["nowcasts"] > 0
    lines = [line for line in done.stderr.splitlines() if "cannot write" in line]
    assert len(lines) == 1
    assert "bytes free" in lines[0]
    assert left(out) == []


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


FREE = """
import sys
for name in ("torch", "onnx"):
    sys.modules[name] = None
import importlib, pkgutil, stpl_runtime
for module in pkgutil.walk_packages(stpl_runtime.__path__, "stpl_runtime."):
    importlib.import_module(module.name)
from stpl_deploy.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_all_of_it_runs_where_torch_and_onnx_cannot_be_imported(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    words = ["stream", bundle.path, folder, "--sink", f"gif:{tmp_path}/o", "--idle-timeout", "0"]
    done = subprocess.run(
        [sys.executable, "-c", FREE, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
