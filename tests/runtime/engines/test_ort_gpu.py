"""ONNX Runtime's GPU sessions: their binding on the CPU's memory, their refusals for real.

The CPU provider stands in for the GPU one: the same buffers, bindings and order of calls. What this
cannot show is CUDA itself; that needs a GPU.
"""

from __future__ import annotations

import gc
import shutil
import stat
import sys
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.errors import EnvironmentFault, FrameError, UsageError
from stpl_runtime.engine import ENGINES, closed_loop, open_session, require
from stpl_runtime.engines import ort_gpu
from stpl_runtime.engines import placement as placement_module
from stpl_runtime.engines.ort_gpu import OrtCudaGraphSession, OrtCudaSession, OrtDeviceSession
from stpl_runtime.engines.placement import (
    CUDA,
    GPU_PROVIDERS,
    ON_CPU,
    RTX,
    load_on,
    placement,
    placement_note,
)
from stpl_runtime.engines.providers import tiny_model
from stpl_runtime.proof.reference import load_reference

onnxruntime = pytest.importorskip("onnxruntime")
TINY = Path(__file__).parents[2] / "data" / "convlstm-tiny.bundle"
GPU_ENGINES = [word for word in ENGINES if word.startswith("onnx-")]
reports_placement = pytest.mark.skipif(
    not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason="this version of onnxruntime does not say where nodes run",
)


def plugin_of(library: Path) -> Any:
    """The Python package of a provider plugin whose library lies at `library`."""
    made: Any = ModuleType(RTX.plugin)
    made.__spec__ = ModuleSpec(RTX.plugin, None)
    made.get_library_path = lambda: str(library)
    return made


class OnHost(OrtDeviceSession):
    """The device session on the CPU provider."""

    engine = "onnx-cuda"
    target = ON_CPU


@pytest.fixture
def bundle() -> Bundle:
    return open_bundle(TINY)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_bound_loop_is_the_plain_one_bit_for_bit(bundle: Bundle, batch: int) -> None:
    graphs = ("step", "forecast", "rollout")
    plain = open_session(bundle, graphs, threads=1)
    bound = OnHost(bundle, graphs, 1)
    context = np.ascontiguousarray(load_reference(bundle).context[:batch])
    horizon = bundle.manifest.horizon
    assert np.array_equal(bound.rollout(context), plain.rollout(context))
    assert np.array_equal(closed_loop(bound, context, 25), closed_loop(plain, context, 25))
    ours: Any = bound.zero_state(batch)
    theirs: Any = plain.zero_state(batch)
    for t in range(context.shape[1] - 1):
        _, ours = bound.step(np.ascontiguousarray(context[:, t]), ours)
        _, theirs = plain.step(np.ascontiguousarray(context[:, t]), theirs)
    before = bound.state_arrays(ours)
    newest = np.ascontiguousarray(context[:, -1])
    frames, after = bound.forecast(newest, ours)
    expected, expected_after = plain.forecast(newest, theirs)
    assert frames.shape == (batch, horizon, *bundle.manifest.frame)
    assert np.array_equal(frames, expected)
    for name, values in plain.state_arrays(expected_after).items():
        assert np.array_equal(bound.state_arrays(after)[name], values)
    # Forked again, from the same state and from a copy of it.
    assert np.array_equal(bound.forecast(newest, ours)[0], frames)
    assert np.array_equal(bound.forecast(newest, bound.state_from_arrays(before))[0], frames)
    for name, values in bound.state_arrays(ours).items():
        assert np.array_equal(values, before[name])


def test_a_stream_goes_to_and_fro_between_two_sets_of_buffers(bundle: Bundle) -> None:
    session = OnHost(bundle, ("step",), 1)
    frame = np.ascontiguousarray(load_reference(bundle).context[:1, 0])
    state = session.zero_state()
    where = []
    guess = frame
    for _ in range(20):
        guess, state = session.step(guess, state)
        where.append(state.values[0].data_ptr())
    assert len(set(where)) == 2
    assert len(session._bindings) == 2  # made once each, used again and again
    # A state that somebody still holds is never written over.
    held, kept = state, session.state_arrays(state)
    for _ in range(5):
        guess, state = session.step(guess, state)
    for name, values in session.state_arrays(held).items():
        assert np.array_equal(values, kept[name])
    del held
    gc.collect()
    assert len({buffers.number for buffers in session._buffers(1).pool}) == 2


