"""Standard streams that are closed, full or gone, and the signals of a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_runtime.sinks.jsonl import DeviceLines, StdoutLines, open_sink
from stpl_runtime.streaming.signals import stop_on_signals

pytest.importorskip("onnxruntime", reason="needs the extra [cpu] or [gpu]")

BUNDLE = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"
PROGRAM = [sys.executable, "-m", "stpl_deploy"]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(12):
        picture = np.zeros((16, 16), np.uint8)
        picture[4:8, t : t + 4] = 200
        Image.fromarray(picture).save(folder / f"20240101_00{t:02d}00.png")
    return folder


def shell(line: str, **names: object) -> subprocess.CompletedProcess[str]:
    words = {name: str(value) for name, value in names.items()}
    program = " ".join(PROGRAM)
    return subprocess.run(
        ["bash", "-c", line.format(program=program, **words)],
        capture_output=True,
        text=True,
        timeout=100,
    )


STREAM = "{program} stream {bundle} {frames} --cadence 60 --policy pace "


def test_a_stream_whose_reader_has_gone_ends(frames: Path) -> None:
    done = shell(
        STREAM + "--sink jsonl:- | head -1; echo ${{PIPESTATUS[0]}}", bundle=BUNDLE, frames=frames
    )
    line, code = done.stdout.splitlines()
    assert line.startswith('{"name":"nowcast_')
    assert code == "141"


def test_a_reader_that_goes_while_nothing_comes(frames: Path) -> None:
    """All twelve nowcasts fit into the pipe; after that, no line finds out that `head` is gone."""
    done = shell(
        STREAM.replace("--policy pace", "--policy queue")
        + "--sink jsonl:- | (head -1; sleep 2); echo ${{PIPESTATUS[0]}}",
        bundle=BUNDLE,
        frames=frames,
    )
    assert done.stdout.splitlines()[-1] == "141"
    assert "Traceback" not in done.stderr


def test_a_folder_is_no_file_of_lines(frames: Path, tmp_path: Path) -> None:
    words = STREAM + "--sink jsonl:{out} --max-nowcasts 2"
    done = shell(words, bundle=BUNDLE, frames=frames, out=tmp_path)
    assert done.returncode == 2
    assert "free some space" not in done.stderr
    fix = done.stderr.partition("try: --sink ")[2].strip()
    assert fix == f"jsonl:{tmp_path}/nowcasts.jsonl"
    done = shell(words, bundle=BUNDLE, frames=frames, out=fix.partition(":")[2])
    assert done.returncode == 0
    assert len((tmp_path / "nowcasts.jsonl").read_text().splitlines()) == 2


def test_lines_on_stdout_come_alone(frames: Path) -> None:
    done = shell(STREAM + "--sink jsonl:- --max-nowcasts 2", bundle=BUNDLE, frames=frames)
    assert done.returncode == 0, done.stderr
    assert [line[:2] for line in done.stdout.splitlines()] == ['{"', '{"']
    assert "nowcasts: 2 made" in done.stderr


def test_closed_streams_do_not_end_a_verb(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    done = shell(
        STREAM + "--sink jsonl:{out} --max-nowcasts 2 2>&-", bundle=BUNDLE, frames=frames, out=out
    )
    assert done.returncode == 0
    assert len(out.read_text().splitlines()) == 2
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        done = shell("{program} inspect {bundle} " + closed, bundle=BUNDLE)
        assert done.returncode == 0, (closed, done.stderr)
        assert done.stderr == ""


def test_a_fifo_and_devices_are_no_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert isinstance(open_sink(str(fifo)), DeviceLines)
    assert isinstance(open_sink("/dev/null"), DeviceLines)
    assert isinstance(open_sink("/dev/stdout"), StdoutLines)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_the_end_of_the_terminal_stops_as_ctrl_c_does() -> None:
    stopped = []

    class Running:
        def stop(self) -> None:
            stopped.append(True)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with stop_on_signals(Running()):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopped == [True]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        with stop_on_signals(Running()):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopped == [True]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("verb", ["train", "export", "stream", "data inspect"])
def test_h_is_help(verb: str) -> None:
    done = shell("{program} " + verb + " -h")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: stpl-deploy")
