"""Paths that are not UTF-8, and weights under several hard links: from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime", reason="needs the extra [cpu] or [gpu]")

BUNDLE = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"
ODD = b"d\xe9bit-\xff"


def in_process(*words: object) -> int:
    """Quick, and prints where nobody reads it."""
    from stpl_deploy.cli import run as run_verb

    nowhere = open(os.devnull, "w", errors="surrogateescape")  # noqa: SIM115
    with nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return run_verb(list(map(str, words)))


def run(*words: object) -> tuple[int, bytes, bytes]:
    """A whole process, with a terminal's encoding."""
    command = [sys.executable.encode(), b"-m", b"stpl_deploy", *map(os.fsencode, map(str, words))]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose name is bytes, with a bundle and frames in it."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + ODD))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    shutil.copytree(BUNDLE, folder / "tiny.bundle")
    (folder / "in").mkdir()
    for t in range(6):
        picture = np.zeros((16, 16), np.uint8)
        picture[4:8, t : t + 4] = 200
        Image.fromarray(picture).save(folder / "in" / f"20240101_00{t:02d}00.png")
    return folder


def test_bundles_frames_sinks_and_state(odd: Path) -> None:
    for library in ("pyproj", "netCDF4", "rasterio", "zarr"):  # an edge device may lack them
        pytest.importorskip(library)
    bundle = odd / "tiny.bundle"
    for words in (("verify", bundle), ("inspect", bundle)):
        assert in_process(*words) == 0
    code, out, err = run("data", "inspect", odd / "in")
    assert code == 0, err
    assert rb"d\xe9bit-\xff" in out  # no terminal obeys it
    assert in_process("predict", bundle, odd / "in", "--out", odd / "out.npz", "--json") == 0
    assert (odd / "out.npz").is_file()
    sinks = [f"{word}:{odd / word}" for word in ("npz", "png", "gif", "nc", "tif", "zarr")]
    sinks.append(f"jsonl:{odd / 'lines.jsonl'}")
    words = [word for sink in sinks for word in ("--sink", sink)]
    code, out, err = run(
        *("stream", bundle, odd / "in", "--cadence", 60, "--policy", "queue"),
        *("--max-nowcasts", 3, "--state-file", odd / "radar.state", *words),
    )
    assert code == 0, err
    assert b"not written" not in out
    for word in ("npz", "png", "gif", "nc", "tif", "zarr"):
        assert len(list((odd / word).iterdir())) == 3, word
    assert len((odd / "lines.jsonl").read_text().splitlines()) == 3
    assert (odd / "radar.state").is_file()


def test_readers_of_files_in_such_a_folder(odd: Path) -> None:
    """What the sinks wrote, by the libraries that want text for a name; and a film."""
    av = pytest.importorskip("av")
    words = ("predict", odd / "tiny.bundle", odd / "in", "--cadence", 60, "--out")
    assert in_process(*words, odd / "out.nc") == 0
    shutil.copy(odd / "out.nc", Path(os.fsdecode(os.fsencode(odd) + b"/f\xff_202401010000.nc")))
    assert in_process(*words, odd / "out.tif") == 0
    film = odd.parent / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for n in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * n, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shutil.move(film, odd / "film.mp4")
    names = ("out.nc", "out.tif", "film.mp4", "f\udcff_202401010000.nc")
    for name in names:
        assert in_process("data", "inspect", odd / name) == 0, name
    code, out, err = run("stream", odd / "tiny.bundle", odd / "film.mp4", "--policy", "queue")
    assert code == 0, err
    assert b"nowcasts: 5 made" in out


def test_weights_under_several_hard_links(tmp_path: Path) -> None:
    """As `cp -l`, or a store that keeps equal files once, makes them."""
    linked = tmp_path / "linked.bundle"
    shutil.copytree(BUNDLE, tmp_path / "own.bundle")
    shutil.copytree(tmp_path / "own.bundle", linked, copy_function=os.link)
    assert (linked / "weights.safetensors").stat().st_nlink == 2
    assert in_process("verify", linked) == 0
    code, out, err = run("inspect", linked)
    assert code == 0, err
    said = " ".join(out.decode().split())
    assert "weights.safetensors" in said.partition("hard links")[2].partition(":")[0]
    onnx = pytest.importorskip("onnx")
    copy = tmp_path / "COPY"
    command = said.partition("for them: ")[2].partition(" COPY")[0]
    subprocess.run([*command.split(), str(copy)], check=True)
    onnx.load(copy / "step.onnx")
