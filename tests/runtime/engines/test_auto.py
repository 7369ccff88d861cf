"""`--engine auto`: what it measures, what it takes, and when it does not measure at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, EnvironmentFault
from stpl_core.options import EngineOptions
from stpl_runtime.engine import Session, StateHandle, open_session
from stpl_runtime.engines.auto import candidates as ways
from stpl_runtime.engines.auto import choose
from stpl_runtime.engines.auto import table as tables
from stpl_runtime.engines.auto.candidates import Asked, Candidate
from stpl_runtime.engines.replays import ReplayingSession
from stpl_runtime.nowcasting.make import open_backend
from stpl_runtime.proof.reference import load_reference

ASKED = Asked(("step", "forecast"))
Lines = list[str]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing measured yet, two CPUs, ONNX Runtime alone, a quiet machine."""
    monkeypatch.delenv("STPL_ENGINE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ways, "usable_cpus", lambda: 2)
    monkeypatch.setattr(ways, "installed_engines", lambda precision: ("onnx",))
    monkeypatch.setattr(choose, "load_now", lambda: "quiet")
    return tmp_path / "stpl-deploy" / "timed"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Candidate]:
    """Every candidate that was opened, in order."""
    found: list[Candidate] = []

    def spy(bundle: Bundle, asked: Asked, candidate: Candidate) -> Session:
        found.append(candidate)
        return ways.open_candidate(bundle, asked, candidate)

    monkeypatch.setattr(choose, "open_candidate", spy)
    return found


def measured(bundle: Bundle, asked: Asked = ASKED, **options: Any) -> tuple[choose.Choice, Lines]:
    lines: Lines = []
    return choose.measured_choice(bundle, asked, lines.append, most_s=60.0, **options), lines


def test_the_fastest_that_was_measured_is_taken_and_kept(
    bundle: Bundle, opened: list[Candidate], own_cache: Path
) -> None:
    choice, lines = measured(bundle)
    assert len(opened) == 4  # two ways, two numbers of threads
    (file,) = own_cache.glob("*.json")
    rows = json.loads(file.read_text())["rows"]
    (taken,) = (row for row in rows if Candidate(**row["candidate"]) == choice.candidate)
    assert taken["ms"] <= 1.05 * min(row["ms"] for row in rows)
    assert lines == ["engine: timing 4 ways to run this bundle, once, for 60 s at most"]
    assert choice.line.startswith(f"engine: {choice.candidate}: {taken['ms']:.1f} ms a nowcast")
    opened.clear()
    assert measured(bundle) == (choice, [])
    assert choose.choose(bundle, ASKED) == choice  # as predict does
    assert opened == []


def test_of_those_nearly_as_fast_the_one_that_opens_soonest() -> None:
    def best(*rows: tuple[float | None, float]) -> int | None:
        made = [
            tables.Row(Candidate("onnx", "own", n, "fp32"), ms, opened_s)
            for n, (ms, opened_s) in enumerate(rows)
        ]
        found = tables.Table(tuple(made), "", "quiet", (), {}, 20.0).best
        return None if found is None else found.candidate.threads

    assert best((100.0, 9.0), (104.9, 1.0), (105.1, 0.1), (None, 0.0)) == 1
    assert best((100.0, 1.0), (101.0, 9.0)) == 0
    assert best((None, 0.0)) is None
    assert best() is None


def test_nothing_is_timed_where_there_is_nothing_to_choose(
    bundle: Bundle, opened: list[Candidate], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "usable_cpus", lambda: 1)
    choice, lines = measured(bundle)
    assert choice.candidate == Candidate("onnx", "unrolled", 1, "fp32")
    assert (opened, lines, choice.line) == ([], [], "")
    assert not own_cache.exists()


