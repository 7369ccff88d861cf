"""The watched folder, with files that another process writes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_core.codec import FrameCodec
from stpl_core.errors import UsageError
from stpl_core.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.links.health import HealthNow
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.source import Arrival, BadFrame, SourceSpec, open_source
from stpl_runtime.sources.folder import FolderSource, frame_files
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from tests.runtime.conftest import make_frame, picture, slot_time

SPEC = SourceSpec((1, 16, 16), FrameCodec())
SETTLE_S = 0.4


def name_of(slot: int, suffix: str = ".npy") -> str:
    return f"radar_{slot_time(slot):%Y%m%d%H%M}{suffix}"


class Reader:
    """Reads a source in a thread and lets a test wait for what arrives."""

    def __init__(self, source: FolderSource) -> None:
        self.arrivals: list[Arrival] = []
        self.error: Exception | None = None
        self.source = source
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for arrival in self.source.arrivals(self._stop):
                with self._changed:
                    self.arrivals.append(arrival)
                    self._changed.notify_all()
        except Exception as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()

    @property
    def items(self) -> list[Frame | BadFrame]:
        return [arrival.item for arrival in self.arrivals]

    def wait_for(self, count: int) -> list[Frame | BadFrame]:
        """The first `count` items, once they are there."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self.arrivals) >= count or self.error is not None, timeout=30
            )
        if self.error is not None:
            raise self.error
        return self.items[:count]

    def wait_for_error(self) -> Exception:
        with self._changed:
            assert self._changed.wait_for(lambda: self.error is not None, timeout=30)
        assert self.error is not None
        return self.error

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


Watch = Callable[..., Reader]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture(params=[False, True], ids=["events", "polling"])
def watch(request: pytest.FixtureRequest, folder: Path) -> Iterator[Watch]:
    readers: list[Reader] = []

    def start(spec: SourceSpec = SPEC, **options: object) -> Reader:
        chosen = {"settle_s": SETTLE_S, "force_polling": request.param, **options}
        readers.append(Reader(FolderSource(folder, spec, **chosen)))  # type: ignore[arg-type]
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


def values(item: Frame | BadFrame) -> np.ndarray:
    assert isinstance(item, Frame), item
    return item.data


def test_what_is_there_comes_in_the_order_of_time_then_what_is_written(
    folder: Path, watch: Watch
) -> None:
    for slot in (2, 0, 1):
        np.save(folder / name_of(slot), picture(slot))
    reader = watch()
    reader.wait_for(3)
    np.save(folder / name_of(3), picture(3))
    reader.wait_for(4)
    Image.fromarray((picture(4)[0] * 255).astype(np.uint8)).save(folder / name_of(4, ".png"))
    items = reader.wait_for(5)
    assert [item.valid_time for item in items if isinstance(item, Frame)] == [
        slot_time(n) for n in range(5)
    ]
    for slot, item in enumerate(items[:4]):
        np.testing.assert_array_equal(values(item), picture(slot))
    np.testing.assert_allclose(values(items[4]), picture(4), rtol=0, atol=1 / 255)


def test_names_that_are_not_frames_are_ignored(folder: Path, watch: Watch) -> None:
    for name in (".hidden.npy", "x.npy.tmp", "x.npy.part", "notes.txt", "a.npz.part"):
        (folder / name).write_bytes(b"not a frame")
    (folder / f"dir_{name_of(7)}").mkdir()
    reader = watch()
    np.save(folder / name_of(0), picture(0))
    reader.wait_for(1)
    np.save(folder / name_of(1), picture(1))
    assert [item.source_id for item in reader.wait_for(2)] == [name_of(0), name_of(1)]


WRITER = """
import sys, time
from pathlib import Path
path, pieces, data = Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer.read()
size = -(-len(data) // pieces)
with path.open("wb") as file:
    for start in range(0, len(data), size):
        file.write(data[start : start + size])
        file.flush()
        print(start, flush=True)
        sys.stdin.close() if start == 0 else None
        time.sleep(0.15)
"""