def test_results_belong_to_the_caller(bundle: Bundle) -> None:
    session = OnHost(bundle, ("step",), 1)
    frames = load_reference(bundle).context[:1]
    first, state = session.step(np.ascontiguousarray(frames[:, 0]), session.zero_state())
    kept = first.copy()
    session.step(np.ascontiguousarray(frames[:, 1]), state)
    assert np.array_equal(first, kept)
    with pytest.raises(FrameError, match="float64"):
        session.step(np.zeros((1, *bundle.manifest.frame)), session.zero_state())  # type: ignore[arg-type]


def test_each_pair_of_sets_has_a_cuda_graph_of_its_own(bundle: Bundle) -> None:
    class Recorded(OnHost):
        recorded = True

    session = Recorded(bundle, ("step", "forecast"), 1)
    plain = open_session(bundle, ("step",), threads=1)
    context = np.ascontiguousarray(load_reference(bundle).context[:1])
    assert np.array_equal(closed_loop(session, context, 9), closed_loop(plain, context, 9))
    newest = np.ascontiguousarray(context[:, -1])
    held = [session.zero_state() for _ in range(20)]
    afters = [session.forecast(newest, state)[1] for state in held]
    assert len(afters) == 20
    numbers = {graph: [] for graph in ("step", "forecast")}  # type: dict[str, list[str]]
    for key, number in session._records.items():
        numbers[key[0]].append(number)
    assert sorted(numbers["step"]) == ["1", "2"]
    recorded = [number for number in numbers["forecast"] if number != "-1"]
    assert sorted(map(int, recorded)) == list(range(1, 17))  # the others run without
    assert numbers["forecast"].count("-1") == 4
    options = session._run_options(("step", 1, 1, 2))
    assert options is not None
    assert options.get_run_config_entry("gpu_graph_id") in ("1", "2")


def test_only_graphs_without_work_on_the_cpu_are_recorded(bundle: Bundle) -> None:
    recorded = OrtCudaGraphSession.__new__(OrtCudaGraphSession)
    plain = OrtCudaSession.__new__(OrtCudaSession)
    for graph in ("step", "forecast", "rollout"):
        options = recorded.provider_options(graph)  # type: ignore[arg-type]
        assert ("enable_cuda_graph" in options) == (graph != "rollout")
        assert options["use_tf32"] == "0"
        assert "enable_cuda_graph" not in plain.provider_options(graph)  # type: ignore[arg-type]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this build of onnxruntime has GPU providers",
)
@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_a_gpu_engine_never_runs_on_the_cpu_instead(bundle: Bundle, engine: str) -> None:
    with pytest.raises(EnvironmentFault, match=r"has no \w+ExecutionProvider, only") as caught:
        open_session(bundle, ["step"], engine=engine)
    assert caught.value.exit_code == 4
    assert "pip install" in caught.value.fix
    assert "--engine onnx" in caught.value.fix


def test_the_required_provider_is_checked(bundle: Bundle) -> None:
    for word in ("cpu", "CPUExecutionProvider", None):
        open_session(bundle, ["step"], require_provider=word, threads=1).close()
    with pytest.raises(EnvironmentFault, match=r"runs on CPUExecutionProvider; expected cuda") as e:
        open_session(bundle, ["step"], require_provider="cuda", threads=1)
    assert e.value.fix.startswith("--engine onnx-cuda")
    assert e.value.exit_code == 4
    require("CUDAExecutionProvider, 3 of 40 nodes on CPUExecutionProvider", "CUDA")
    with pytest.raises(EnvironmentFault, match="expected cpu"):
        require("CUDAExecutionProvider, 3 of 40 nodes on CPUExecutionProvider", "cpu")
    require("TensorRT-RTX 1.7.1, compute capability 8.6", "tensorrt")
    for typed, fixed in (("onnx-cud", "onnx-cuda"), ("cuda", "onnx-cuda"), ("tensorrt", "trt")):
        with pytest.raises(UsageError, match=f"--engine {fixed}$"):
            open_session(bundle, ["step"], engine=typed)


