"""kill -9 at any moment, then a restart: the next nowcast is what it would have been."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stpl_core.bundle import Bundle
from stpl_core.errors import EnvironmentFault, UsageError
from stpl_core.frames import Frame
from stpl_core.grid import Grid
from stpl_runtime.engine import Session
from stpl_runtime.engines.tiled import on_domain
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.streaming.state_file import StateFile
from tests.runtime.conftest import CADENCE_S, Cli, make_frame, slot_time

GRID = Grid((4.0, 52.0, 0.1, -0.1), 16, 16, crs_wkt="GEOGCRS[...]", geographic=True)


def rich_frame(slot: int) -> Frame:
    """A frame that carries everything a frame can."""
    mask = np.ones((16, 16), bool)
    mask[: slot % 3] = False
    notes = {"licence": "CC BY 4.0"}
    frame = replace(make_frame(slot), mask=mask if slot % 2 else None, grid=GRID, notes=notes)
    return replace(frame, standard_name="rainfall_rate")


Maker = Callable[[], tuple[Nowcaster, StateFile]]


def maker(bundle: Bundle, session: Session, path: Path, **options: object) -> Maker:
    chosen = {"cadence_s": CADENCE_S, **options}

    def make() -> tuple[Nowcaster, StateFile]:
        nowcaster = Nowcaster(bundle, session, **chosen)  # type: ignore[arg-type]
        return nowcaster, StateFile(path, nowcaster)

    return make


def assert_same(one: Nowcast | None, other: Nowcast | None) -> None:
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.context, other.context)
    if one.observed is None or other.observed is None:
        assert one.observed is other.observed
    else:
        np.testing.assert_array_equal(one.observed, other.observed)
    for name in (
        *("issue_time", "cadence_s", "context_times", "context_fill", "source_id"),
        *("grid", "standard_name", "notes", "made_by"),
    ):
        assert getattr(one, name) == getattr(other, name), name


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    missing=st.sets(st.integers(1, 17), max_size=4),
    killed=st.sets(st.integers(0, 17), max_size=4),
    idle=st.integers(0, 4),
    mode=st.sampled_from(["window", "carry"]),
    on_gap=st.sampled_from(["reset", "hold", "bridge"]),
    learned=st.booleans(),
    published=st.booleans(),
)
@example({1, 3}, {5}, 1, "window", "hold", True, False)  # learned too long, killed while it shows
@example({1, 3}, {5, 7}, 0, "carry", "reset", True, True)
@example({1, 3, 8}, {0, 7}, 0, "window", "hold", True, False)  # killed by a frame that is dropped
@example({1, 3}, {9}, 0, "window", "hold", True, False)  # the reserve is of the time line before
def test_a_restart_at_any_frame_changes_nothing(
    bundle: Bundle,
    session: Session,
    tmp_path: Path,
    missing: set[int],
    killed: set[int],
    idle: int,
    mode: str,
    on_gap: str,
    learned: bool,
    published: bool,
) -> None:
    path = tmp_path / "state.npz"
    path.unlink(missing_ok=True)
    cadence = {"cadence_s": None} if learned else {}
    make = maker(bundle, session, path, mode=mode, on_gap=on_gap, **cadence)
    steady, _ = make()
    killed_often, state_file = make()
    newest = None
    for n in (k for k in range(18) if k not in missing):
        steady.put(rich_frame(n))
        killed_often.put(rich_frame(n))
        one, other = steady.issue(), killed_often.issue()
        assert_same(one, other)
        newest = newest if one is None else one
        for nowcaster in (steady, killed_often):
            for _ in range(idle):
                nowcaster.idle_step()
        if n in killed:
            state_file.save(published=published)
            killed_often, state_file = make()
            state_file.restore()
            if not published:  # the newest nowcast is made again, with the same bits
                again = killed_often.issue()
                assert one is None or again is not None
                if again is not None:
                    assert_same(newest, again)
    assert killed_often.ledger.snapshot() == steady.ledger.snapshot()
    assert killed_often.window.gaps == steady.window.gaps
    if published:
        assert killed_often.state.tally == steady.state.tally


@pytest.mark.parametrize(
    ("options", "found", "expected"),
    [
        ({"horizon": 2}, "--horizon 3", "--horizon 2"),
        ({"mode": "carry"}, "--context window", "--context carry"),
        ({"cadence_s": 60.0}, "--cadence 300.0", "--cadence 60.0"),
    ],
)
def test_another_streams_state_is_refused(
    bundle: Bundle,
    session: Session,
    tmp_path: Path,
    options: dict[str, object],
    found: str,
    expected: str,
) -> None:
    path = tmp_path / "s.npz"
    nowcaster, state_file = maker(bundle, session, path)()
    nowcaster.put(make_frame(0))
    state_file.save(published=True)
    _, other = maker(bundle, session, path, **options)()
    with pytest.raises(UsageError) as caught:
        other.restore()
    assert found in caught.value.found
    assert caught.value.expected == expected
    assert path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")
def test_it_is_its_owners_alone(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    nowcaster, state_file = maker(bundle, session, tmp_path / "s.npz")()
    nowcaster.put(make_frame(0))
    state_file.save(published=True)
    assert stat.S_IMODE((tmp_path / "s.npz").stat().st_mode) == 0o600


def test_damage_anywhere_is_told_and_set_aside(
    bundle: Bundle, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "s.npz"
    make = maker(bundle, session, path, mode="carry")
    nowcaster, state_file = make()
    for n in range(5):
        nowcaster.put(rich_frame(n))
        nowcaster.issue()
    state_file.save(published=True)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    wounds = [whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for at, bit in zip(random.integers(0, len(whole), 60), random.integers(0, 8, 60), strict=True):
        wounds += [whole[:at] + bytes([whole[at] ^ (1 << int(bit))]) + whole[at + 1 :]]
    set_aside = 0
    for wound in wounds:
        path.write_bytes(wound)
        fresh, state_file = make()
        said = state_file.restore()
        if "is damaged" in said:
            set_aside += 1
            assert fresh.window.newest is None
            assert not path.exists()
            assert (tmp_path / "s.npz.damaged").read_bytes() == wound
        else:  # a bit that means nothing, such as a file time in the archive
            assert fresh.window.newest == 4
            assert fresh.ledger.snapshot() == nowcaster.ledger.snapshot()
    assert set_aside > 50


def test_kill_9_and_restart(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    """A real process, killed again and again while frames come; every nowcast is there once."""
    folder, out, state = tmp_path / "in", tmp_path / "out", tmp_path / "state.npz"
    folder.mkdir()
    words = ["stream", bundle.path, folder, "--cadence", CADENCE_S, "--threads", 1]
    live = [*words, "--sink", f"npz:{out}", "--state-file", state, "--context", "carry"]
    fed = 0

    def feed(count: int) -> None:
        nonlocal fed
        for _ in range(count):
            np.save(folder / f".{fed}.npy", make_frame(fed).data)
            name = f"r{slot_time(fed):%Y%m%d%H%M%S}.npy"
            (folder / f".{fed}.npy").rename(folder / name)
            fed += 1

    feed(4)
    last: dict[str, int] = {}
    for round_number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "stpl_deploy", *map(str, live)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(process, out / f"nowcast_{slot_time(fed - 1):%Y%m%dT%H%M%SZ}.npz")
        feed(1)
        wait_for(process, out / f"nowcast_{slot_time(fed - 1):%Y%m%dT%H%M%SZ}.npz")
        feed(1)  # may be taken in, or not, before the end
        if round_number:
            time.sleep(0.01 * round_number)  # another moment each time
        process.send_signal(signal.SIGKILL)
        _, stderr = process.communicate(timeout=30)
        assert ("resuming from" in stderr) == bool(round_number), stderr
        written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}
        changed = [name for name, when in last.items() if written[name] != when]
        assert len(changed) <= 1  # at most the one whose writing was not known of
        last = written
    code, stdout, _ = cli(*live, "--idle-timeout", 1)
    assert code == 0
    assert "ended: nothing arrived" in stdout
    undisturbed = tmp_path / "undisturbed"
    steady = [*words, "--sink", f"npz:{undisturbed}", "--context", "carry", "--policy", "queue"]
    assert cli(*steady, "--idle-timeout", 1)[0] == 0
    names = sorted(path.name for path in undisturbed.iterdir())
    assert len(names) == fed - 3
    assert sorted(path.name for path in out.glob("*.npz")) == names  # none lost
    for name in names:
        with np.load(out / name) as one, np.load(undisturbed / name) as other:
            np.testing.assert_array_equal(one["frames"], other["frames"])


def wait_for(process: subprocess.Popen[str], path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)  # another process: its file is the only event


def test_a_directory_in_its_place_is_left_alone(
    bundle: Bundle, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("precious")
    _, state_file = maker(bundle, session, tmp_path)()
    with pytest.raises(UsageError, match="Is a directory"):
        state_file.restore()
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_refused_at_the_start(
    bundle: Bundle, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the crash that it is for, it would be too late; a full disk may have room by then."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"Not a directory|File exists"):
        maker(bundle, session, tmp_path / "file" / "state")()[1].restore()

    def refused(reason: int) -> None:
        raise OSError(reason, os.strerror(reason))

    _, state_file = maker(bundle, session, tmp_path / "state")()
    temporary = "stpl_core.files.tempfile.TemporaryFile"
    for reason in (errno.EACCES, errno.EROFS):
        monkeypatch.setattr(temporary, lambda reason=reason, **_: refused(reason))
        with pytest.raises(EnvironmentFault, match=os.strerror(reason)):
            state_file.restore()
    monkeypatch.setattr(temporary, lambda **_: refused(errno.ENOSPC))
    assert "starts empty" in state_file.restore()


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_tiles_go_on_and_another_grid_is_refused(
    bundle: Bundle, session: Session, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "state"

    def on(domain: tuple[int, int], overlap: int) -> tuple[Nowcaster, StateFile]:
        whole, tiled = on_domain(bundle, session, domain, overlap)
        return maker(whole, tiled, path, mode=mode)()

    nowcaster, state_file = on((24, 40), 4)
    for slot in range(6):
        nowcaster.put(make_frame(slot, (1, 24, 40)))
        nowcaster.issue()
    state_file.save(published=True)
    again, restored = on((24, 40), 4)
    assert restored.restore().startswith("resuming")
    for one in (nowcaster, again):
        one.put(make_frame(6, (1, 24, 40)))
    assert_same(again.issue(), nowcaster.issue())
    with pytest.raises(UsageError, match=r"--grid 24x40.*--grid 40x40"):
        on((40, 40), 4)[1].restore()
    with pytest.raises(UsageError, match=r"--overlap 4.*--overlap 8"):
        on((24, 40), 8)[1].restore()
    with pytest.raises(UsageError, match="--grid"):
        maker(bundle, session, path, mode=mode)()[1].restore()


def test_a_nowcast_that_is_made_again_is_counted_once(
    bundle: Bundle, session: Session, tmp_path: Path
) -> None:
    make = maker(bundle, session, tmp_path / "state", on_gap="hold")
    nowcaster, state_file = make()
    for slot in (0, 1, 2, 3, 5):
        nowcaster.put(make_frame(slot))
        nowcaster.issue()
    state_file.save(published=False)
    again, restored = make()
    restored.restore()
    assert again.issue() is not None
    assert again.state.tally == nowcaster.state.tally
    assert again.state.tally.standing_in == 1
