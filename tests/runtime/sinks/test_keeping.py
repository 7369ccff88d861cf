"""What the directory sinks keep, what a kill leaves, and JSON lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.errors import SinkError, UsageError
from stpl_core.safety.half_written import hold
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec, open_sink, open_sinks
from tests.runtime.conftest import slot_time
from tests.runtime.sinks.test_sinks import make_nowcast

QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where property tests write: each file is synced."""


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def small(slot: int, **changes: Any) -> Nowcast:
    """A nowcast issued at `slot`."""
    frames = np.full((2, 1, 2, 2), slot % 100, np.float32)
    return replace(
        make_nowcast(minutes=5 * slot), frames=frames, context=frames, context_times=(), **changes
    )


def slots_in(folder: Path, suffix: str = ".npz") -> list[int]:
    """The slots whose nowcasts are there, in order."""
    times = {f"{small(slot).name}{suffix}": slot for slot in range(-40, 80)}
    return sorted(times[path.name] for path in folder.iterdir() if path.name in times)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=15),
    st.none() | st.integers(1, 6),
    st.none() | st.integers(0, 12),
)
def test_the_newest_stay_whatever_the_order(
    slots: list[int], keep: int | None, keep_slots: int | None
) -> None:
    """At every moment: the newest `keep`, none older than the age, of all that were written.

    What is dated after the one just written is older than all others: a clock was set back.
    """
    keep_s = None if keep_slots is None else keep_slots * 300.0
    with tempfile.TemporaryDirectory(dir=QUICK) as directory:
        folder = Path(directory)
        for other in ("notes.txt", "nowcast_99999999T999999Z.npz", "nowcast.npz", "x.npz"):
            (folder / other).touch()
        (folder / f"{small(-40).name}.png").touch()  # another sink's
        sink = open_sink(f"npz:{folder}", SinkSpec(keep=keep, keep_s=keep_s))
        model: set[int] = set()
        for slot in slots:
            sink.write(small(slot))
            model.add(slot)
            too_old = {one for one in model if keep_slots is not None and one < slot - keep_slots}
            if keep is not None:
                model = set(sorted(model, key=lambda one: (one <= slot, one))[-keep:])
            model -= too_old
            if too_old:
                model = {one for one in model if one <= slot}
            assert slots_in(folder) == sorted(model)
        assert len(list(folder.iterdir())) == len(model) + 5


def test_a_restart_with_less_to_keep(tmp_path: Path) -> None:
    everything = open_sink(f"npz:{tmp_path}")
    for slot in range(6):
        everything.write(small(slot))
    open_sink(f"npz:{tmp_path}", SinkSpec(keep=2)).write(small(6))
    assert slots_in(tmp_path) == [5, 6]


def test_each_stream_keeps_its_own(tmp_path: Path) -> None:
    sink = open_sink(f"npz:{tmp_path}/each", SinkSpec(keep=2))
    latest = open_sink(f"png:{tmp_path}/latest.png")
    for slot in range(3):
        for stream in ("north", "../south"):
            sink.write(small(slot, stream=stream))
            latest.write(small(slot, stream=stream))
    folders = sorted(path.name for path in (tmp_path / "each").iterdir())
    assert folders == ["%2E%2E%2Fsouth", "north"]
    for name in folders:
        assert slots_in(tmp_path / "each" / name) == [1, 2]
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["latest_%2E%2E%2Fsouth.png", "latest_north.png"]


FILLING = """
import resource, sys
from stpl_core.errors import SinkError
from stpl_runtime.sink import SinkSpec, open_sink
from tests.runtime.sinks.test_sinks import make_nowcast
sinks = [open_sink(word, SinkSpec(keep=2)) for word in sys.argv[1:]]
for sink in sinks:
    sink.write(make_nowcast(side=64))
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # no file may be longer
for sink in sinks:
    try:
        sink.write(make_nowcast(side=64, minutes=5))
    except SinkError as error:
        print(error)
"""