def test_what_was_checked_is_what_a_provider_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exchanged between the check and the use, the bundle's files are not looked at again."""
    path = Path(shutil.copytree(TINY, tmp_path / "b"))
    opened = open_bundle(path)
    context = load_reference(opened).context[:1]
    seen: list[Path] = []

    def exchanged(provider: Any, model: Path, *options: Any) -> Any:
        for name in opened.manifest.files:
            (path / name).write_bytes(b"another's")
        seen.append(model)
        assert stat.S_IMODE(model.parent.stat().st_mode) == 0o700
        return load_on(provider, model, *options)

    monkeypatch.setattr(ort_gpu, "load_on", exchanged)
    session = OnHost(opened, ("rollout",), 1)
    plain = open_session(open_bundle(TINY), ["rollout"], threads=1)
    assert np.array_equal(session.rollout(context), plain.rollout(context))
    assert not any(model.exists() for model in seen)


@reports_placement
def test_placement_is_what_onnxruntime_says(bundle: Bundle) -> None:
    session = load_on(ON_CPU, tiny_model(), onnxruntime.SessionOptions())
    assert placement(session) == {ON_CPU.name: Counter({"Conv": 1})}
    assert placement_note(ON_CPU, [session]) == ""


class _Split:
    """A session with nodes on several providers, as ONNX Runtime describes them."""

    def __init__(self, **nodes: list[str]) -> None:
        self.nodes = nodes

    def get_provider_graph_assignment_info(self) -> list[Any]:
        def part(name: str, kinds: list[str]) -> Any:
            listed = [SimpleNamespace(op_type=kind) for kind in kinds]
            return SimpleNamespace(ep_name=f"{name}ExecutionProvider", get_nodes=lambda: listed)

        return [part(name, kinds) for name, kinds in self.nodes.items()]


def test_what_a_provider_leaves_to_the_cpu_is_counted_or_refused() -> None:
    fine = _Split(CUDA=["Conv"] * 8, CPU=["Shape", "Concat"])
    placement_module._check_placement(CUDA, placement(fine))
    assert placement_note(CUDA, [fine]) == ", 2 of 10 nodes on CPUExecutionProvider"
    heavy = _Split(CUDA=["Add"], CPU=["FusedConv", "Shape"])
    with pytest.raises(
        EnvironmentFault, match="takes 1 of the graph's 3 nodes and leaves FusedConv"
    ):
        placement_module._check_placement(CUDA, placement(heavy))
    with pytest.raises(EnvironmentFault, match="takes 0 of the graph's 1 nodes"):
        placement_module._check_placement(CUDA, placement(_Split(CPU=["Shape"])))


def test_a_listed_provider_that_does_not_load_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the GPU build behaves without CUDA: the provider is listed, the session is on the CPU."""
    real = onnxruntime.InferenceSession
    listed = [CUDA.name, ON_CPU.name]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)

    def fall_back(model: Any, options: Any, **keys: Any) -> Any:
        assert keys["enable_fallback"] is False
        assert keys["providers"][0][0] == CUDA.name
        return real(model, options, providers=[ON_CPU.name])

    fall_back.get_provider_graph_assignment_info = None  # type: ignore[attr-defined]
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    with pytest.raises(EnvironmentFault, match="does not load: no GPU answers; expected an NVIDIA"):
        load_on(CUDA, tiny_model(), onnxruntime.SessionOptions())
    # The linker's own words, from a library that cannot be loaded.
    folder = tmp_path / "capi"
    folder.mkdir()
    for name in ("onnxruntime_providers_shared", CUDA.library):
        (folder / f"lib{name}.so").write_bytes(b"no library")
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    if sys.platform == "linux":
        with pytest.raises(EnvironmentFault, match=r"does not load: libonnxruntime.*: file too sh"):
            load_on(CUDA, tiny_model(), onnxruntime.SessionOptions())


@pytest.mark.skipif(
    not hasattr(onnxruntime, "get_ep_devices"), reason="this onnxruntime takes no plugins"
)
def test_a_plugin_that_does_not_load_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "libplugin.so"
    library.write_bytes(b"no library")
    monkeypatch.setitem(sys.modules, RTX.plugin, plugin_of(library))
    with pytest.raises(EnvironmentFault, match=r"does not load: .*nvidia-smi") as caught:
        load_on(RTX, tiny_model(), onnxruntime.SessionOptions())
    assert caught.value.found.endswith("libplugin.so: file too short")


def test_every_gpu_provider_says_what_to_type() -> None:
    for provider in GPU_PROVIDERS:
        assert provider.needs
        assert provider.mend
        assert provider.fix
