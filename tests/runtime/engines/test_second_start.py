"""ONNX Runtime's second start: the graph that it optimised before, and the same bits."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import WEIGHTS, Bundle, open_bundle, seal
from stpl_core.codec import Array
from stpl_runtime.engine import GraphName, Session, closed_loop, open_session
from stpl_runtime.engines import ort
from stpl_runtime.engines.checked_graphs import CheckedGraphs
from stpl_runtime.proof.reference import load_reference

GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STPL_CACHE_MB", "50")
    return tmp_path / "cache" / "stpl-deploy" / "compiled"


def opened(bundle: Bundle) -> Session:
    return open_session(bundle, GRAPHS, threads=1)


def results(session: Session, bundle: Bundle) -> list[Array]:
    frames = load_reference(bundle).context[:2]
    one = closed_loop(session, frames, 3), session.rollout(frames)
    _, state = session.step(frames[:, 0], session.zero_state(2))
    return [*one, session.forecast(frames[:, 1], state)[0]]


def read_graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that are read from the bundle from now on."""
    found: list[str] = []
    plain = CheckedGraphs.graph

    def spy(self: CheckedGraphs, name: GraphName) -> object:
        found.append(name)
        return plain(self, name)

    monkeypatch.setattr(CheckedGraphs, "graph", spy)
    return found


@pytest.mark.parametrize("old_norms", [False, True])
def test_the_second_start_has_the_bits_of_the_first_and_of_no_cache(
    old_norms: bool, cached: Path, any_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "norms_lose_digits", lambda: old_norms)
    first = results(opened(any_bundle), any_bundle)
    assert len(list(cached.glob("*.compiled"))) == 3
    read = read_graphs(monkeypatch)
    second = results(opened(any_bundle), any_bundle)
    assert read == []
    monkeypatch.setenv("STPL_CACHE_MB", "0")
    plain = results(opened(any_bundle), any_bundle)
    assert read == list(GRAPHS)
    for one, two, three in zip(first, second, plain, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_a_damaged_entry_costs_one_line(
    cached: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    before = results(opened(bundle), bundle)
    for path in cached.glob("*.compiled"):
        path.write_bytes(path.read_bytes()[:-50])
    with caplog.at_level(logging.WARNING):
        after = results(opened(bundle), bundle)
    assert len(caplog.records) == 1
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_onnx_runtime_refuses_is_optimised_again(cached: Path, bundle: Bundle) -> None:
    before = results(opened(bundle), bundle)
    cache = ort.CompiledCache()
    keys = [path.stem for path in cached.glob("*.compiled")]
    for key in keys:
        cache.write(key, b"whole, and no graph of this build")
    for one, two in zip(before, results(opened(bundle), bundle), strict=True):
        np.testing.assert_array_equal(one, two)
    assert all(len(cache.read(key) or b"") > 100 for key in keys)


def test_changed_weights_are_not_taken_from_the_cache(cached: Path, own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    before = results(opened(bundle), bundle)
    weights = bytearray(bundle.file(WEIGHTS).read_bytes())
    weights[-4:] = np.float32(3.0).tobytes()
    bundle.file(WEIGHTS).write_bytes(weights)
    seal(own_bundle, bundle.manifest)
    changed = open_bundle(own_bundle)
    assert np.abs(results(opened(changed), changed)[0] - before[0]).max() > 1e-3
