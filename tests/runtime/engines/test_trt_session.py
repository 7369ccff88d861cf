"""The TensorRT session's own work (buffers, order, recording) on host memory.

The plan is played by ONNX Runtime on the same step graph, which reads and writes the addresses that
the session binds. What this cannot show is TensorRT and CUDA themselves: that needs a GPU.
"""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import Bundle, EngineSpec, open_bundle
from stpl_core.errors import BundleError, ChecksumError, EnvironmentFault, FrameError, UsageError
from stpl_runtime.engine import ForecastWay, closed_loop, open_session
from stpl_runtime.engines.gpu import Gpu
from stpl_runtime.engines.preflight import Here
from stpl_runtime.engines.trt import RtxSession
from stpl_runtime.proof.reference import load_reference

onnxruntime = pytest.importorskip("onnxruntime")
TINY = Path(__file__).parents[2] / "data" / "convlstm-tiny.bundle"
HERE = Here("Linux", "x86_64", Gpu("8.6", (13, 0)), {"trt-rtx": "1.7.1.116"})


class HostDevice:
    """`Device` on host memory: queued work runs at once, except while it is recorded."""

    stream = 7

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.recording: list[Callable[[], None]] | None = None
        self.copies = 0
        self.clock_ms = 0.0

    def allocate(self, size: int) -> int:
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)  # NaN: nothing is zero by luck
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return address

    allocate_pinned = allocate

    def free(self, address: int) -> None:
        del self.memory[address]

    free_pinned = free

    def queue(self, work: Callable[[], None]) -> None:
        if self.recording is not None:
            self.recording.append(work)
        else:
            work()

    def copy(self, target: int, source: int, size: int) -> None:
        self.copies += 1
        self.queue(lambda: ctypes.memmove(target, source, size) and None)

    def zero(self, target: int, size: int) -> None:
        self.queue(lambda: ctypes.memset(target, 0, size) and None)

    def wait(self) -> None:
        assert self.recording is None

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recording = recorded = []
        work()
        self.recording = None
        return lambda: [each() for each in recorded] and None

    def time(self, work: Callable[[], None]) -> float:
        begin = self.clock_ms
        work()
        return self.clock_ms - begin

    def close(self) -> None:
        assert not self.memory


class GraphExecutor:
    """An ONNX graph that reads and writes bound addresses, as an execution context does."""

    def __init__(
        self, session: Any, batch: int, device: HostDevice, recordable: str, cost_ms: float
    ) -> None:
        self.session, self.batch, self.device = session, batch, device
        self.recordable, self.cost_ms = recordable, cost_ms
        self.addresses: dict[str, int] = {}

    def bind(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def enqueue(self) -> None:
        if self.recordable == "wrong" and self.device.recording is not None:
            return  # a record that does nothing
        self.device.queue(self._run)

    def capturable(self) -> bool:
        return self.recordable != "no"

    def _view(self, value: Any) -> Any:
        shape = (self.batch, *value.shape[1:])
        buffer = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[value.name])
        return np.frombuffer(buffer, np.float32).reshape(shape)

    def _run(self) -> None:
        self.device.clock_ms += self.cost_ms
        feeds = {value.name: self._view(value).copy() for value in self.session.get_inputs()}
        outputs = self.session.get_outputs()
        for value, result in zip(outputs, self.session.run(None, feeds), strict=True):
            self._view(value)[...] = result


def _details(bundle: Bundle, batch: int) -> Any:
    inputs = {"frame": {"type": "fp32", "shape": [batch, *bundle.manifest.frame]}}
    for part in bundle.manifest.state:
        inputs[part.input] = {"type": "fp32", "shape": [batch, *part.shape]}
    return {
        "version": "1.7.1.116",
        "capabilities": ["8.6"],
        "compatible": [],
        "cuda": "13",
        "systems": ["Linux"],
        "machine": "x86_64",
        "inputs": inputs,
    }


def _with_plans(*graphs: str) -> Bundle:
    """The tiny bundle, its graphs entered as the plans of batches 1 and 2."""
    opened = open_bundle(TINY)
    specs = [
        EngineSpec(
            engine="trt-rtx",
            graph=graph,  # type: ignore[arg-type]
            file=f"{graph}.onnx",
            precision="fp32",
            batch=batch,
            details=_details(opened, batch),
        )
        for graph in graphs
        for batch in (1, 2)
    ]
    return Bundle(TINY, opened.manifest.model_copy(update={"engines": tuple(specs)}))


