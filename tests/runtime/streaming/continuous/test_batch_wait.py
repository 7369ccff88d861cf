"""`--batch-wait`: what it wires, what it refuses, and what it leaves as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_core.options import DomainOptions, EngineOptions, FrameOptions, StreamOptions
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_runtime.streaming.continuous import streams as continuous
from stpl_runtime.streaming.continuous.batcher import ContinuousBatcher
from stpl_runtime.streaming.continuous.deferred import DeferredSession
from stpl_runtime.streaming.continuous.streams import BatchedStreams, session_for
from stpl_runtime.streaming.opening import open_stream
from stpl_runtime.streaming.streams import Streams
from tests.runtime.conftest import Cli, picture, slot_time
from tests.runtime.streaming.test_opening import Memory

ONE_THREAD = EngineOptions(engine="onnx", threads=1)


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two streams of six frames."""
    words = []
    for number, name in enumerate(("north", "south")):
        path = tmp_path / name
        path.mkdir()
        for n in range(6):
            np.save(path / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(100 * number + n))
        words.append(f"{name}=replay:{path}")
    return words


def options_of(folders: list[str], **asked: object) -> StreamOptions:
    made = StreamOptions(
        sources=folders,
        policy="pace",
        backend=ONE_THREAD,
        source_options=["speed=0"],
        reading=FrameOptions(cadence=300.0),
    )
    return replace(made, **asked)  # type: ignore[arg-type]  # mypy holds each value against every field


@pytest.mark.parametrize("context", ["window", "carry"])
def test_it_makes_the_nowcasts_of_single_streams(
    bundle: Bundle, folders: list[str], monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    monkeypatch.setattr(ContinuousBatcher, "measure", lambda self, _: setattr(self, "sizes", (2,)))
    made = {}
    for wait in (None, 5000.0):
        memory = Memory()
        options = options_of(folders, batch_wait=wait, context=context)
        with open_stream(bundle, options, sinks=[memory]) as opened:
            assert type(opened.streams) is (Streams if wait is None else BatchedStreams)
            report = opened.streams.run()
        made[wait] = {(one.stream, one.issue_time): one for one in memory.nowcasts}
        assert report.nowcasts == 6
    assert report.batches == (2,)
    assert made[None].keys() == made[5000.0].keys()
    for key, one in made[None].items():
        np.testing.assert_array_equal(one.frames, made[5000.0][key].frames)
        assert one.made_by == made[5000.0][key].made_by


def test_on_the_command_line_with_what_this_machine_gains(
    cli: Cli, bundle: Bundle, session: Session, folders: list[str], tmp_path: Path
) -> None:
    words = ["--batch-wait", 50, "--policy", "pace", "--source-option", "speed=0"]
    words += ["--cadence", 300, "--sink", f"npz:{tmp_path}/out", "--json"]
    code, out, err = cli("stream", bundle.path, *folders, "--engine", "onnx", *words)
    assert code == 0, err
    report = json.loads(out)
    assert report["nowcasts"] == 6
    assert report["batch_gap"] <= 1e-5
    assert "in one call" in err or "no batch is faster" in err
    for number, name in enumerate(("north", "south")):
        for newest in (3, 4, 5):
            file = tmp_path / "out" / name / f"nowcast_{slot_time(newest):%Y%m%dT%H%M%SZ}.npz"
            window = np.stack([picture(100 * number + newest - 3 + n) for n in range(4)])
            expected = predict_sequences(bundle, session, window[None], 3)[0]
            with np.load(file) as archive:
                np.testing.assert_allclose(archive["frames"], expected, rtol=0, atol=1e-5)


def test_one_stream_has_nobody_to_wait_for(bundle: Bundle, folders: list[str]) -> None:
    with open_stream(bundle, options_of(folders[:1], batch_wait=20.0)) as opened:
        assert type(opened.streams) is Streams
        assert any("holds nothing" in note for note in opened.notes)


def test_streams_that_do_not_ask_have_the_session_itself(
    bundle: Bundle, session: Session, folders: list[str]
) -> None:
    assert session_for(options_of(folders), session, 2) is session
    assert session_for(options_of(folders, batch_wait=0.0), session, 1) is session
    assert isinstance(session_for(options_of(folders, batch_wait=0.0), session, 2), DeferredSession)


def test_a_server_keeps_its_states(
    folders: list[str], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "KeepsStates", type(session))
    asked = options_of(folders, batch_wait=20.0, backend=EngineOptions(engine="triton:grpc://h:1"))
    with pytest.raises(UsageError, match=r"--batch-wait 20 with --engine triton:grpc"):
        session_for(asked, session, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch-wait", "-1"), "--batch-wait"),
        (("--batch-wait", "20000"), "--batch-wait"),
    ],
)
def test_a_wait_that_does_not_hold_is_refused(
    cli: Cli, bundle: Bundle, folders: list[str], words: tuple[str, ...], message: str
) -> None:
    code, _, err = cli("stream", bundle.path, *folders, *words)
    assert code == 2
    assert message in err


def test_a_group_has_no_streams_of_its_own(cli: Cli, bundle: Bundle) -> None:
    words = ("kafka://h/t", "--group", "g", "--batch-wait", 20)
    code, _, err = cli("stream", bundle.path, *words)
    assert code == 2
    assert "--batch-wait 20 with --group g" in err


def test_a_state_file_knows_the_tiles_below(
    bundle: Bundle, folders: list[str], tmp_path: Path
) -> None:
    """A batched stream may go on from the state of an unbatched one, and the other way."""
    shape = (24, 40)
    for word in folders:
        for file in Path(word.partition("replay:")[2]).iterdir():
            np.save(file, np.resize(np.load(file), (1, *shape)))
    options = options_of(
        folders, domain=DomainOptions(grid="24x40", overlap=6), state_file=tmp_path / "s.state"
    )
    for wait in (None, 20.0, None):
        with open_stream(bundle, replace(options, batch_wait=wait)) as opened:
            opened.streams.run()
    with (
        pytest.raises(UsageError, match="--overlap"),
        open_stream(
            bundle,
            replace(options, batch_wait=20.0, domain=DomainOptions(grid="24x40", overlap=8)),
        ),
    ):
        pass