def file_bytes(slot: int, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, picture(slot))
    else:
        Image.fromarray((picture(slot)[0] * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_a_slow_writer_is_waited_for(folder: Path, watch: Watch, suffix: str) -> None:
    """Another process writes in pieces; each pause is shorter than the settling time."""
    reader = watch(settle_s=2.0)
    subprocess.run(
        [sys.executable, "-c", WRITER, folder / name_of(0, suffix), "5"],
        input=file_bytes(0, suffix),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (item,) = reader.wait_for(1)
    np.testing.assert_allclose(values(item), picture(0), rtol=0, atol=1 / 255)
    np.save(folder / name_of(1), picture(1))
    items = reader.wait_for(2)  # the slow file did not arrive in between as something else
    assert [item.source_id for item in items] == [name_of(0, suffix), name_of(1)]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", b"garbage" * 50])
def test_a_broken_file_is_reported_once_and_stepped_over(
    folder: Path, watch: Watch, content: bytes
) -> None:
    (folder / name_of(0)).write_bytes(content)
    whole = file_bytes(1, ".npy")
    reader = watch()
    (folder / name_of(1)).write_bytes(whole[:-100])  # truncated
    np.save(folder / name_of(2), picture(2))
    items = reader.wait_for(3)
    assert isinstance(items[0], Frame)  # is not held up by the two others
    bad = [item for item in items if isinstance(item, BadFrame)]
    assert sorted(item.source_id for item in bad) == [name_of(0), name_of(1)]
    (folder / name_of(1)).write_bytes(whole)  # written again, whole
    np.testing.assert_array_equal(values(reader.wait_for(4)[3]), picture(1))


def test_an_atomic_rename_is_seen_at_once(folder: Path) -> None:
    """By the event: no listing happens meanwhile, and no time to settle is taken."""
    source = FolderSource(folder, SPEC, settle_s=1e9, rescan_s=1e9, force_polling=False)
    reader = Reader(source)
    try:
        np.save(folder / name_of(0), picture(0))
        reader.wait_for(1)
        script = (
            "import os, sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read()); "
            "os.replace(sys.argv[1], sys.argv[2])"
        )
        for slot in (1, 2):
            subprocess.run(
                [sys.executable, "-c", script, folder / ".x.tmp", folder / name_of(slot)],
                input=file_bytes(slot, ".npy"),
                check=True,
            )
            np.testing.assert_array_equal(values(reader.wait_for(slot + 1)[slot]), picture(slot))
    finally:
        reader.close()


def test_lost_events_are_made_up_for_by_listing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hard link count or an exotic file system can hide a file from the events."""
    import watchfiles

    real = watchfiles.watch
    monkeypatch.setattr(
        watchfiles,
        "watch",
        lambda *a, **k: (set() for _ in real(*a, **k)),  # every event is lost
    )
    reader = Reader(FolderSource(folder, SPEC, rescan_s=0.05))
    try:
        np.save(folder / name_of(0), picture(0))
        reader.wait_for(1)
        np.save(folder / name_of(1), picture(1))
        reader.wait_for(2)
    finally:
        reader.close()


def test_an_overwritten_file_arrives_again(folder: Path, watch: Watch) -> None:
    np.save(folder / name_of(0), picture(0))
    reader = watch()
    reader.wait_for(1)
    staged = folder / ".staged.tmp"
    for n in (1, 2):
        staged.write_bytes(file_bytes(n, ".npy"))
        staged.replace(folder / name_of(0))
        np.testing.assert_array_equal(values(reader.wait_for(n + 1)[n]), picture(n))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((16, 17), np.float32), "shape (1, 16, 17)"),
        (np.zeros((3, 16, 16), np.float32), "shape (3, 16, 16)"),
        (np.full((1, 16, 16), 7.0, np.float32), "values from 7 to 7"),
        (np.full((1, 16, 16), np.nan, np.float32), "NaN"),
        (np.zeros((1, 16, 16), np.complex64), "complex64"),
        (np.zeros((1, 16, 16), bool), "bool"),
    ],
)
def test_frames_that_do_not_fit_are_bad(folder: Path, array: np.ndarray, reason: str) -> None:
    np.save(folder / name_of(0), array)
    reader = Reader(FolderSource(folder, SPEC, settle_s=0.1))
    try:
        (item,) = reader.wait_for(1)
    finally:
        reader.close()
    assert isinstance(item, BadFrame)
    assert reason in item.reason
    assert "expected" in item.reason


def test_a_folder_that_goes_away_is_waited_for(folder: Path, watch: Watch) -> None:
    """As a mount does; also one that may not be read for a while."""
    np.save(folder / name_of(0), picture(0))
    reader = watch()
    reader.wait_for(1)
    for n in (1, 2):
        shutil.rmtree(folder)
        now = wait_for_state(reader, "down")
        assert str(folder) in now.reason
        staged = folder.with_name(f"staged{n}")
        staged.mkdir()
        np.save(staged / name_of(n), picture(n))
        back = time.monotonic()
        staged.rename(folder)
        np.testing.assert_array_equal(values(reader.wait_for(n + 1)[n]), picture(n))
        sys.stderr.write(f"folder: {reader.arrivals[n].arrived - back:.2f} s after its return\n")
    assert wait_for_state(reader, "up").reconnects == 2
    np.save(folder / name_of(3), picture(3))
    reader.wait_for(4)
    if os.geteuid() != 0:
        folder.chmod(0)
        assert "Permission denied" in wait_for_state(reader, "down").reason
        folder.chmod(0o700)
        np.save(folder / name_of(4), picture(4))
        reader.wait_for(5)


def wait_for_state(reader: Reader, state: str) -> HealthNow:
    deadline = time.monotonic() + 30
    while (now := reader.source.health.now()).state != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return now


def test_subfolders_where_asked_for(folder: Path, watch: Watch) -> None:
    (folder / "20260131").mkdir()
    (folder / ".cache").mkdir()
    np.save(folder / "20260131" / name_of(0), picture(0))
    np.save(folder / ".cache" / name_of(5), picture(5))
    reader = watch(SourceSpec((1, 16, 16), FrameCodec(), options={"recursive": "yes"}))
    reader.wait_for(1)
    (folder / "20260201").mkdir()
    np.save(folder / ".cache" / name_of(6), picture(6))
    np.save(folder / "20260201" / name_of(1), picture(1))
    np.save(folder / name_of(2), picture(2))
    items = reader.wait_for(3)
    assert {item.source_id for item in items} == {name_of(n) for n in range(3)}


def test_files_of_a_reader_with_many_frames_in_one(folder: Path, watch: Watch) -> None:
    pytest.importorskip("netCDF4")
    xarray = pytest.importorskip("xarray")
    reader = watch()
    for first in (0, 2):
        times = np.array([slot_time(first + n).replace(tzinfo=None) for n in (0, 1)], "M8[ns]")
        frames = np.stack([picture(first + n)[0] for n in (0, 1)])
        array = xarray.DataArray(frames, dims=("time", "y", "x"), coords={"time": times})
        array.attrs["units"] = "1"
        array.to_dataset(name="grey").to_netcdf(folder / f"a{first}.nc.part")
        (folder / f"a{first}.nc.part").rename(folder / f"a{first}.nc")
        reader.wait_for(first + 2)
    (folder / "b.nc").write_bytes((folder / "a0.nc").read_bytes()[:-2000])
    bad = reader.wait_for(5)[4]
    assert isinstance(bad, BadFrame)
    assert bad.reason.startswith("b.nc cannot be read as netcdf")
    for n, item in enumerate(reader.items[:4]):
        assert isinstance(item, Frame)
        assert item.valid_time == slot_time(n)
        np.testing.assert_array_equal(item.data, picture(n))


def test_a_folder_that_is_replaced_is_watched_on(folder: Path, watch: Watch) -> None:
    reader = watch()
    np.save(folder / name_of(0), picture(0))
    reader.wait_for(1)
    new = folder.parent / "new"
    new.mkdir()
    np.save(new / name_of(1), picture(1))
    # Both at once, so that the path is never seen missing.
    script = (
        "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True); "
        "sys.exit(libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2))"
    )
    done = subprocess.run([sys.executable, "-c", script, new, folder], check=False)
    if done.returncode:
        pytest.skip("this system cannot exchange two folders")
    reader.wait_for(2)
    np.save(folder / name_of(2), picture(2))
    assert [item.source_id for item in reader.wait_for(3)] == [name_of(n) for n in range(3)]


def test_an_index_without_a_cadence_ends_the_source(folder: Path) -> None:
    np.save(folder / "frame_0.npy", picture(0))
    reader = Reader(FolderSource(folder, SPEC))
    error = reader.wait_for_error()
    reader.close()
    assert isinstance(error, UsageError)
    assert "--cadence" in str(error)


def test_unusable_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for rest, found in ((tmp_path / "no", "no folder"), (f"folder:{file}", "is a file")):
        with pytest.raises(UsageError, match=found):
            open_source(str(rest), SPEC)
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0)
        with pytest.raises(UsageError, match="Permission denied"):
            open_source(str(closed), SPEC)


@pytest.mark.parametrize("form", ["{}", "folder:{}", "folder://{}", "FOLDER:{}"])
def test_forms_of_a_source(folder: Path, form: str) -> None:
    source = open_source(form.format(folder), SPEC)
    assert isinstance(source, FolderSource)
    assert source.path == folder


def test_an_unknown_scheme_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown source foldr.*try: folder:/x"):
        open_source("foldr:/x", SPEC)


def test_a_stream_fed_by_another_process(folder: Path, bundle: Bundle, session: Session) -> None:
    """Plain writes, renames, a repeat, a correction and a truncated file, in one go."""
    script = """
import os, sys
from pathlib import Path
folder, data = Path(sys.argv[1]), Path(sys.argv[2])
for name in sorted(os.listdir(data)):
    number, _, target = name.partition("_")
    content = (data / name).read_bytes()
    if int(number) % 2:
        (folder / target).write_bytes(content)
    else:
        (folder / (target + ".part")).write_bytes(content)
        os.replace(folder / (target + ".part"), folder / target)
    sys.stdin.readline()
"""
    data = folder.parent / "data"
    data.mkdir()
    plan = [(n, n) for n in range(6)] + [(4, 4), (5, 99), (6, 6)]  # a repeat, a correction
    for number, (slot, content) in enumerate(plan):
        (data / f"{number:02d}_{name_of(slot)}").write_bytes(file_bytes(content, ".npy"))
    cut = file_bytes(50, ".npy")[:-9]
    (data / f"99_{name_of(50)}").write_bytes(cut)
    ledger = Ledger()
    nowcaster = Nowcaster(bundle, session, cadence_s=300.0, ledger=ledger)
    source = FolderSource(folder, SPEC, settle_s=SETTLE_S)
    streams = Streams([Stream(nowcaster, source, ledger=ledger)])
    writer = subprocess.Popen(
        [sys.executable, "-c", script, folder, data], stdin=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None

    def feed() -> None:
        """Let the writer go on when the file before has been counted."""
        assert writer.stdin is not None
        for number in range(len(plan) + 1):
            deadline = time.monotonic() + 30
            while (c := ledger.snapshot()).received - c.pending <= number:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.005)
            writer.stdin.write("\n")
            writer.stdin.flush()
        streams.stop()

    feeder = threading.Thread(target=feed)
    feeder.start()
    report = streams.run().only
    assert report is not None
    feeder.join()
    writer.stdin.close()
    assert writer.wait(timeout=30) == 0
    counts = report.counts
    assert (counts.used, counts.duplicate, counts.bad, counts.received) == (7, 2, 1, 10)
    assert (report.nowcasts, report.skipped, report.incomplete) == (4, 0, 3)
    assert nowcaster.window.complete() is not None
    newest = nowcaster.window.complete()
    assert newest is not None
    np.testing.assert_array_equal(newest[-2].frame.data, picture(99))
    assert make_frame(6).valid_time == newest[-1].frame.valid_time


def test_links_and_subfolders_that_go_hide_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link upwards goes round for ever; a day's folder is deleted while all are listed."""
    for day in ("a", "b", "c"):
        (folder / day).mkdir()
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "elsewhere").symlink_to(folder.parent / "other", target_is_directory=True)
    (folder.parent / "other").mkdir()
    for slot, name in enumerate(("a", "c", "elsewhere")):
        np.save(folder / name / name_of(slot), picture(slot))
    before = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "b":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return before(path)

    monkeypatch.setattr("stpl_runtime.sources.folder.os.scandir", scandir)
    found = frame_files(folder, recursive=True)
    assert sorted(path.name for path in found) == [name_of(slot) for slot in range(3)]