@pytest.fixture
def bundle() -> Bundle:
    """The tiny bundle with plans of the step."""
    return _with_plans("step")


def _open(
    bundle: Bundle,
    recordable: str = "yes",
    forecast: ForecastWay = "auto",
    unrolled_ms: float = 1.0,
) -> tuple[RtxSession, HostDevice]:
    """A session on host memory; a step costs 1 ms of the device's clock."""
    device = HostDevice()

    def load(data: bytes, spec: EngineSpec, _: Any) -> Callable[[], GraphExecutor]:
        assert data == bundle.file(spec.file).read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            bundle.file(spec.file), options, providers=["CPUExecutionProvider"]
        )
        cost = 1.0 if spec.graph == "step" else unrolled_ms
        return lambda: GraphExecutor(session, spec.batch, device, recordable, cost)

    session = RtxSession(
        bundle, ("step",), None, forecast=forecast, here=HERE, device=device, loader=load
    )
    return session, device


def test_the_plan_that_was_hashed_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    """Exchanged after it was read, another plan is not loaded; exchanged before, it is refused."""
    opened = _with_plans("step")
    own = Bundle(Path(shutil.copytree(TINY, tmp_path / "b")), opened.manifest)
    plan = own.file("step.onnx")
    real, loaded = plan.read_bytes(), []

    def load(data: bytes, spec: EngineSpec, _: Any) -> Callable[[], GraphExecutor]:
        plan.write_bytes(real[::-1])
        loaded.append(data)
        raise EnvironmentFault("enough")

    def session() -> RtxSession:
        return RtxSession(own, ("step",), None, here=HERE, device=HostDevice(), loader=load)

    with pytest.raises(EnvironmentFault, match="enough"):
        session().zero_state()
    assert loaded == [real]
    with pytest.raises(ChecksumError, match="SHA-256"):
        session().zero_state()
    assert loaded == [real]


