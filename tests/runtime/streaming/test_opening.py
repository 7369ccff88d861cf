"""The wiring of a forecast and of a stream: what is opened is closed, however it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.errors import AccuracyError, UsageError
from stpl_core.options import DomainOptions, FrameOptions, StreamOptions
from stpl_runtime.engines import ort
from stpl_runtime.ingest.newest import read_newest
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.make import make_nowcast, open_backend
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_runtime.streaming.opening import open_stream
from tests.runtime.conftest import Cli, picture, slot_time


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened to sessions: `open` and `closed`, in order."""
    happened: list[str] = []
    before, after = ort.OrtSession.__init__, ort.OrtSession.close

    def begin(self: Any, *given: Any, **named: Any) -> None:
        before(self, *given, **named)
        happened.append("open")

    def end(self: Any) -> None:
        happened.append("closed")
        after(self)

    monkeypatch.setattr(ort.OrtSession, "__init__", begin)
    monkeypatch.setattr(ort.OrtSession, "close", end)
    return happened


class Memory:
    """A sink that keeps what it is given."""

    name = "memory"

    def __init__(self) -> None:
        self.nowcasts: list[Nowcast] = []
        self.closed = 0

    def write(self, nowcast: Nowcast) -> None:
        self.nowcasts.append(nowcast)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("predict", "--out", "n.npz"), 0),
        (("predict", "--out", "n.npz", "--grid", "16x16", "--overlap", "99"), 0),
        (("predict", "--out", "n.npz", "--grid", "32x32"), 2),
        (("stream", "--idle-timeout", "0"), 0),
        (("stream", "--idle-timeout", "0", "--grid", "20x20", "--overlap", "99"), 2),
        (("stream", "--idle-timeout", "0", "--state-file", "/proc/none/x"), None),
        (("verify",), 0),
    ],
)
def test_every_session_that_a_verb_opens_is_closed(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path, opened: list[str],
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int | None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    verb, *options = words
    given = [] if verb == "verify" else [folder]
    found, _, err = cli(verb, bundle.path, *given, *options)
    assert code is None or found == code, err
    assert opened.count("open") == opened.count("closed")
    assert found or "open" in opened


def test_a_session_is_closed_where_the_engine_fails(
    bundle: Bundle, folder: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, remark = read_newest(bundle, folder, FrameOptions(), DomainOptions())
    assert remark == ""
    monkeypatch.setattr(
        ort.OrtSession, "forecast", lambda self, frame, state: (frame[:, None] * np.nan, state)
    )
    with (
        pytest.raises(AccuracyError),
        open_backend(bundle, StreamOptions([""]).backend) as session,
    ):
        make_nowcast(bundle, session, context)
    assert opened == ["open", "closed"]


def test_sinks_of_a_stream_that_never_ran_are_closed(
    bundle: Bundle, folder: Path, tmp_path: Path, opened: list[str]
) -> None:
    options = StreamOptions([str(folder)], [f"jsonl:{tmp_path / 'n.jsonl'}"])
    with (
        pytest.raises(RuntimeError, match="before"),
        open_stream(bundle, options) as found,
    ):
        (sink,) = found.each[0].sinks
        sink.close = lambda: opened.append("sink closed")  # type: ignore[method-assign]
        raise RuntimeError("before it ran")
    assert opened == ["open", "closed", "sink closed"]


def test_a_sink_of_the_programs_own_gets_what_predict_makes(
    bundle: Bundle, folder: Path, opened: list[str]
) -> None:
    memory = Memory()
    options = StreamOptions([str(folder)], policy="pace")
    with open_stream(bundle, options, sinks=[memory]) as found:
        found.streams.run(max_nowcasts=3)
    assert memory.closed == 1
    assert opened == ["open", "closed"]
    frames = np.stack([picture(n) for n in range(6)])[None]  # (1, T, C, H, W)
    with open_backend(bundle, options.backend) as session:
        for newest, nowcast in enumerate(memory.nowcasts, start=4):
            wanted = predict_sequences(bundle, session, frames[:, :newest], 3)[0]
            np.testing.assert_array_equal(nowcast.frames, wanted)
    assert len(memory.nowcasts) == 3


def test_a_model_that_pads_its_frames_streams_them_as_it_predicts_them(
    bundle: Bundle, tmp_path: Path
) -> None:
    """A bundle of 16x16 for frames of 14x15: `export --grid 14x15` makes such ones."""
    recipe = dict(bundle.manifest.recipe)
    recipe["data"] = {**recipe.get("data", {}), "frame": [1, 14, 15]}
    padded = replace(bundle, manifest=bundle.manifest.model_copy(update={"recipe": recipe}))
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(4):
        np.save(folder / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(n)[:, :14, :15])
    memory = Memory()
    options = StreamOptions([str(folder)], policy="pace")
    with open_stream(padded, options, sinks=[memory]) as found:
        found.streams.run(max_nowcasts=1)
    (nowcast,) = memory.nowcasts
    context, _ = read_newest(padded, folder, FrameOptions(), DomainOptions())
    with open_backend(padded, options.backend) as session:
        offline = make_nowcast(padded, session, context)
    assert nowcast.frames.shape == (3, 1, 14, 15)
    np.testing.assert_array_equal(nowcast.frames, offline.frames)


def test_names_that_do_not_hold(bundle: Bundle, folder: Path) -> None:
    options = StreamOptions([f"a={folder}", f"a={folder}"])
    with (
        pytest.raises(UsageError, match="two sources have the name a"),
        open_stream(bundle, options),
    ):
        pass
    assert open_bundle(bundle.path).manifest == bundle.manifest
