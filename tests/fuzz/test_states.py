"""State files that another wrote: taken up, or set aside in one line; the stream runs on."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

from stpl_core.bundle import open_bundle
from stpl_core.errors import UsageError
from stpl_runtime.engine import Session, open_session
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.streaming.state_file import StateFile
from tests.fuzz.mutate import few, mutated, mutated_npz
from tests.runtime.conftest import CADENCE_S, make_frame

TINY = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"
SEED = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def session() -> Any:
    opened = open_session(open_bundle(TINY), ["step", "forecast", "rollout"], threads=1)
    yield opened
    opened.close()


def made(session: Session, path: Path, mode: str) -> tuple[Nowcaster, StateFile]:
    nowcaster = Nowcaster(open_bundle(TINY), session, cadence_s=CADENCE_S, mode=mode)  # type: ignore[arg-type]  # a word
    return nowcaster, StateFile(path, nowcaster)


@pytest.fixture(scope="module")
def saved(session: Session, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return saved_states(session, tmp_path_factory.mktemp("saved"))


def saved_states(session: Session, folder: Path) -> dict[str, bytes]:
    """A state after six frames, of both kinds of context."""
    contents = {}
    for mode in ("window", "carry"):
        nowcaster, file = made(session, folder / mode, mode)
        for slot in range(6):
            nowcaster.put(make_frame(slot))
            nowcaster.issue()
        file.save(published=True)
        contents[mode] = (folder / mode).read_bytes()
    return contents


def opened(content: bytes) -> tuple[dict[str, Any], Any]:
    """The arrays of a state file, and the facts among them."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(bytes(arrays["meta"]))


def closed(arrays: dict[str, Any], facts: Any) -> bytes:
    """A state file of them."""
    meta = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, "meta": meta})  # type: ignore[arg-type]  # names are ours
    return buffer.getvalue()


def with_other_facts(content: bytes, random: Random) -> bytes:
    arrays, facts = opened(content)
    identity = facts["identity"]
    changed = mutated(facts, random)
    if isinstance(changed, dict) and random.randrange(4):
        changed["identity"], changed["version"] = identity, 1
    return closed(arrays, changed)


def leaves(facts: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every fact stands."""
    inside = facts.items() if isinstance(facts, dict) else enumerate(facts)
    for key, value in inside:
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*at, key))


@few(50)
@given(seed=SEED)
def test_states(
    session: Session, saved: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    random = Random(seed)
    folder = tmp_path_factory.getbasetemp() / "state"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    mode = random.choice(["window", "carry"])
    change = with_other_facts if random.randrange(3) else mutated_npz
    path = folder / "stream.state"
    path.write_bytes(change(saved[mode], random))
    nowcaster, file = made(session, path, mode)
    with suppress(UsageError):  # of another bundle or other options
        line = file.restore()
        assert line.isprintable()
        for slot in range(6, 10):
            nowcaster.put(make_frame(slot))
            made_now = nowcaster.issue()
            if made_now is not None:
                assert np.isfinite(made_now.frames).all()
        file.save(published=True)


def test_a_newest_slot_without_a_frame(
    session: Session, saved: dict[str, bytes], tmp_path: Path
) -> None:
    """Its window counted as complete, and the next nowcast ended with a traceback."""
    path = tmp_path / "stream.state"
    arrays, facts = opened(saved["window"])
    del facts["entries"][-1]
    path.write_bytes(closed(arrays, facts))
    nowcaster, file = made(session, path, "window")
    assert "the newest slot, 5, has no frame" in file.restore()
    nowcaster.put(make_frame(5))
    assert nowcaster.issue() is None


@pytest.mark.parametrize("mode", ["window", "carry"])
@pytest.mark.parametrize("value", [None, -1, "x", [], True], ids=repr)
def test_each_fact_replaced(
    session: Session, saved: dict[str, bytes], tmp_path: Path, mode: str, value: object
) -> None:
    """A serial of null was taken up, and the next frame ended with a traceback."""
    path = tmp_path / "stream.state"
    arrays, facts = opened(saved[mode])
    places = list(leaves(facts))
    assert len(places) > 60
    for *above, last in places:
        changed = deepcopy(facts)
        inside = changed
        for key in above:
            inside = inside[key]
        inside[last] = value
        path.write_bytes(closed(arrays, changed))
        nowcaster, file = made(session, path, mode)
        with suppress(UsageError):  # of another bundle or other options
            file.restore()
            for slot in range(6, 9):
                nowcaster.put(make_frame(slot))
                nowcaster.issue()
            file.save(published=True)


def test_a_state_is_taken_up(session: Session, saved: dict[str, bytes], tmp_path: Path) -> None:
    """Else everything above would be set aside."""
    for mode, content in saved.items():
        path = tmp_path / mode
        path.write_bytes(content)
        _, file = made(session, path, mode)
        assert "going on" in file.restore() or "resum" in file.restore()
        assert not (tmp_path / f"{mode}.damaged").exists()