@pytest.mark.parametrize("recordable", ["yes", "no", "wrong"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("graphs", [("step",), ("step", "forecast")])
def test_every_way_gives_what_onnxruntime_gives(
    graphs: tuple[str, ...], batch: int, recordable: str
) -> None:
    bundle = _with_plans(*graphs)
    plain = open_session(bundle, ["step", "forecast", "rollout"], threads=1)
    session, device = _open(bundle, recordable)
    assert session.choice(batch).way == ("unrolled" if "forecast" in graphs else "replays")
    context = np.ascontiguousarray(load_reference(bundle).context[:batch])
    horizon = bundle.manifest.horizon
    np.testing.assert_allclose(session.rollout(context), plain.rollout(context), atol=1e-6)
    np.testing.assert_allclose(
        closed_loop(session, context, horizon), closed_loop(plain, context, horizon), atol=1e-6
    )
    ours, theirs = session.zero_state(batch), plain.zero_state(batch)
    for t in range(context.shape[1] - 1):
        _, ours = session.step(np.ascontiguousarray(context[:, t]), ours)
        _, theirs = plain.step(np.ascontiguousarray(context[:, t]), theirs)
    newest = np.ascontiguousarray(context[:, -1])
    before = session.state_arrays(ours)
    frames, after = session.forecast(newest, ours)
    expected, expected_after = plain.forecast(newest, theirs)
    np.testing.assert_allclose(frames, expected, atol=1e-6)
    for name, values in plain.state_arrays(expected_after).items():
        np.testing.assert_allclose(session.state_arrays(after)[name], values, atol=1e-6)
    # The state that was given is as it was: the same nowcast can be forked again.
    for name, values in session.state_arrays(ours).items():
        assert np.array_equal(values, before[name])
    assert np.array_equal(session.forecast(newest, ours)[0], frames)
    again = session.state_from_arrays(before)
    assert np.array_equal(session.forecast(newest, again)[0], frames)
    assert ("without CUDA graphs" in session.provider) == (recordable != "yes")
    session.close()
    assert not device.memory
    plain.close()


def test_results_belong_to_the_caller_and_states_are_reused(bundle: Bundle) -> None:
    session, device = _open(bundle)
    frame = np.ascontiguousarray(load_reference(bundle).context[:1, 0])
    first, state = session.step(frame, session.zero_state())
    kept = first.copy()
    blocks = len(device.memory)
    for _ in range(50):
        _, after = session.forecast(frame, state)
        del after
    assert len(device.memory) <= blocks + 1  # one block for `after`, again and again
    assert np.array_equal(first, kept)
    session.close()


def test_a_long_loop_copies_nothing_between_host_and_device(bundle: Bundle) -> None:
    session, device = _open(bundle)
    context = np.ascontiguousarray(load_reference(bundle).context[:1])
    session.rollout(context)
    device.copies = 0
    session.rollout(context)
    manifest = bundle.manifest
    # Frames in and frames out once; each observed frame and each guess moves on the device.
    assert device.copies == 2 + manifest.context + manifest.horizon
    session.close()


def test_the_faster_way_is_measured_and_taken() -> None:
    both = _with_plans("step", "forecast")
    horizon = both.manifest.horizon
    for unrolled_ms, way in ((horizon - 0.5, "unrolled"), (horizon + 0.5, "replays")):
        session, _ = _open(both, unrolled_ms=unrolled_ms)
        choice = session.choice(2)
        assert (choice.way, choice.reason) == (way, "measured")
        assert choice.replays_ms == pytest.approx(horizon)
        assert choice.unrolled_ms == pytest.approx(unrolled_ms)
        (reported,) = session.facts().values()
        assert f"{horizon:.3f} ms by replays, {unrolled_ms:.3f} ms unrolled" in reported
        assert session.facts().keys() == {"forecast, batch 2"}
        session.close()


@pytest.mark.parametrize("odd", [0, 1])
def test_one_slow_run_does_not_decide(odd: int) -> None:
    session, device = _open(_with_plans("step", "forecast"), unrolled_ms=1.0)
    calls, real = [0], device.time

    def time(work: Callable[[], None]) -> float:
        calls[0] += 1
        hiccup = 1000.0 if calls[0] in (5 + odd, 9 + odd) else 0.0
        return real(work) + hiccup

    device.time = time  # type: ignore[method-assign]
    assert session.choice().way == "unrolled"
    assert calls[0] == 18
    session.close()


def test_the_way_can_be_asked_for() -> None:
    both = _with_plans("step", "forecast")
    for way, unrolled_ms in (("replays", 0.1), ("unrolled", 1000.0)):
        session, device = _open(both, forecast=way, unrolled_ms=unrolled_ms)  # type: ignore[arg-type]
        choice = session.choice()
        assert (choice.way, choice.reason) == (way, "asked for")
        assert choice.unrolled_ms is None  # nothing was measured
        assert ("unrolled plan" in str(choice)) == (way == "unrolled")
        session.close()
        assert not device.memory
    session, _ = _open(_with_plans("step"))
    assert session.choice().reason.endswith("no plan of the forecast graph, only of step")
    session.close()
    with pytest.raises(BundleError, match="no plan of the forecast graph"):
        _open(_with_plans("step"), forecast="unrolled")
    with pytest.raises(UsageError, match="--forecast replays with --engine onnx"):
        open_session(both, ["step"], forecast="replays")
    with pytest.raises(UsageError, match="unknown --forecast loop"):
        open_session(both, ["step"], engine="trt-rtx", forecast="loop")


def test_wrong_frames_batches_and_machines_are_refused(bundle: Bundle) -> None:
    session, _ = _open(bundle)
    with pytest.raises(FrameError, match="expected"):
        session.rollout(np.zeros((1, 1, *bundle.manifest.frame), np.float32))
    with pytest.raises(FrameError, match="float64"):
        session.step(np.zeros((1, *bundle.manifest.frame)), session.zero_state())  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="no step plan for batch 3"):
        session.zero_state(3)
    session.close()
    other = dataclasses.replace(HERE, gpu=Gpu("9.0", (13, 0)))
    with pytest.raises(EnvironmentFault, match=r"this GPU has 9\.0"):
        RtxSession(bundle, ("step",), None, here=other, device=HostDevice())
    with pytest.raises(BundleError, match="has no TensorRT-RTX plan"):
        open_session(open_bundle(TINY), ["step"], engine="trt-rtx")
