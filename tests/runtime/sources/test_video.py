"""Videos, pipes, network cameras and devices, each against the real thing on this machine."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stpl_core.codec import FrameCodec
from stpl_core.errors import EnvironmentFault, FrameError, SourceLostError, UsageError
from stpl_core.frames import Frame
from stpl_runtime.ingest.live_video import LiveVideo
from stpl_runtime.ingest.pictures import Pictures
from stpl_runtime.source import BadFrame, SourceSpec, open_source
from stpl_runtime.sources.stdin import StdinSource
from stpl_runtime.timing import EPOCH
from tests.runtime.conftest import START, picture
from tests.runtime.sources.source_reader import SourceReader

av = pytest.importorskip("av")

SHAPE = (1, 16, 16)
MADE = "2026-01-31T23:50:00Z"


def spec(
    cadence_s: float | None = None, shape: tuple[int, int, int] = SHAPE, **options: str
) -> SourceSpec:
    return SourceSpec(shape, FrameCodec(), cadence_s=cadence_s, options=options)


def level(n: int) -> int:
    """The grey level of picture n."""
    return 20 + 10 * (n % 20)


def grey(n: int, size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), level(n), np.uint8)


def write_video(path: Path, count: int, fps: int = 10, drop: tuple[int, ...] = ()) -> None:
    """Picture n at n / fps; those in `drop` are left out, and the others keep their times."""
    with av.open(str(path), "w") as container:
        container.metadata["creation_time"] = MADE
        stream = container.add_stream("libx264", rate=fps, options={"crf": "1", "bf": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        for n in range(count):
            if n in drop:
                continue
            frame = av.VideoFrame.from_ndarray(grey(n), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def levels(frames: list[Frame]) -> list[int]:
    return [round(float(frame.data.mean()) * 255) for frame in frames]


def close_to(found: list[int], wanted: list[int]) -> bool:
    return len(found) == len(wanted) and all(
        abs(a - b) <= 3 for a, b in zip(found, wanted, strict=True)
    )


def offsets(frames: list[Frame]) -> list[float]:
    return [round((frame.valid_time - START).total_seconds(), 3) for frame in frames]


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_frame_of_a_file_at_its_own_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    write_video(path, 12, drop=(5, 6))
    source = open_source(str(path), spec())
    with SourceReader(source) as reader:
        reader.wait_for_end()
    kept = [n for n in range(12) if n not in (5, 6)]
    assert offsets(reader.frames) == [n / 10 for n in kept]
    assert close_to(levels(reader.frames), [level(n) for n in kept])
    assert source.health.now().state == "ended"


def test_a_dropped_frame_is_a_missing_slot_and_no_shift(tmp_path: Path) -> None:
    """30 frames at 10 a second, one slot every 0.5 s; around 1.0 s they were lost."""
    write_video(tmp_path / "film.mp4", 30, drop=(8, 9, 10, 11, 12))
    with SourceReader(open_source(f"video:{tmp_path}/film.mp4", spec(0.5))) as reader:
        reader.wait_for_end()
    assert offsets(reader.frames) == [0.0, 0.5, 1.5, 2.0, 2.5, 2.9]
    assert close_to(levels(reader.frames), [level(n) for n in (0, 5, 15, 20, 25, 29)])


def test_options_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_video(path, 3)
    began = time.monotonic()
    options = {"start": "2026-01-31T23:50:07", "speed": "2", "resize": "crop"}
    with SourceReader(open_source(str(path), spec(None, (3, 8, 16), **options))) as reader:
        reader.wait_for_end()
    assert time.monotonic() - began >= 0.1
    assert offsets(reader.frames) == [7.0, 7.1, 7.2]
    assert reader.frames[0].data.shape == (3, 8, 16)
    assert reader.frames[0].grid is not None
    assert reader.frames[0].grid.affine == (0.0, 16.0, 4.0, 4.0)
    resized = reader.frames[0].notes["resized"]
    assert resized == "area mean of the 64 x 32 in the middle of 64 x 64 pixels"


def test_files_that_are_no_video(tmp_path: Path) -> None:
    whole = tmp_path / "film.mp4"
    write_video(whole, 5)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-300])
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for path, found in ((cut, "cut.mp4"), (text, "text.mp4"), (tmp_path / "no.mp4", "no file")):
        with pytest.raises(FrameError, match=found):
            open_source(f"video:{path}", spec())
    rain = FrameCodec(quantity="rain rate", units="mm h-1", high=60.0)
    with pytest.raises(UsageError, match="grey or colour pictures"):
        open_source(str(whole), SourceSpec(SHAPE, rain))
    with SourceReader(open_source(str(whole), spec(None, (1, 128, 128)))) as reader:
        items = reader.wait_for_end()
    assert all(isinstance(item, BadFrame) for item in items)
    assert "never enlarged" in items[0].reason  # type: ignore[union-attr]


# -- standard input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "timed"),
    [
        (["-f", "nut", "-c:v", "rawvideo"], True),
        (["-f", "mpegts", "-c:v", "mpeg2video", "-qscale:v", "1"], True),
        (["-f", "matroska", "-c:v", "libx264", "-crf", "1"], True),
        (["-f", "image2pipe", "-c:v", "png"], False),
        (["-f", "image2pipe", "-c:v", "mjpeg", "-q:v", "1"], False),
    ],
    ids=["nut", "mpegts", "matroska", "png", "mjpeg"],
)
def test_ffmpeg_by_a_pipe(tmp_path: Path, kind: list[str], timed: bool) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg command on this machine")
    write_video(tmp_path / "film.mp4", 20)
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "film.mp4"), *kind, "-"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        source = StdinSource(process.stdout.fileno(), spec(0.2, start=MADE))
        with SourceReader(source) as reader:
            reader.wait_for_end()
    frames = reader.frames
    wanted = list(range(0, 20, 2)) if timed else list(range(20))
    assert close_to(levels(frames), [level(n) for n in wanted]), levels(frames)
    assert offsets(frames) == [round(0.2 * n, 3) for n in range(len(wanted))]


@pytest.mark.parametrize(("pixels", "channels"), [("gray", 1), ("yuv420p", 1), ("", 3), ("", 1)])
@pytest.mark.parametrize("rate", ["", "10"])
def test_raw_video_by_a_pipe(pixels: str, channels: int, rate: str) -> None:
    """As FFmpeg writes it; without a rate, pictures are one cadence apart."""
    read, write = os.pipe()
    kind = pixels or {1: "gray", 3: "rgb24"}[channels]
    pictures = [av.VideoFrame.from_ndarray(grey(n), format="rgb24") for n in range(20)]
    raw = b"".join(one.reformat(format=kind).to_ndarray().tobytes() for one in pictures)
    options = {"size": "64x64", "pixel_format": pixels, "rate": rate, "start": MADE}
    given = {name: value for name, value in options.items() if value}
    source = StdinSource(read, spec(0.2, (channels, 16, 16), **given))
    with SourceReader(source) as reader, os.fdopen(write, "wb") as file:
        file.write(raw)
        file.write(raw[:1000])  # it breaks off
        file.close()
        items = reader.wait_for_end()
    os.close(read)
    frames = [item for item in items if isinstance(item, Frame)]
    wanted = list(range(0, 20, 2)) if rate else list(range(20))
    assert close_to(levels(frames), [level(n) for n in wanted]), levels(frames)
    assert offsets(frames) == [round(0.2 * n, 3) for n in range(len(wanted))]
    assert len(items) == len(frames) + 1, items
    assert isinstance(items[-1], BadFrame)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"format": "rawvideo"}, "without a size; .*size=640x480"),
        ({"pixel_format": "gray"}, "without a size"),
        ({"size": "64"}, "of the size 64; expected WIDTHxHEIGHT"),
        ({"size": "64x64", "pixel_format": "grey"}, "pixel_format=grey is none"),
        ({"size": "64x64", "format": "nut"}, "beside format=nut"),
        ({"size": "64x64", "rate": "0"}, "rate=0"),
        ({"size": "99999x99999"}, "--max-pixels"),
    ],
)
def test_raw_video_that_cannot_be_read(options: dict[str, str], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        StdinSource(0, spec(**options))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_an_array_larger_than_memory_by_a_pipe(pipe: tuple[int, int]) -> None:
    read, write = pipe
    head = {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
    with SourceReader(StdinSource(read, spec(300.0, start=MADE))) as reader:
        with os.fdopen(write, "wb") as file:
            np.lib.format.write_array_header_1_0(file, head)
        (bad,) = reader.wait_for_end()
    assert isinstance(bad, BadFrame)
    assert "is no .npy" in bad.reason


def test_arrays_by_a_pipe(pipe: tuple[int, int]) -> None:
    read, write = pipe
    with SourceReader(StdinSource(read, spec(300.0, start=MADE))) as reader:
        with os.fdopen(write, "wb") as file:
            for n in range(3):
                file.write(npy(picture(n)))
                file.flush()
                reader.wait_for(n + 1)  # none waits for the next
            file.write(npy(np.zeros((4, 4), np.float32)))
            file.write(b"\x93NUMPY and then nothing")
        items = reader.wait_for_end()
    for n, item in enumerate(items[:3]):
        assert isinstance(item, Frame)
        np.testing.assert_array_equal(item.data, picture(n))
        assert item.valid_time == START + timedelta(seconds=300 * n)
    reasons = [item.reason for item in items[3:] if isinstance(item, BadFrame)]
    assert len(reasons) == 2
    assert "(1, 4, 4)" in reasons[0]
    assert "is no .npy" in reasons[1]


@pytest.mark.parametrize(
    ("content", "error", "found"),
    [
        (b"", SourceLostError, "before the first byte"),
        (b"no such thing" * 100, FrameError, "nothing that is known"),
    ],
)
def test_a_pipe_with_nothing_in_it(
    pipe: tuple[int, int], content: bytes, error: type[Exception], found: str
) -> None:
    read, write = pipe
    os.write(write, content)
    os.close(write)
    with SourceReader(StdinSource(read, spec())) as reader, pytest.raises(error, match=found):
        reader.wait_for_end()


def test_a_silent_pipe_stops_when_asked(pipe: tuple[int, int]) -> None:
    read, write = pipe
    with SourceReader(StdinSource(read, spec())):
        pass
    os.close(write)


# -- networks ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


RTSP_SERVER = """
import sys, threading
import numpy as np, rtsp
from PIL import Image
pictures = [np.full((64, 64, 3), 20 + 10 * n, np.uint8) for n in range(20)]
server = rtsp.Source(sys.argv[1], fps=10, frame_buffer=map(Image.fromarray, pictures))
assert server.wait_ready() and server.wait_encoding_started()
print("ready", flush=True)
threading.Event().wait()
"""


@contextmanager
def rtsp_server(port: int) -> Iterator[subprocess.Popen[str]]:
    """PyPI's rtsp in a process of its own, so that it can be killed."""
    pytest.importorskip("rtsp")
    command = [sys.executable, "-c", RTSP_SERVER, f"rtsp://127.0.0.1:{port}/live"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_an_rtsp_server_that_is_killed_and_restarted(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    source = open_source(f"rtsp://eva:s3cret@127.0.0.1:{port}/live", spec(0.2))
    with SourceReader(source) as reader:
        reasons = [reader.wait_for_state("down").reason]  # nobody there yet: it waits
        with rtsp_server(port):
            reader.wait_for(5)
            began = datetime.now(timezone.utc)
        reasons.append(reader.wait_for_state("down").reason)
        time.sleep(1.5)  # long enough for the back-off to grow
        count = len(reader.items)
        with rtsp_server(port):
            back = time.monotonic()
            reader.wait_for_state("up")
            seen = time.monotonic() - back
            reader.wait_for(count + 5)
            took = reader.arrivals[count].arrived - back
            reconnects = source.health.now().reconnects
    frames = reader.frames
    text = " ".join([source.name, *reasons, *capfd.readouterr()])
    sys.stderr.write(f"rtsp: up {seen:.2f} s after its return, a frame {took:.2f} s after\n")
    assert took < 15.0  # 2 s on a quiet machine
    assert reconnects == 2
    assert set(levels(frames)) <= {level(n) + d for n in range(20) for d in range(-3, 4)}
    slots = [(frame.valid_time - EPOCH) / timedelta(seconds=0.2) for frame in frames]
    assert all(abs(slot - round(slot)) <= 0.26 for slot in slots)  # one grid all the time
    assert len({round(slot) for slot in slots}) == len(frames)
    assert abs((frames[4].valid_time - began).total_seconds()) < 2.0
    # The times are true: the server shows another picture every 0.1 s. (While the machine is busy
    # it leaves some out, and the clock settles within the first frames.)
    steps = np.diff(levels(frames)) - 20 * np.diff(np.round(slots))
    off = np.abs((steps + 100) % 200 - 100)
    assert np.median(off) <= 3, off
    assert "Connection refused" in reasons[0]
    assert reasons[1]
    assert "s3cret" not in text
    assert "eva" not in text


def test_a_peer_that_accepts_and_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        word = f"rtsp://127.0.0.1:{deaf.getsockname()[1]}/live"
        with SourceReader(open_source(word, spec(timeout="0.3"))) as reader:
            now = reader.wait_for_state("down")
    assert now.reason


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_mpegts_that_is_pushed(scheme: str) -> None:
    """Another process sends; over TCP it is the server, over UDP we listen."""
    port = free_port()
    script = """
import sys, time, av, numpy as np
from fractions import Fraction
url = sys.argv[1]
with av.open(url, "w", format="mpegts") as container:
    stream = container.add_stream("mpeg2video", rate=10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    stream.gop_size = 5
    for n in range(1000):
        picture = np.full((64, 64, 3), 20 + 10 * (n % 20), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = n, Fraction(1, 10)
        container.mux(stream.encode(frame))
        time.sleep(0.02)
"""
    listen = "?listen=1" if scheme == "tcp" else "?pkt_size=1316"
    command = [sys.executable, "-c", script, f"{scheme}://127.0.0.1:{port}{listen}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            with SourceReader(open_source(f"{scheme}://127.0.0.1:{port}", spec())) as reader:
                reader.wait_for(10)
        finally:
            process.kill()
    frames = reader.frames
    assert set(levels(frames)) <= {level(n) + d for n in range(20) for d in range(-4, 5)}


@pytest.mark.parametrize("word", ["rtsp:", "rtsp:///live", "rtsp://h:x/live"])
def test_urls_without_a_host(word: str) -> None:
    with pytest.raises(UsageError, match="names no host"):
        open_source(word, spec())


# -- devices -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="devices have other names there")
def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(EnvironmentFault, match="no camera at /dev/video73; expected") as caught:
        open_source("camera:73", spec())
    assert caught.value.exit_code == 4
    with pytest.raises(EnvironmentFault, match="no camera at /dev/null/x"):
        open_source("camera:/dev/null/x", spec())
    with pytest.raises(EnvironmentFault, match="/dev/null does not open: "):
        open_source("camera:/dev/null", spec())
    with pytest.raises(UsageError, match=r"no option sise; .*try: size="):
        open_source("camera:73", spec(sise="640x480"))


def test_a_device_by_the_class_of_the_camera() -> None:
    """FFmpeg's test picture is a device like a camera: what differs is its name."""
    wanted = spec(0.2)
    device = "testsrc=size=64x48:rate=10,realtime"
    pictures = Pictures(wanted, "area", "camera:test")
    source = LiveVideo(device, "camera:test", wanted, pictures, container="lavfi")
    with SourceReader(source) as reader:
        reader.wait_for(4)
    frames = reader.frames
    steps = np.diff([frame.valid_time.timestamp() for frame in frames])
    assert np.all(np.abs(steps - 0.2) < 0.11)
    assert frames[0].data.shape == SHAPE
    assert len({frame.data.tobytes() for frame in frames}) == len(frames)