def test_a_disk_that_fills_leaves_nothing_half_written(tmp_path: Path) -> None:
    for library in ("av", "netCDF4", "zarr", "rasterio"):
        pytest.importorskip(library)
    words = ("npz", "png", "gif", "mp4", "nc", "zarr", "tif", "jsonl")
    places = [f"{word}:{tmp_path}/{word}" for word in words]
    done = subprocess.run(
        [sys.executable, "-c", FILLING, *places],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    said = done.stdout.splitlines()
    assert len(said) == len(words), done.stdout
    for word, line in zip(words, said, strict=True):
        assert f"cannot write {tmp_path}/{word}" in line
        assert "bytes free" in line
        if word == "jsonl":
            assert [one["name"] for one in lines_of(tmp_path / word)] == [make_nowcast().name]
        else:
            left = [path.name for path in (tmp_path / word).iterdir()]
            assert left == [f"{make_nowcast().name}.{word}"]


def test_room_is_made_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no longer to be kept goes first, where the disk is full of it."""
    from stpl_runtime.sinks import file_format

    everything = open_sink(f"npz:{tmp_path}")
    for slot in range(4):
        everything.write(small(slot))
    real = file_format.write_whole

    def full(path: Path, content: bytes) -> None:
        if len(slots_in(path.parent)) >= 4:
            raise SinkError("cannot write: the disk is full")
        real(path, content)

    monkeypatch.setattr(file_format, "write_whole", full)
    open_sink(f"npz:{tmp_path}", SinkSpec(keep=3)).write(small(4))
    assert slots_in(tmp_path) == [2, 3, 4]
    open_sink(f"npz:{tmp_path}", SinkSpec(keep=10)).write(small(5))
    with pytest.raises(SinkError, match="full"):  # nothing may go
        open_sink(f"npz:{tmp_path}", SinkSpec(keep=10)).write(small(6))


def test_what_a_kill_left_is_mended_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What no process is writing goes; a store that had stepped aside comes back."""
    name = f"{small(0).name}.zarr"
    (tmp_path / f".{name}.older").mkdir()
    (tmp_path / f".{name}.older" / ".zgroup").touch()
    stale = [f".{name}.going", f".{name}.0123abcd.partial", f"..{name}.newer.0123abcd.partial"]
    fresh = f".{small(1).name}.zarr.89abcdef.partial"
    other = ".other.zarr.0123abcd.partial"
    for left in (*stale, fresh, other):
        (tmp_path / left).mkdir()
    for left in (*stale, other):
        os.utime(tmp_path / left, (0, 0))
    pytest.importorskip("zarr")
    handle = os.open(tmp_path / fresh, os.O_RDONLY)
    assert hold(handle)
    open_sink(f"zarr:{tmp_path}")
    os.close(handle)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, fresh, other])
    for left in stale:
        assert f"removed {tmp_path / left}, which a" in caplog.text
    assert f"brought back {tmp_path / name}, which" in caplog.text
    assert fresh not in caplog.text


KILLED = """
import sys
from stpl_runtime.sink import SinkSpec, open_sink
from tests.runtime.sinks.test_sinks import make_nowcast
sinks = [open_sink(word, SinkSpec(keep=3)) for word in sys.argv[1:]]
for n in range(100_000):
    for sink in sinks:
        sink.write(make_nowcast(side=64, minutes=5 * n))
    if n == 0:
        print("ready", flush=True)
"""


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """Everything that has a name is whole, and the next process goes on with it."""
    xr = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    lines = tmp_path / "log.jsonl"
    words = [f"zarr:{tmp_path}/z", f"npz:{tmp_path}/n", f"zarr:{tmp_path}/l.zarr", f"jsonl:{lines}"]
    for moment in (0.05, 0.3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, *words],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            process.kill()
        for path in (tmp_path / "n").glob("*.npz"):
            with np.load(path) as archive:
                assert archive["frames"].shape == (3, 1, 64, 64)
        stores = [*(tmp_path / "z").glob("nowcast*.zarr"), *tmp_path.glob("l.zarr")]
        assert len(stores) >= 2
        for path in stores:
            with xr.open_zarr(path) as found:
                assert not np.isnan(found["nowcast"].values).any()
    for word in words:
        open_sink(word, SinkSpec(keep=3)).write(make_nowcast(minutes=10**6))
    for line in [line for path in tmp_path.glob("log.jsonl*") for line in lines_of(path)]:
        assert line["leads"][2]["step"] == 3


def test_json_lines_say_what_was_made(tmp_path: Path) -> None:
    observed = np.ones((16, 16), bool)
    observed[:4] = False
    nowcast = replace(
        make_nowcast(),
        observed=observed,
        context_fill=("", "held", "", ""),
        stream="north",
        latency_ms=12.5,
        source_id="a.h5",
        notes={"licence": "CC BY 4.0"},
    )
    lines, _ = open_sinks([f"jsonl:{tmp_path}/log.jsonl", f"npz:{tmp_path}/out"])
    lines.write(nowcast)
    (found,) = lines_of(tmp_path / "log.jsonl")
    assert found["stream"] == "north"
    assert found["stand_ins"] == ["observed", "held", "observed", "observed"]
    assert found["filled_times"] == ["2026-01-31T23:40:00Z"]
    assert found["latency_ms"] == 12.5
    assert found["observed_share"] == 0.75
    assert found["files"] == [f"{tmp_path}/out/north/nowcast_20260131T235000Z.npz"]
    assert [lead["lead_s"] for lead in found["leads"]] == [300.0, 600.0, 900.0]
    seen = nowcast.frames[1][:, 4:]
    second = found["leads"][1]
    assert second["valid_time"] == "2026-02-01T00:00:00Z"
    assert (second["min"], second["max"]) == (float(seen.min()), float(seen.max()))
    assert second["mean"] == pytest.approx(seen.mean(), rel=1e-6)


