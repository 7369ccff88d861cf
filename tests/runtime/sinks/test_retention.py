"""`--keep` and `--keep-age` where something is wrong: clocks, and files that cannot be deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stpl_core.bundle import Bundle
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.options import seconds
from stpl_runtime.sink import SinkSpec, open_sink
from stpl_runtime.streaming.stream import Stream
from tests.runtime.conftest import CADENCE_S, ListSource, make_frame, run_alone
from tests.runtime.sinks.test_keeping import lines_of, slots_in, small


@pytest.mark.parametrize("keep", [{"keep": 3}, {"keep_s": 600.0}])
def test_what_a_wrong_clock_dated_ahead_goes(tmp_path: Path, keep: dict[str, Any]) -> None:
    """Three nowcasts of a clock that went ahead, then the right time again, and a restart."""
    ahead, right = (60, 61, 62), (10, 11, 12, 13)
    for slot in (*ahead, *right[:2]):
        open_sink(f"npz:{tmp_path}", SinkSpec(**keep)).write(small(slot))
    assert {10, 11, 62} <= set(slots_in(tmp_path))  # enough is there at every moment
    sink = open_sink(f"npz:{tmp_path}", SinkSpec(**keep))
    for slot in right[2:]:
        sink.write(small(slot))
    assert slots_in(tmp_path) == [11, 12, 13]


@pytest.mark.parametrize("word", ["npz:{}", "jsonl:{}/lines"])
def test_an_age_beyond_all_years_keeps_everything(word: str, tmp_path: Path) -> None:
    for age in ("999999d", "99999999999999d"):
        sink = open_sink(word.format(tmp_path), SinkSpec(keep_s=seconds("--keep-age", age)))
        for slot in (0, 1):
            sink.write(small(slot))
    assert len(slots_in(tmp_path)) == 2 * word.startswith("npz")
    assert not (tmp_path / "lines.1").exists()


def test_what_cannot_be_deleted_is_no_loss(
    bundle: Bundle, session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of ours that is a directory in use, as good as: the nowcasts were written."""
    stuck = tmp_path / f"{small(-40).name}.npz"
    stuck.mkdir()
    (tmp_path / f".{stuck.name}.going").mkdir()
    (tmp_path / f".{stuck.name}.going" / "held").touch()
    before = Path.rename

    def rename(self: Path, target: Any) -> Path:
        if self == stuck:
            raise OSError(16, "Device or resource busy")
        return before(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        sink = open_sink(f"npz:{tmp_path}", SinkSpec(keep=2))
        ledger, frames = Ledger(), [make_frame(n) for n in range(9)]
        nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, ledger=ledger)
        report = run_alone(
            Stream(nowcaster, ListSource(frames), [sink], ledger=ledger, policy="queue")
        )
    written = report.sinks[sink.name]
    assert (written.written, written.failed, written.not_deleted) == (6, 0, 5)
    assert report.exit_code == 0
    err = capsys.readouterr().err
    assert err.count(f"cannot delete {stuck}: Device or resource busy") == 1
    assert err.count("nowcasts are written") == 1
    assert slots_in(tmp_path) == [-40, 7, 8]  # the others go as they should


def test_json_lines_go_on_where_they_cannot_turn_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    (tmp_path / "log.jsonl.1").mkdir()
    sink = open_sink(f"jsonl:{path}", SinkSpec(keep=2))
    for slot in range(5):
        sink.write(small(slot))
    assert len(lines_of(path)) == 5
    assert "cannot become log.jsonl.1" in str(sink.not_deleted)
    (tmp_path / "log.jsonl.1").rmdir()
    sink.write(small(5))
    assert len(lines_of(path)) == 1
    assert sink.not_deleted is None


def test_json_lines_turn_over_after_a_clock_was_set_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sink = open_sink(f"jsonl:{path}", SinkSpec(keep_s=600.0))
    for slot in (60, 61, 10, 11, 12, 13):
        sink.write(small(slot))
    assert len(lines_of(path)) == 1


def test_the_page_says_that_old_files_stay() -> None:
    pytest.importorskip("prometheus_client")
    from stpl_runtime.page.hub import _troubles
    from stpl_runtime.streaming.publisher import SinkReport

    before, now = SinkReport(written=3, not_deleted=1), SinkReport(written=4, not_deleted=2)
    assert list(_troubles("npz:out", before, now)) == ["npz:out cannot delete what is too old"]
    assert list(_troubles("npz:out", now, SinkReport(written=5, not_deleted=2))) == []
    assert list(_troubles("npz:out", now, SinkReport(4, 1, not_deleted=2))) == [
        "npz:out cannot write"
    ]
