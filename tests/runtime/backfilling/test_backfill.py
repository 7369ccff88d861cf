"""Backfill: the nowcasts are those of `predict`, whoever makes the blocks, and none is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray")
pytest.importorskip("zarr")

from stpl_core.bundle import open_bundle, seal  # noqa: E402
from stpl_core.errors import (  # noqa: E402
    EnvironmentFault,
    FrameError,
    SinkError,
    UsageError,
)
from stpl_core.option import fill, flat  # noqa: E402
from stpl_core.options import BackfillOptions, DomainOptions, EngineOptions, FrameOptions  # noqa: E402
from stpl_runtime.backfilling import backfill as module  # noqa: E402
from stpl_runtime.backfilling.backfill import BackfillReport, Hooks, as_document, run_backfill  # noqa: E402
from stpl_runtime.backfilling.store import Layout, Store  # noqa: E402
from stpl_runtime.ingest.newest import read_newest  # noqa: E402
from stpl_runtime.nowcasting.make import make_nowcast, open_backend  # noqa: E402
from tests.runtime.conftest import DATA, picture, slot_time  # noqa: E402

BUNDLE = DATA / "convlstm-tiny.bundle"
HOLES = (9, 30)
FRAMES = 45
ENGINE = EngineOptions(engine="onnx", threads=1)


def write_archive(
    folder: Path, slots: range = range(FRAMES), holes: tuple[int, ...] = HOLES
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for slot in slots:
        if slot not in holes:
            np.save(folder / f"frame_{slot_time(slot):%Y%m%d%H%M}.npy", picture(slot))
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive") / "frames")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 windows, blocks of 8: five of them."""
    monkeypatch.setattr("stpl_runtime.backfilling.store._CHUNK_BYTES", 4 * 3 * 16 * 16 * 4)


def options(archive: Path, out: Path, **given: Any) -> BackfillOptions:
    return fill(
        BackfillOptions,
        {"bundle": BUNDLE, "archive": archive, "out": out, **vars(ENGINE), **given},
    )


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store but the attributes of the group, which hold the time of its making."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.relative_to(store).name not in (".zmetadata", ".zattrs")
    }


def state(store: Path) -> dict[str, tuple[int, int]]:
    """When each file was written."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in store.rglob("*")}


@pytest.fixture(scope="module")
def inline(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BackfillReport]:
    """The store that one process made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stpl_runtime.backfilling.store._CHUNK_BYTES", 4 * 3 * 16 * 16 * 4)
        out = tmp_path_factory.mktemp("inline") / "n.zarr"
        return out, run_backfill(options(archive, out))


def test_every_nowcast_is_that_of_predict(
    archive: Path, inline: tuple[Path, BackfillReport]
) -> None:
    out, report = inline
    complete = [
        slot
        for slot in range(3, FRAMES)
        if not any(hole in range(slot - 3, slot + 1) for hole in HOLES)
    ]
    counts = report.counts
    frames = FRAMES - len(HOLES)
    assert (counts.windows, counts.written) == (frames, len(complete))
    assert (counts.incomplete, counts.failed, counts.pending) == (frames - len(complete), 0, 0)
    with xr.open_zarr(out) as opened:
        times = [np.datetime64(slot_time(slot).replace(tzinfo=None), "ns") for slot in complete]
        np.testing.assert_array_equal(opened.issue_time.values, np.array(times))
        np.testing.assert_array_equal(opened.lead_time.values, [300.0, 600.0, 900.0])
        np.testing.assert_array_equal(
            opened.time.values - opened.issue_time.values[:, None],
            np.broadcast_to(np.arange(1, 4) * np.timedelta64(300, "s"), (len(complete), 3)),
        )
        assert (opened.status.values == 1).all()
        assert opened.nowcast.dims == ("issue_time", "lead_time", "y", "x")
        assert opened.nowcast.attrs["units"] == "1"
        made = opened.nowcast.values
    bundle = open_bundle(BUNDLE)
    domain = DomainOptions()
    with open_backend(bundle, ENGINE) as session:
        for n in (0, 7, 8, len(complete) - 1):
            at = slot_time(complete[n]).isoformat()
            context, _ = read_newest(bundle, archive, FrameOptions(cadence=300.0), domain, at)
            expected = make_nowcast(bundle, session, context).frames[:, 0]
            np.testing.assert_array_equal(made[n], expected)