def test_json_lines_without_times_or_data(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = np.zeros((16, 16), bool)
    made = replace(
        make_nowcast(), issue_time=None, cadence_s=None, context_times=(), observed=nothing
    )
    open_sink("jsonl:-").write(made)
    found = json.loads(capsys.readouterr().out)
    assert found["issue_time"] is None
    assert found["leads"][0] == {
        "step": 1, "valid_time": None, "lead_s": None, "min": None, "mean": None, "max": None
    }  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(1, 25), st.integers(0, 25))
def test_json_lines_turn_over(keep: int, count: int, restart: int) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK) as directory:
        path = Path(directory) / "log.jsonl"
        sink = open_sink(f"jsonl:{path}", SinkSpec(keep=keep))
        for slot in range(count):
            if slot == restart:
                sink = open_sink(f"jsonl:{path}", SinkSpec(keep=keep))
            sink.write(small(slot))
        files = [one for one in (path.with_name("log.jsonl.1"), path) if one.exists()]
        times = [line["issue_time"] for one in files for line in lines_of(one)]
    wanted = [f"{slot_time(slot):%Y-%m-%dT%H:%M:%SZ}" for slot in range(count)]
    assert times == wanted[len(wanted) - len(times) :]
    assert min(keep, count) <= len(times) <= 2 * keep


def test_json_lines_turn_over_by_age(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for slot in range(10):
        open_sink(f"jsonl:{path}", SinkSpec(keep_s=600.0)).write(small(slot))
    times = [line["issue_time"] for line in lines_of(path)]
    assert times == [f"{slot_time(9):%Y-%m-%dT%H:%M:%SZ}"]
    assert len(path.with_name("log.jsonl.1").read_text().splitlines()) == 3


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    open_sink(f"jsonl:{path}").write(small(0))
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"issue')
    open_sink(f"jsonl:{path}")
    assert path.read_bytes() == whole


@pytest.mark.parametrize("word", ["gif", "mp4"])
def test_films_have_a_rate(tmp_path: Path, word: str) -> None:
    if word == "mp4":
        av = pytest.importorskip("av")
    open_sink(f"{word},fps=10:{tmp_path}/out.{word}").write(make_nowcast())
    path = tmp_path / f"out.{word}"
    if word == "mp4":
        with av.open(str(path)) as film:
            assert film.streams.video[0].average_rate == 10
            assert len(list(film.decode(video=0))) == 7
    else:
        from PIL import Image

        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert image.info["duration"] == 100
    for wrong in ("0", "fast", "1000"):
        with pytest.raises(UsageError, match=r"a number from 0\.1 to 50"):
            open_sink(f"{word},fps={wrong}:{tmp_path}/out.{word}")


def test_one_store_is_replaced_and_many_are_joined(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    words = [f"zarr:{tmp_path}/latest.zarr", f"zarr:{tmp_path}/all"]
    for minutes in (0, 5, 5, 10):
        for sink in open_sinks(words):
            sink.write(make_nowcast(minutes=minutes))
    with xr.open_zarr(tmp_path / "latest.zarr") as found:
        issued = np.datetime64(slot_time(2).replace(tzinfo=None), "ns")
        assert found["forecast_reference_time"].values == issued
    stores = sorted((tmp_path / "all").glob("*.zarr"))
    parts = [xr.open_zarr(path).swap_dims(time="lead_time") for path in stores]
    joined = xr.concat(
        parts, dim="forecast_reference_time", join="exact", coords="different", compat="equals"
    )
    assert joined["nowcast"].dims == ("forecast_reference_time", "lead_time", "y", "x")
    steps = np.diff(joined["forecast_reference_time"].values)
    assert (steps == np.timedelta64(timedelta(minutes=5))).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "latest.zarr"]


def test_the_same_place_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there twice"):
        open_sinks([f"npz:{tmp_path}", f"npz:{tmp_path}"])
