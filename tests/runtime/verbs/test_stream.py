"""`stream` on the command line: what it does, and its messages on bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.predict import predict_sequences
from tests.runtime.conftest import Cli, picture, slot_time
from tests.runtime.verbs.folders import LIMITED, expected, left, sequence


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
