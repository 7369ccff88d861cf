"""Sources as a person names them on the command line: words, mistakes, secrets, own sources."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_core.codec import FrameCodec
from stpl_core.errors import UsageError
from stpl_core.frames import Frame
from stpl_runtime.plugins import load_word
from stpl_runtime.source import SOURCES, BadFrame, SourceSpec, open_source
from stpl_runtime.sources.folder import FolderSource
from stpl_runtime.sources.replay import ReplaySource
from tests.runtime.conftest import Cli, picture, slot_time
from tests.runtime.sources.source_reader import SourceReader

SPEC = SourceSpec((1, 16, 16), FrameCodec())
MOUNT = "mount it, or copy its files into a folder as they come, and give that folder"
PIPE = "ffmpeg -i {} -c copy -f nut - | stpl-deploy stream BUNDLE -"


def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """A whole process: what libraries in C write to its stderr is seen too."""
    command = [sys.executable, "-m", "stpl_deploy", *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_every_word_leads_to_a_function() -> None:
    pytest.importorskip("httpx")
    for word in SOURCES:
        assert callable(load_word("source", word, SOURCES, "stpl_deploy.sources"))


def test_the_document_names_every_word_and_option() -> None:
    text = (Path(__file__).parents[3] / "docs" / "live-sources.md").read_text()
    for word in SOURCES:
        assert re.search(rf"`{re.escape(word)}:", text), word
    for module in {place.partition(":")[0] for place in SOURCES.values()}:
        for option in importlib.import_module(module).OPTIONS:
            assert re.search(rf"`{option}=", text) or option == "resize", (module, option)


def test_a_path_is_what_lies_there(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.stack([picture(n) for n in range(3)]))
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / "zarr.json").write_text("{}")
    assert isinstance(open_source(str(tmp_path), SPEC), FolderSource)
    assert isinstance(open_source(str(tmp_path / "frames.npy"), SPEC), ReplaySource)
    assert isinstance(open_source(str(tmp_path / "store.zarr"), SPEC), ReplaySource)


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("htps://host/x", "https://host/x"),
        ("rstp://host/x", "rtsp://host/x"),
        ("camra:0", "camera:0"),
        ("mqqt://host/t", "mqtt://host/t"),
        ("kafak://host:9092/t", "kafka://host:9092/t"),
        ("s4://bucket/p", "s3://bucket/p"),
        ("gcs://bucket/p", "gs://bucket/p"),
        ("az://bucket/p", "abfs://bucket/p"),
        ("minio://bucket/p", "s3://bucket/p with --source-option endpoint=URL"),
        ("file:///no/folder", "/no/folder"),
        ("file:folder", "folder"),
        ("rtps://eva:s3cret@host/x", "rtsp://***@host/x"),
        ("ftp://eva:s3cret@host/x", MOUNT),
        ("sftp://host/x", MOUNT),
        ("rtps:eva:s3cret@host/x", "rtsp://***@host/x"),
        ("wss://eva:s3cret@host/x", "mqtt+wss://***@host/x, if it speaks MQTT"),
        ("srt://host:9000", PIPE.format("srt://host:9000")),
        ("webcam:0", "camera:0"),
        ("nonsense:x", "one of these; docs/live-sources.md says what each takes"),
    ],
)
def test_an_unknown_word_is_told_with_what_was_meant(word: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=r"unknown source \w+; expected a path, or ") as caught:
        open_source(word, SPEC)
    assert caught.value.fix == nearest
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("slashes", ["", "/"])
@pytest.mark.parametrize(
    "word", ["http", "https", "rtsp", "udp", "mqtt", "mqtt+wss", "kafka", "zmq", "s3", "gs"]
)
def test_an_address_without_its_slashes(word: str, slashes: str) -> None:
    with pytest.raises(UsageError, match="names no host") as caught:
        open_source(f"{word}:{slashes}eva:s3cret@host:1/x", SPEC)
    assert caught.value.fix == f"{word}://***@host:1/x"
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "code", "found"),
    [
        ("foldr:/x", 2, "unknown source foldr"),
        ("camera:73", 4, "no camera at /dev/video73"),
        ("video:/no/film.mp4", 2, "no file /no/film.mp4"),
        ("replay:/no/archive", 2, "no file or folder /no/archive"),
        ("rtsp:///live", 2, "names no host"),
        ("http:///x.png", 2, "no host"),
        ("s3:///x", 2, "names no bucket"),
    ],
)
def test_a_mistake_is_one_line(cli: Cli, bundle: Bundle, word: str, code: int, found: str) -> None:
    for library in ("av", "httpx", "fsspec"):
        pytest.importorskip(library)
    got, out, err = cli("stream", bundle.path, word)
    assert (got, out) == (code, "")
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert found in err


def test_credentials_are_never_printed(bundle: Bundle) -> None:
    """Of sources that are refused, cut off or unknown; on stderr, and in the summary."""
    for library in ("av", "httpx"):
        pytest.importorskip(library)
    words = (
        "a=http://eva:s3cret@127.0.0.1:1/x.png?token=t0ken",
        "b=rtsp://eva:s3c@ret@127.0.0.1:1/live",
        "c=rtmp://eva:s3cret@127.0.0.1:1/live",
        "d=https://eva:s3cret@127.0.0.1:1/%Y%m%d/x.png",
    )
    options = ("--idle-timeout", 2, "--cadence", 60, "--json")
    done = run("stream", bundle.path, *words, *options)
    assert done.stderr.count("is down") == len(words), done.stderr
    json.loads(done.stdout)
    for secret in ("s3cret", "s3c", "ret@", "t0ken", "eva"):
        assert secret not in done.stdout + done.stderr


def run_with_few_rights(*words: object) -> subprocess.CompletedProcess[str]:
    """`stpl-deploy WORDS...` by a user whom a file's mode binds."""
    limits: list[str] = []
    if os.geteuid() == 0:  # may read and write everything, unless that is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root may read and write everything, and there is no setpriv")
        limits = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*limits, sys.executable, "-m", "stpl_deploy", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_folder_without_rights(bundle: Bundle, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    done = run_with_few_rights("stream", bundle.path, closed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"error: {closed} cannot be read: Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("sink", "mode"),
    [
        ("npz:closed", 0o555),
        ("npz:closed/latest.npz", 0o555),
        ("npz:closed/below", 0o555),
        ("jsonl:closed/x.jsonl", 0o555),
        ("jsonl:closed/x.jsonl", 0),
    ],
)
def test_a_sink_without_rights_is_told_before_the_first_frame(
    bundle: Bundle, tmp_path: Path, sink: str, mode: int
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=mode)
    (tmp_path / "frames").mkdir()
    sink = sink.replace("closed", str(closed))
    done = run_with_few_rights("stream", bundle.path, tmp_path / "frames", "--sink", sink)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    assert f"error: cannot write {closed}" in done.stderr
    assert "Permission denied" in done.stderr


def test_lines_go_on_in_a_file_of_a_folder_without_rights(bundle: Bundle, tmp_path: Path) -> None:
    """As a log's: the file is the service's, its folder is not."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "x.jsonl").touch()
    closed.chmod(0o555)
    frames = tmp_path / "frames"
    frames.mkdir()
    words = ("--sink", f"jsonl:{closed / 'x.jsonl'}", "--idle-timeout", 1)
    done = run_with_few_rights("stream", bundle.path, frames, *words)
    assert done.returncode == 0, done.stderr


def test_frames_of_a_changing_size_are_one_line(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    for n in range(12):
        size = 16 if n % 3 else 17
        np.save(tmp_path / f"r{slot_time(n):%Y%m%d%H%M}.npy", np.zeros((size, size), np.float32))
    code, out, err = cli("stream", bundle.path, tmp_path, "--idle-timeout", 2.5, "--json")
    assert code == 0
    assert err.count("(1, 17, 17)") == 1
    assert json.loads(out)["counts"]["bad"] == 4


def test_ffmpeg_into_the_command_line(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("av")
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg command on this machine")
    film = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=3")
    command = ["ffmpeg", "-v", "error", *film, "-c:v", "rawvideo", "-f", "nut", "-"]
    out = tmp_path / "out"
    words = ("--cadence", 0.5, "--sink", f"npz:{out}", "--policy", "queue", "--json")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as ffmpeg:
        done = run("stream", bundle.path, "-", *words, stdin=ffmpeg.stdout)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ended"] == "the source ended"
    assert report["counts"]["used"] == report["counts"]["received"] == 7
    assert len(list(out.glob("*.npz"))) == report["nowcasts"] == 4


OWN = """
import threading
from datetime import datetime, timedelta, timezone
import numpy as np
from stpl_core.frames import Frame
from stpl_runtime.links.health import Health
from stpl_runtime.source import Arrival

class Counting:
    waits = True
    def __init__(self, count, spec):
        self.name, self.health, self.count, self.spec = f"count:{count}", Health(), count, spec
    def arrivals(self, stop):
        self.health.up()
        start = datetime(2026, 1, 1, tzinfo=timezone.utc)
        for n in range(self.count):
            data = np.full(self.spec.shape, n / self.count, np.float32)
            yield Arrival.now(Frame(start + timedelta(seconds=60 * n), data, source_id=str(n)))

def open_source(rest, spec):
    return Counting(int(rest), spec)
"""


def test_a_source_of_another_package(bundle: Bundle, tmp_path: Path) -> None:
    """A real installed distribution: metadata, entry points and a module on the path."""
    (tmp_path / "counting.py").write_text(OWN)
    about = tmp_path / "counting-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[stpl_deploy.sources]\ncount = counting:open_source\nbroken = counting:no_such_thing\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run("stream", bundle.path, "count:9", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    assert "watching count:9" in done.stderr
    assert json.loads(done.stdout)["counts"]["used"] == 9
    done = run("stream", bundle.path, "broken:9", env=environment)
    assert done.returncode == 2
    assert "source broken (counting:no_such_thing) does not load" in done.stderr


# -- replay --------------------------------------------------------------------------------------


def options(**given: str) -> SourceSpec:
    return SourceSpec((1, 16, 16), FrameCodec(), options=given)


def test_a_replay_steps_over_a_broken_file_and_loops(tmp_path: Path) -> None:
    for n in (2, 0, 3):
        np.save(tmp_path / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(n))
    (tmp_path / f"r{slot_time(1):%Y%m%d%H%M}.npy").write_bytes(b"garbage")
    source = open_source(f"replay:{tmp_path}", options(speed="0", loop="yes"))
    with SourceReader(source) as reader:
        items = reader.wait_for(8)
    names = [item.source_id for item in items]
    assert names == [f"r{slot_time(n):%Y%m%d%H%M}.npy" for n in range(4)] * 2
    times = [getattr(item, "valid_time", None) for item in items]
    assert times[:4] == [slot_time(0), None, slot_time(2), slot_time(3)]
    assert times[4:] == [slot_time(4), None, slot_time(6), slot_time(7)]


@pytest.mark.parametrize("dated", [True, False])
def test_a_replay_of_pictures_steps_over_what_is_broken(tmp_path: Path, *, dated: bool) -> None:
    """A folder of pictures is read as one: the rest of it must not be lost with one of them."""
    names = [f"{slot_time(n):%Y%m%d%H%M}.png" if dated else f"frame_{n}.png" for n in range(6)]
    for n, name in enumerate(names):
        size = 8 if n == 3 else 16
        Image.fromarray(np.full((size, size), 40 * n, np.uint8)).save(tmp_path / name)
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes()[:60])
    source = open_source(f"replay:{tmp_path}", options(speed="0"))
    with SourceReader(source) as reader:
        reader.wait_for_end()
    items = [arrival.item for arrival in reader.arrivals]
    bad = [item.reason for item in items if isinstance(item, BadFrame)]
    assert len(bad) == 2
    assert names[1] in bad[0]
    assert names[3] in bad[1]
    good = [item for item in items if isinstance(item, Frame)]
    assert [round(item.data.max() * 255) for item in good] == [0, 80, 160, 200]
    if dated:
        assert [item.valid_time for item in good] == [slot_time(n) for n in (0, 2, 4, 5)]


def test_a_replay_of_a_kth_folder_steps_over_a_broken_picture(tmp_path: Path) -> None:
    clip = tmp_path / "boxing" / "person01_boxing_d1_uncomp"
    clip.mkdir(parents=True)
    for n in range(1, 7):
        Image.fromarray(np.full((16, 16), 40 * n, np.uint8)).save(clip / f"image_{n:04}.png")
    (clip / "image_0003.png").write_bytes(b"\x89PNG cut off")
    with SourceReader(open_source(f"replay:{tmp_path}", options(speed="0"))) as reader:
        reader.wait_for_end()
    items = [arrival.item for arrival in reader.arrivals]
    (bad,) = (item for item in items if isinstance(item, BadFrame))
    assert "image_0003.png" in bad.reason
    good = [item for item in items if isinstance(item, Frame)]
    assert [round(item.data.max() * 255) for item in good] == [40, 80, 160, 200, 240]
    steps = [late.valid_time - soon.valid_time for soon, late in pairwise(good)]
    assert steps[0] == steps[2] == steps[3] == timedelta(seconds=0.04)
    assert steps[1] > steps[0]  # a sequence ends there


def test_the_pace_of_a_replay(tmp_path: Path) -> None:
    """300 s between frames, at 3000 times that: 0.1 s each."""
    for n in range(4):
        np.save(tmp_path / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(n))
    source = open_source(f"replay:{tmp_path}", options(speed="3000"))
    with SourceReader(source) as reader:
        reader.wait_for_end()
    arrived = [arrival.arrived for arrival in reader.arrivals]
    assert all(late - arrived[0] >= 0.1 * n - 0.02 for n, late in enumerate(arrived))
    assert source.health.now().state == "ended"


def test_a_replay_of_a_store(tmp_path: Path, cli: Cli, bundle: Bundle) -> None:
    """What `data convert` writes, with its times; the nowcasts equal those of the folder."""
    pytest.importorskip("zarr")
    pytest.importorskip("xarray")
    folder, store = tmp_path / "in", tmp_path / "store.zarr"
    folder.mkdir()
    for n in range(6):
        np.save(folder / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(n))
    assert cli("data", "convert", folder, "--out", store)[0] == 0
    found = {}
    for source in (folder, store):
        out = tmp_path / f"from_{source.name}"
        words = ("--policy", "queue", "--idle-timeout", 1, "--sink", f"npz:{out}", "--json")
        speed = ("--source-option", "speed=0") if source == store else ()
        code, text, err = cli("stream", bundle.path, source, *words, *speed)
        assert code == 0, err
        assert json.loads(text)["counts"]["used"] == 6
        found[source] = {path.name: np.load(path)["frames"] for path in out.glob("*.npz")}
    assert len(found[store]) == 3
    assert found[store].keys() == found[folder].keys()
    for name, frames in found[store].items():
        np.testing.assert_array_equal(frames, found[folder][name])