def test_a_second_run_writes_nothing(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(inline[0], tmp_path / "n.zarr"))
    before = state(out)
    again = run_backfill(options(archive, out))
    assert state(out) == before
    assert (again.made, again.counts) == (0, inline[1].counts)


def test_two_workers_of_which_one_is_killed(
    archive: Path,
    inline: tuple[Path, BackfillReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    started: list[int] = []
    lines: list[str] = []

    def progress(done: int, of: int) -> None:
        if done and len(started) == 2:
            os.kill(started[0], signal.SIGKILL)
            started.append(0)

    def on_start(pid: int) -> None:
        started.insert(0, pid) if not started else started.append(pid)

    out = tmp_path / "n.zarr"
    asked = options(archive, out, workers=2, threads=None)
    report = run_backfill(asked, Hooks(lines.append, progress, on_start))
    assert content(out) == content(inline[0])
    assert report.counts == inline[1].counts
    assert report.made == report.counts.written


def test_four_shards_in_any_order(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    out = tmp_path / "n.zarr"
    made = 0
    for part in (3, 1, 4, 2):
        report = run_backfill(options(archive, out, shard=f"{part}/4"))
        made += report.made
        counts = report.counts
        assert counts.windows == sum(
            (counts.written, counts.incomplete, counts.failed, counts.pending)
        )
    assert counts.pending == 0
    assert made == counts.written
    assert content(out) == content(inline[0])


def test_a_converted_archive_gives_the_same(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    from stpl_core.readers.store import convert

    convert(archive, tmp_path / "frames.zarr")
    out = tmp_path / "n.zarr"
    report = run_backfill(options(tmp_path / "frames.zarr", out))
    assert report.counts == inline[1].counts
    with xr.open_zarr(out) as ours, xr.open_zarr(inline[0]) as other:
        np.testing.assert_array_equal(ours.nowcast.values, other.nowcast.values)


def test_larger_frames_are_covered_in_tiles(tmp_path: Path) -> None:
    shape = (1, 20, 24)
    archive = tmp_path / "frames"
    archive.mkdir()
    for slot in range(6):
        np.save(archive / f"{slot_time(slot):%Y%m%d%H%M}.npy", picture(slot, shape))
    out = tmp_path / "n.zarr"
    run_backfill(options(archive, out, grid="20x24"))
    bundle, domain = open_bundle(BUNDLE), DomainOptions(grid="20x24")
    with open_backend(bundle, ENGINE) as session, xr.open_zarr(out) as opened:
        context, _ = read_newest(bundle, archive, FrameOptions(), domain)
        expected = make_nowcast(bundle, session, context, None, domain).frames[:, 0]
        np.testing.assert_array_equal(opened.nowcast.values[-1], expected)
    with pytest.raises(UsageError, match=r"another grid: 20x24.*--grid 20x24"):
        run_backfill(options(archive, out))


def test_bad_frames_cost_their_windows_alone(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    spoilt = Path(shutil.copytree(archive, tmp_path / "frames"))

    def file(slot: int) -> Path:
        return spoilt / f"frame_{slot_time(slot):%Y%m%d%H%M}.npy"

    np.save(file(3), np.full((1, 16, 16), np.nan, np.float32))  # no data all over
    np.save(file(16), picture(16) + 40)  # out of the codec's range
    half = picture(24)
    half[:, :, :5] = np.nan
    np.save(file(24), half)
    file(38).write_bytes(file(38).read_bytes()[:300])  # cut short
    out = tmp_path / "n.zarr"
    report = run_backfill(options(spoilt, out))
    before, counts = inline[1].counts, report.counts
    empty, refused, cut = 4, 4, 4  # windows that hold each
    assert counts.windows == before.windows - 1  # the file cut short ends no window
    assert counts.failed == refused
    assert counts.incomplete == before.incomplete + empty + cut - 1
    assert counts.written == before.written - empty - refused - cut
    assert any("has values from" in reason for reason in report.reasons)
    with xr.open_zarr(out) as opened, xr.open_zarr(inline[0]) as whole:
        common = whole.sel(issue_time=opened.issue_time)
        nan = np.isnan(opened.nowcast.values)
        at = [np.datetime64(slot_time(slot).replace(tzinfo=None), "ns") for slot in range(24, 28)]
        touched = np.isin(opened.issue_time.values, at)
        good = (opened.status.values == 1) & ~touched
        assert nan[opened.status.values != 1].all()
        np.testing.assert_array_equal(opened.nowcast.values[good], common.nowcast.values[good])
        newest = nan[opened.issue_time.values == at[0]][0]  # (K, H, W)
        assert newest[..., :5].all()
        assert not newest[..., 5:].any()


def test_a_run_goes_on_after_the_disk_was_full(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    out = tmp_path / "n.zarr"
    run_backfill(options(archive, out, shard="1/9"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(SinkError, match=r"n\.zarr.*room"):
            run_backfill(options(archive, out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Store(out).counts().pending > 0
    assert run_backfill(options(archive, out)).counts == inline[1].counts
    assert content(out) == content(inline[0])


def test_a_torn_block_is_made_again(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(inline[0], tmp_path / "n.zarr"))
    (out / "status" / "1").write_bytes(b"\1\1")
    (out / "nowcast" / "2.0.0.0").write_bytes(b"torn")
    report = run_backfill(options(archive, out))
    assert report.made == 8
    assert content(out) == content(inline[0])


def test_what_a_killed_process_left_is_removed_and_what_another_writes_stays(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(inline[0], tmp_path / "n.zarr"))
    left, writing = (out / "nowcast" / f"1.0.0.{digit * 32}.partial" for digit in "ab")
    for path, seconds in ((left, -1), (writing, +1)):
        path.write_bytes(b"half")
        at = (out / "status" / "0").stat().st_mtime_ns + seconds * 10**9
        os.utime(path, ns=(at, at))
    unknown = out / "nowcast" / "9999.0.0.x.partial"
    unknown.write_bytes(b"of no block that is made")
    unnamed = out / "status" / ".1.0123abcd.tmp"
    unnamed.write_bytes(b"half")
    run_backfill(options(archive, out))
    assert not left.exists()
    assert not unnamed.exists()
    assert writing.exists()
    assert unknown.exists()


def test_a_file_that_went_away_stops_the_run(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(archive, tmp_path / "frames"))
    out = tmp_path / "n.zarr"
    run_backfill(options(own, out, shard="1/9"))
    (gone,) = own.glob(f"*{slot_time(25):%Y%m%d%H%M}*")
    gone.rename(tmp_path / "elsewhere.npy")
    with pytest.raises(EnvironmentFault, match="not there any more"):
        run_backfill(options(own, out))
    (tmp_path / "elsewhere.npy").rename(gone)
    write_archive(own, range(FRAMES, FRAMES + 2))
    lines: list[str] = []
    report = run_backfill(options(own, out), Hooks(lines.append))
    assert report.counts == inline[1].counts
    assert any("grown by 2" in line for line in lines)


def test_what_does_not_fit_the_store_is_refused(
    archive: Path, inline: tuple[Path, BackfillReport], own_bundle: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(inline[0], tmp_path / "n.zarr"))
    before = state(out)
    manifest = open_bundle(own_bundle).manifest
    seal(own_bundle, manifest.model_copy(update={"cadence_s": 300.0}))
    for given, match in (
        ({"bundle": own_bundle}, "another bundle"),
        ({"horizon": 2}, "another horizon: 3.*--horizon 3"),
        ({"engine": "openvino"}, "another engine: onnx.*--engine onnx"),
        ({"nan": "no-echo"}, "another reading"),
        ({"cadence": 600.0}, "another cadence: 300.*--cadence 300"),
    ):
        with pytest.raises(UsageError, match=match):
            run_backfill(options(archive, out, **given))
    assert state(out) == before


def test_bad_options_are_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    (tmp_path / "foreign.zarr").mkdir()
    np.save(tmp_path / "plain.npy", np.zeros((9, 1, 16, 16), np.float32))
    out = tmp_path / "n.zarr"
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"shard": "0/4"}, "expected 1/4 to 4/4; try: --shard 1/4"),
        ({"shard": "5/4"}, "try: --shard 4/4"),
        ({"shard": "half"}, "I/N"),
        ({"workers": 3, "threads": None}, "--workers 2"),
        ({"workers": 2, "threads": 2}, "--threads 1"),
        ({"workers": 2, "dask": "tcp://127.0.0.1:1"}, "leave --workers out"),
        ({"out": tmp_path / "n.nc"}, "n.zarr"),
        ({"out": tmp_path / "foreign.zarr"}, "was not begun by stpl-deploy backfill"),
        ({"archive": tmp_path / "plain.npy"}, "no issue times"),
        ({"cadence": 7.0}, "no 4 frames in a row"),
    )
    for given, match in cases:
        asked = {"archive": archive, "out": out, **given}
        with pytest.raises((UsageError, FrameError), match=match):
            run_backfill(options(**asked))
    assert not out.exists()


def test_workers_that_cannot_work_give_their_reason(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    out = tmp_path / "n.zarr"
    run_backfill(options(archive, out, shard="1/9"))
    asked = options(archive, out, workers=2, threads=1, require_provider="cuda")
    with pytest.raises(EnvironmentFault, match="the session runs on CPU"):
        run_backfill(asked)
    monkeypatch.setattr("stpl_runtime.backfilling.processes.sys.executable", "/bin/false")
    with pytest.raises(EnvironmentFault, match=r"3 workers ended before .* \(exit 1\)"):
        run_backfill(replace(asked, backend=ENGINE))


def test_workers_import_nothing_from_the_current_folder(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    here, marker = tmp_path / "here", tmp_path / "ran"
    here.mkdir()
    for name in ("numpy", "onnxruntime", "sitecustomize", "stpl_runtime"):
        (here / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.chdir(here)
    asked = options(archive, tmp_path / "n.zarr", shard="1/9", workers=2, threads=1)
    assert run_backfill(asked).made > 0
    assert not marker.exists()


@pytest.mark.parametrize("shape", [(3, 1, 16, 16), (18, 1, 765, 700), (10, 3, 1200, 1200)])
def test_blocks_are_whole_chunks(shape: tuple[int, ...]) -> None:
    layout = Layout.of(1001, shape)
    assert layout.block % layout.issues == 0
    rows = [row for block in range(layout.blocks) for row in layout.rows(block)]
    assert rows == list(range(1001))


def test_the_command_accounts_for_every_window(
    archive: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "n.zarr"
    words = ("backfill", BUNDLE, archive, "--out", out, "--threads", 1)
    code, text, _ = cli(*words, "--shard", "1/2")
    assert code == 0
    assert "43 windows =" in text
    assert "not made yet" in text
    code, text, _ = cli(*words)
    assert (code, "not made" in text) == (0, False)
    code, text, _ = cli(*words, "--json")
    assert '"made": 0' in text
    code, _, text = cli(*words, "--shard", "3/2")
    assert (code, "--shard 2/2" in text) == (2, True)


def test_options_survive_the_wire(archive: Path, tmp_path: Path) -> None:
    from stpl_runtime.backfilling.wire import options_of, options_text

    asked = options(archive, tmp_path / "n.zarr", select=("level=850",), horizon=2, grid="20x24")
    assert options_of(options_text(asked)) == asked
    assert fill(BackfillOptions, flat(asked)) == asked


def test_scores_on_the_way(
    archive: Path, inline: tuple[Path, BackfillReport], tmp_path: Path
) -> None:
    """Those of the nowcasts in the store against the frames that came, whoever made which block."""
    whole = run_backfill(options(archive, tmp_path / "whole.zarr", evaluate=True))
    parts = [
        run_backfill(options(archive, tmp_path / "parts.zarr", evaluate=True, shard=f"{part}/2"))
        for part in (2, 1)
    ]
    with xr.open_zarr(inline[0]) as opened:
        made, issued = opened.nowcast.values, opened.issue_time.values
    slots = {np.datetime64(slot_time(n).replace(tzinfo=None), "ns"): n for n in range(FRAMES)}
    for name, way in (("model", made), ("persistence", None)):
        for k in range(3):
            errors = []
            for n, time in enumerate(issued):
                slot = slots[time]
                if slot + k + 1 < FRAMES and slot + k + 1 not in HOLES:
                    guess = picture(slot)[0] if way is None else np.clip(way[n, k], 0, 1)
                    errors.append(np.square(guess - picture(slot + k + 1)[0]).sum())
            assert whole.scores is not None
            found = whole.scores[name].per_lead
            assert found["frames"][k] == len(errors)
            np.testing.assert_allclose(found["mse"][k], np.mean(errors), rtol=1e-5)
    documents = [
        report.scores and report.scores["model"].document() for report in (whole, parts[1])
    ]
    assert documents[0] == documents[1]
    assert parts[0].scores is not None
    assert parts[0].scores["model"].overall["frames"] < whole.scores["model"].overall["frames"]
    again = run_backfill(options(archive, tmp_path / "whole.zarr", evaluate=True))
    assert again.made == 0
    assert as_document(again)["scores"] == as_document(whole)["scores"]
    with pytest.raises(UsageError, match="was made without --evaluate"):
        run_backfill(options(archive, inline[0], evaluate=True))
