"""OpenVINO on the CPU, beside ONNX Runtime and the bundle's own verification."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import WEIGHTS, Bundle, open_bundle, seal
from stpl_core.codec import Array
from stpl_core.errors import BundleError, EnvironmentFault, MissingExtraError, UsageError
from stpl_runtime.engine import GraphName, ReportsFacts, Session, closed_loop, open_session
from stpl_runtime.engines.ov import session as ov
from stpl_runtime.engines.providers import try_openvino
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import first_breach, verify_bundle
from tests.runtime.conftest import open_named

openvino = pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


def open_ov(bundle: Bundle, graphs: tuple[GraphName, ...] = GRAPHS) -> Session:
    return open_session(bundle, graphs, engine="openvino", threads=1)


def facts(session: Session) -> dict[str, str]:
    assert isinstance(session, ReportsFacts)
    return dict(session.facts())


@pytest.fixture(scope="module")
def opened() -> Iterator[Session]:
    session = open_ov(open_named("convlstm-tiny"))
    yield session
    session.close()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STPL_CACHE_MB", "50")
    return tmp_path / "cache" / "stpl-deploy" / "compiled"


def frames_of(bundle: Bundle, count: int) -> Array:
    return load_reference(bundle).context[:count]  # (B, T, C, H, W)


@pytest.mark.parametrize(
    "name", ["convlstm-tiny", pytest.param("modernn-mini", marks=pytest.mark.soak)]
)
def test_committed_bundles_verify(name: str) -> None:
    report = verify_bundle(open_named(name), engine="openvino", threads=1)
    assert first_breach(report) is None
    assert {check.path for check in report.checks} == set(GRAPHS)
    assert {check.engine for check in report.checks} == {"openvino"}
    assert {check.provider for check in report.checks} == {"OpenVINO on CPU, f32"}


def test_it_is_as_close_as_onnx_runtime(opened: Session, bundle: Bundle, session: Session) -> None:
    frames = frames_of(bundle, 2)
    for one, other in (
        (opened.rollout(frames), session.rollout(frames)),
        (closed_loop(opened, frames, 5), closed_loop(session, frames, 5)),
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
        assert one.dtype == np.float32


def test_a_forecast_leaves_its_state_and_gives_arrays_of_their_own(
    opened: Session, bundle: Bundle
) -> None:
    frames = frames_of(bundle, 1)
    _, state = opened.step(frames[:, 0], opened.zero_state())
    before = opened.state_arrays(state)
    first, after = opened.forecast(frames[:, 1], state)
    kept = first.copy()
    again, _ = opened.forecast(frames[:, 1], state)
    opened.forecast(frames[:, 2], after)
    np.testing.assert_array_equal(first, kept)  # later calls do not write into it
    np.testing.assert_array_equal(first, again)
    for name, values in opened.state_arrays(state).items():
        np.testing.assert_array_equal(values, before[name])
    restored = opened.state_from_arrays(before)
    np.testing.assert_array_equal(opened.forecast(frames[:, 1], restored)[0], first)


def test_a_batch_is_its_rows(opened: Session, bundle: Bundle) -> None:
    frames = frames_of(bundle, 2)
    together = opened.rollout(frames)
    for n in range(2):
        np.testing.assert_array_equal(together[n], opened.rollout(frames[n : n + 1])[0])


def test_fp32_is_stated_and_nothing_is_pinned(bundle: Bundle) -> None:
    session = ov.OpenVinoSession(bundle, ("step",), 1)
    compiled = session._request("step").get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_the_second_start_is_from_the_cache_with_the_same_bits(
    cached: Path, bundle: Bundle
) -> None:
    frames = frames_of(bundle, 2)
    first = open_ov(bundle)
    assert facts(first)["step"].startswith("compiled")
    one = [first.rollout(frames), closed_loop(first, frames[:1], 3)]
    second = open_ov(bundle)
    for graph in GRAPHS:
        assert facts(second)[graph].startswith("from the cache, ")
    other = [second.rollout(frames), closed_loop(second, frames[:1], 3)]
    for here, there in zip(one, other, strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_spoilt_cache_is_compiled_again(
    cached: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    frames = frames_of(bundle, 1)
    expected = closed_loop(open_ov(bundle, ("step",)), frames, 3)
    (path,) = cached.glob("*.compiled")
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        session = open_ov(bundle, ("step",))
    assert facts(session)["step"].startswith("compiled")
    assert [record.message for record in caplog.records] == [
        f"{path} is damaged; it is compiled again"
    ]
    np.testing.assert_array_equal(closed_loop(session, frames, 3), expected)
    assert facts(open_ov(bundle, ("step",)))["step"].startswith("from the cache")


def test_other_weights_are_not_taken_from_the_cache(cached: Path, own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    before = open_ov(bundle).rollout(frames_of(bundle, 1))
    weights = bytearray(bundle.file(WEIGHTS).read_bytes())
    weights[-4:] = np.float32(3.0).tobytes()
    bundle.file(WEIGHTS).write_bytes(weights)
    seal(own_bundle, bundle.manifest)
    changed = open_bundle(own_bundle)
    assert np.abs(open_ov(changed).rollout(frames_of(changed, 1)) - before).max() > 1e-3
    assert first_breach(verify_bundle(changed, engine="openvino", threads=1)) is not None


def test_bytes_that_change_after_the_check_are_not_loaded(own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    bundle.file(WEIGHTS).write_bytes(b"0" * bundle.file(WEIGHTS).stat().st_size)
    with pytest.raises(Exception, match="SHA-256"):
        open_ov(bundle)


def test_short_of_memory_the_step_alone_is_compiled(
    bundle: Bundle, opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ov, "memory_room_bytes", lambda: 1000)
    session = open_ov(bundle)
    assert "memory left" in facts(session)["forecast"]
    assert set(facts(session)) == {"step", "forecast"}
    frames = frames_of(bundle, 1)
    np.testing.assert_allclose(session.rollout(frames), opened.rollout(frames), atol=1e-5)
    assert first_breach(verify_bundle(bundle, engine="openvino", threads=1)) is None


def test_a_graph_that_was_not_asked_for_is_refused(bundle: Bundle) -> None:
    session = open_ov(bundle, ("step",))
    with pytest.raises(BundleError, match="the rollout graph is not open"):
        session.rollout(frames_of(bundle, 1))


def test_bf16_is_refused_where_the_processor_has_none(bundle: Bundle) -> None:
    if ov.computes_bf16():
        report = verify_bundle(bundle, engine="openvino", threads=1, allow="bf16")
        assert first_breach(report) is None
        assert report.checks[0].leads[0].min_psnr_db == 45.0
        return
    with pytest.raises(EnvironmentFault, match="no bf16 arithmetic"):
        open_session(bundle, ("step",), engine="openvino", allow="bf16")


def test_allow_is_refused_where_it_would_do_nothing(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="--allow bf16 with --engine onnx"):
        open_session(bundle, ("step",), engine="onnx", allow="bf16")


def test_a_device_that_is_not_there_is_named(bundle: Bundle) -> None:
    with pytest.raises(EnvironmentFault, match="OpenVINO finds no NPU here, only CPU"):
        open_session(bundle, ("step",), engine="openvino:NPU")


SIGNALLED = """import pathlib, signal, sys
from stpl_core.bundle import open_bundle
from stpl_runtime.engine import open_session
said, bundle = [], open_bundle(pathlib.Path(sys.argv[1]))
signal.signal(signal.SIGINT, lambda number, frame: said.append(number))
first, second = (open_session(bundle, ("step",), engine="openvino") for _ in "12")
first.close()
second.close()
del first, second
signal.raise_signal(signal.SIGINT)
assert said == [signal.SIGINT]
"""


def test_a_signal_after_sessions_that_were_closed(bundle: Bundle) -> None:
    """A Core that goes takes the stack for signals with it: each Ctrl-C was the end (SIGSEGV)."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(bundle.path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done


def test_doctor_tries_it() -> None:
    trials = {trial.provider: trial for trial in try_openvino()}
    assert (trials["OpenVINO CPU"].works, trials["OpenVINO CPU"].engine) == (True, "openvino")


def test_without_openvino_the_extra_is_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[openvino\]'"):
        open_ov(bundle)


def test_an_old_openvino_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "__version__", "2024.6.0-1-abc")
    with pytest.raises(EnvironmentFault, match=r"openvino 2024\.6.*expected 2026\.0 or later"):
        open_ov(bundle)


def test_an_unreadable_graph_is_refused_before_openvino_sees_it(own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    path = bundle.file("step.onnx")
    path.write_bytes(path.read_bytes()[:-7])
    seal(own_bundle, bundle.manifest)
    with pytest.raises(BundleError, match=r"step\.onnx"):
        open_ov(open_bundle(own_bundle))