def test_one_that_computes_wrong_numbers_is_not_taken_however_fast(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(ReplayingSession):
        def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
            frames, after = super().forecast(frame, state)
            return frames + np.float32(1e-3), after

    def spoilt(bundle: Bundle, asked: Asked, candidate: Candidate) -> Session:
        session = ways.open_candidate(bundle, asked, candidate)
        return Wrong(session, bundle.manifest) if candidate.way == "replays" else session

    monkeypatch.setattr(choose, "open_candidate", spoilt)
    monkeypatch.setattr(choose, "nowcast_ms", lambda s, *_: 1.0 if isinstance(s, Wrong) else 9.0)
    choice, _ = measured(bundle)
    assert choice.candidate.way == "unrolled"
    (table,) = tables.tables_of(bundle)
    notes = {row.candidate.way: row.note for row in table.rows}
    assert notes["unrolled"] == ""
    assert "forecast on CPUExecutionProvider, batch 1: error 1.0" in notes["replays"]


def test_where_nothing_passes_nothing_is_run(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "_breach", lambda *_: "error 1.00 at lead time 1")
    with pytest.raises(AccuracyError, match=r"error 1.00.*stpl-deploy verify .* --engine onnx"):
        measured(bundle)
    assert list(tables.tables_of(bundle)) == []  # the next start tries again


def test_one_that_does_not_open_is_left_out(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bundle: Bundle, asked: Asked, candidate: Candidate) -> Session:
        if candidate.threads == 2:
            raise EnvironmentFault("no room")
        return ways.open_candidate(bundle, asked, candidate)

    monkeypatch.setattr(choose, "open_candidate", fails)
    choice, _ = measured(bundle)
    assert choice.candidate.threads == 1
    (table,) = tables.tables_of(bundle)
    assert [row.note for row in table.rows if row.candidate.threads == 2] == ["no room"] * 2


def test_measuring_ends_when_its_time_is_up(bundle: Bundle, opened: list[Candidate]) -> None:
    choice = choose.measured_choice(bundle, ASKED, lambda _: None, most_s=0.0)
    assert opened == [choice.candidate]  # one must be measured
    (table,) = tables.tables_of(bundle)
    assert {row.note for row in table.rows[1:]} == {"not measured: time was up"}
    choose.measured_choice(bundle, ASKED, lambda _: None)  # a stream takes what there is
    assert len(opened) == 1
    choose.measured_choice(bundle, ASKED, lambda _: None, most_s=60.0)  # who has more time goes on
    assert len(opened) == 5


def test_for_a_stream_it_takes_no_longer_than_it_pays(
    bundle: Bundle, opened: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "nowcast_ms", lambda *_: 1e-6)  # 500 of them are no time at all
    choose.measured_choice(bundle, ASKED, lambda _: None)
    assert len(opened) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(tables, "versions", lambda: {"onnxruntime": "2.0"}),
        lambda patch: patch.setattr(choose, "load_now", lambda: "shared"),
        lambda patch: patch.setattr(tables, "affinity", lambda: (7,)),
        lambda patch: patch.setattr(tables, "cpu_identity", lambda: "another"),
    ],
    ids=["versions", "load", "affinity", "processor"],
)
def test_it_measures_again_where_something_changed(
    change: Callable[[pytest.MonkeyPatch], None],
    bundle: Bundle,
    opened: list[Candidate],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured(bundle)
    opened.clear()
    change(monkeypatch)
    measured(bundle)
    assert len(opened) == 4


@pytest.mark.parametrize(
    ("waiting", "counts"), [(0.0, [8, 1]), (3.9, [8, 1]), (5.2, [3, 8, 1]), (30.0, [1, 8])]
)
def test_beside_other_work_it_tries_as_many_threads_as_are_free_first(
    waiting: float,
    counts: list[int],
    bundle: Bundle,
    opened: list[Candidate],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (ways, tables):
        monkeypatch.setattr(module, "usable_cpus", lambda: 8)
    monkeypatch.setattr(tables.os, "getloadavg", lambda: (waiting, 0.0, 0.0))
    monkeypatch.setattr(choose, "load_now", tables.load_now)
    measured(bundle)
    assert list(dict.fromkeys(one.threads for one in opened)) == counts


def test_another_bundle_has_a_table_of_its_own(
    bundle: Bundle, any_bundle: Bundle, opened: list[Candidate]
) -> None:
    measured(bundle)
    opened.clear()
    measured(any_bundle)
    assert bool(opened) == (any_bundle.path != bundle.path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1, "rows": [{}]}'])
def test_a_damaged_table_is_measured_again(
    content: bytes, bundle: Bundle, own_cache: Path, opened: list[Candidate]
) -> None:
    measured(bundle)
    (file,) = own_cache.glob("*.json")
    file.write_bytes(content)
    opened.clear()
    measured(bundle)
    assert len(opened) == 4


def test_a_cache_that_cannot_be_written_costs_one_line(
    bundle: Bundle, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("in the way")
    choice, _ = measured(bundle)
    assert choice.candidate.engine == "onnx"
    (record,) = caplog.records
    assert "the times of engines are not kept" in record.message


def test_predict_measures_nothing(bundle: Bundle, opened: list[Candidate], own_cache: Path) -> None:
    lines: Lines = []
    with open_backend(bundle, EngineOptions(), say=lines.append) as session:
        assert session.engine == "onnx"
    engine = "engine: onnx, unrolled, 2 threads, fp32, not measured here"
    assert lines == [f"{engine}; stpl-deploy doctor {bundle.path} times the ways to run it"]
    assert len(opened) == 1
    assert not own_cache.exists()


def test_a_named_engine_is_what_it_always_was(bundle: Bundle, opened: list[Candidate]) -> None:
    with open_backend(bundle, EngineOptions(engine="onnx")) as session:
        assert session.engine == "onnx"
    assert opened == []


def test_the_environment_may_name_the_engine(
    bundle: Bundle, opened: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STPL_ENGINE", "onnx")
    choice, lines = measured(bundle)
    assert choice.candidate == Candidate("onnx", "own", 2, "fp32")
    assert lines == []
    monkeypatch.setenv("STPL_ENGINE", "auto")
    assert len(ways.candidates(bundle, ASKED)) == 4


def test_a_lossy_precision_must_be_allowed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    every = ("onnx", "openvino", "openvino:winograd")
    monkeypatch.setattr(ways, "installed_engines", lambda precision: every)
    monkeypatch.setattr(ways, "computes_bf16", lambda: True)
    allowed = Asked(ASKED.graphs, allow="bf16")
    assert {one.precision for one in ways.candidates(bundle, ASKED)} == {"fp32"}
    lossy = [one for one in ways.candidates(bundle, allowed) if one.precision != "fp32"]
    assert {(one.engine, one.precision) for one in lossy} == {
        ("openvino", "bf16"),
        ("openvino:winograd", "bf16"),
    }


def test_no_gpu_without_a_plan(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "_has_gpu", lambda: True)
    assert {one.engine for one in ways.candidates(bundle, ASKED)} == {"onnx"}


def test_without_an_engine_it_says_what_to_install(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "installed_engines", lambda precision: ())
    with pytest.raises(EnvironmentFault, match=r"no engine is installed.*pip install"):
        open_session(bundle, ASKED.graphs, engine="auto")


def test_what_must_run_it_is_asked_of_auto_too(bundle: Bundle) -> None:
    with pytest.raises(EnvironmentFault, match="--engine onnx-cuda"):
        open_session(bundle, ASKED.graphs, engine="auto", require_provider="cuda")


def test_replays_are_the_unrolled_forecast(bundle: Bundle, session: Session) -> None:
    frames = load_reference(bundle).context[:2]
    steps = open_session(bundle, ("step",), threads=1)
    replaying = ReplayingSession(steps, bundle.manifest)
    _, state = session.step(frames[:, 0], session.zero_state(2))
    one, after = session.forecast(frames[:, 1], state)
    copied = replaying.state_from_arrays(session.state_arrays(state))
    for _ in range(2):  # it leaves its state as it was
        other, behind = replaying.forecast(frames[:, 1], copied)
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)
    for name, values in replaying.state_arrays(behind).items():
        np.testing.assert_allclose(values, session.state_arrays(after)[name], atol=1e-6)
    np.testing.assert_allclose(replaying.rollout(frames), session.rollout(frames), atol=1e-5)
