"""ONNX Runtime on an NVIDIA GPU: CUDA, TensorRT, TensorRT-RTX; frames cross, the state does not.

State, frame and guess lie in device buffers that are made once for each batch size and used in
turn: a step reads the set that it is given and writes another one, which goes back to the pool when
its handle is dropped. So a stream runs to and fro between two sets, each a binding made once. No
graph writes what it reads, hence a CUDA graph may run it more than once while it records.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, GraphName
from stpl_core.codec import Array
from stpl_runtime.engines.ort import OrtSession, OrtState, check_shape, running
from stpl_runtime.engines.placement import CUDA, RTX, TENSORRT, Provider, load_on, placement_note

if TYPE_CHECKING:
    import onnxruntime

_RECORDS = 16
"""CUDA graphs that are kept for one ONNX graph; further pairs of sets run without."""


@dataclass(eq=False)
class _Set:
    """Device buffers of one state, in the manifest's order."""

    number: int
    values: tuple[onnxruntime.OrtValue, ...]


class DeviceState(OrtState):
    """A state on the device; its buffers go back to the pool when nobody holds it any more."""

    buffers: _Set

    def __init__(self, buffers: _Set, batch: int, pool: list[_Set]) -> None:
        """Take a set out of the pool's hands."""
        super().__init__(buffers.values, batch)
        object.__setattr__(self, "buffers", buffers)
        weakref.finalize(self, pool.append, buffers)


@dataclass
class _Batch:
    """All buffers of one batch size."""

    frame: onnxruntime.OrtValue
    results: dict[str, onnxruntime.OrtValue] = field(default_factory=dict)
    """Graph -> its frames `(B, C, H, W)` or `(B, K, C, H, W)`."""
    pool: list[_Set] = field(default_factory=list)


class OrtDeviceSession(OrtSession):
    """Keeps the `stpl_runtime.engine.Session` protocol on a provider with memory of its own."""

    target: ClassVar[Provider]
    recorded: ClassVar[bool] = False
    """Whether each pair of sets is recorded as a CUDA graph."""

    def __init__(self, bundle: Bundle, graphs: tuple[GraphName, ...], threads: int | None) -> None:
        """Load `graphs` on the provider; see `stpl_runtime.engine.open_session`.

        Raises:
            EnvironmentFault: the provider is missing, or leaves heavy work to the CPU.
        """
        self._batches: dict[int, _Batch] = {}
        self._bindings: dict[tuple[str, int, int, int], onnxruntime.IOBinding] = {}
        self._records: dict[tuple[str, int, int, int], str] = {}
        self._sets = 0
        super().__init__(bundle, graphs, threads)

    def provider_options(self, graph: GraphName) -> dict[str, str]:
        """The options of the provider for one graph."""
        return {}

    def _load(self, graph: GraphName, path: Path) -> onnxruntime.InferenceSession:
        # By a path, since not every provider takes weights that are lent; but by one of our own.
        with self._checked.private_copy(graph) as own:
            return load_on(self.target, own, self._options(), self.provider_options(graph))

    def _running_on(self) -> str:
        return self.target.name + placement_note(self.target, tuple(self._sessions.values()))

    def zero_state(self, batch: int = 1) -> DeviceState:
        """The start of a sequence."""
        state = self._new_state(batch)
        for part, value in zip(self.manifest.state, state.values, strict=True):
            value.update_inplace(np.zeros((batch, *part.shape), part.dtype))
        return state

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> DeviceState:
        """Copy a state in."""
        first = self.manifest.state[0]
        state = self._new_state(len(arrays[first.name]))
        for part, value in zip(self.manifest.state, state.values, strict=True):
            value.update_inplace(np.ascontiguousarray(arrays[part.name], part.dtype))
        return state

    def rollout(self, frames: Array) -> Array:
        """T frames in, K frames out; see the protocol."""
        check_shape(frames, (self.manifest.context, *self.manifest.frame), "T, C, H, W")
        spec = self.manifest.graphs["rollout"]
        feeds = {spec.inputs[0]: np.ascontiguousarray(frames)}
        with running("rollout"):
            out: Array = self._session("rollout").run([spec.outputs[0]], feeds)[0]
        return out  # (B, K, C, H, W)

    def close(self) -> None:
        """Drop the loaded graphs and the buffers; states must not be used any more."""
        self._bindings.clear()
        self._batches.clear()
        super().close()

    def _run(self, graph: GraphName, frame: Array, state: OrtState) -> tuple[Array, DeviceState]:
        assert isinstance(state, DeviceState)
        check_shape(frame, self.manifest.frame, "C, H, W")
        buffers = self._buffers(state.batch)
        after = self._new_state(state.batch)
        result = self._result(graph, state.batch)
        buffers.frame.update_inplace(np.ascontiguousarray(frame))
        key = (graph, state.batch, state.buffers.number, after.buffers.number)
        if key not in self._bindings:
            self._bindings[key] = self._bind(graph, buffers.frame, state, result, after)
        with running(graph):
            self._session(graph).run_with_iobinding(self._bindings[key], self._run_options(key))
        return result.numpy().copy(), after

    def _bind(
        self,
        graph: GraphName,
        frame: onnxruntime.OrtValue,
        state: DeviceState,
        result: onnxruntime.OrtValue,
        after: DeviceState,
    ) -> onnxruntime.IOBinding:
        spec = self.manifest.graphs[graph]
        binding = self._session(graph).io_binding()
        binding.bind_ortvalue_input(spec.inputs[0], frame)
        binding.bind_ortvalue_output(spec.outputs[0], result)
        for part, before, behind in zip(
            self.manifest.state, state.values, after.values, strict=True
        ):
            if part.input is not None:
                binding.bind_ortvalue_input(part.input, before)
            binding.bind_ortvalue_output(part.output, behind)
        return binding

    def _run_options(self, key: tuple[str, int, int, int]) -> onnxruntime.RunOptions | None:
        """Which CUDA graph a run records or replays: one for each graph and pair of sets."""
        if not self.recorded:
            return None
        if key not in self._records:
            of_graph = sum(known[0] == key[0] for known in self._records)
            # -1: neither record nor replay.
            self._records[key] = str(of_graph + 1) if of_graph < _RECORDS else "-1"
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", self._records[key])
        return options

    def _buffers(self, batch: int) -> _Batch:
        if batch not in self._batches:
            frame = self._allocate((batch, *self.manifest.frame), "float32")
            self._batches[batch] = _Batch(frame)
        return self._batches[batch]

    def _result(self, graph: GraphName, batch: int) -> onnxruntime.OrtValue:
        results = self._buffers(batch).results
        if graph not in results:
            many = (self.manifest.horizon,) if graph == "forecast" else ()
            results[graph] = self._allocate((batch, *many, *self.manifest.frame), "float32")
        return results[graph]

    def _new_state(self, batch: int) -> DeviceState:
        pool = self._buffers(batch).pool
        if not pool:
            self._sets += 1
            parts = self.manifest.state
            values = tuple(self._allocate((batch, *part.shape), part.dtype) for part in parts)
            pool.append(_Set(self._sets, values))
        return DeviceState(pool.pop(), batch, pool)

    def _allocate(self, shape: tuple[int, ...], dtype: str) -> onnxruntime.OrtValue:
        target = self.target
        vendor = (target.vendor,) if target.vendor >= 0 else ()  # unknown to onnxruntime 1.20
        return self._ort.OrtValue.ortvalue_from_shape_and_type(
            shape, np.dtype(dtype).type, target.device, 0, *vendor
        )


class OrtCudaSession(OrtDeviceSession):
    """ONNX Runtime's CUDA provider."""

    engine = "onnx-cuda"
    target = CUDA

    def provider_options(self, graph: GraphName) -> dict[str, str]:
        """fp32 is fp32: TF32, which rounds operands to 10 bits, would leave the tolerance."""
        return {"use_tf32": "0"}


class OrtCudaGraphSession(OrtCudaSession):
    """The same, with `step` and `forecast` recorded as CUDA graphs."""

    engine = "onnx-cuda-graph"
    recorded = True

    def provider_options(self, graph: GraphName) -> dict[str, str]:
        """`rollout` reads its batch size on the CPU, which a CUDA graph cannot."""
        graphs = {} if graph == "rollout" else {"enable_cuda_graph": "1"}
        return super().provider_options(graph) | graphs


class OrtTensorrtSession(OrtDeviceSession):
    """ONNX Runtime's TensorRT provider; it builds its engines when the session is opened.

    Its CUDA graphs are not used: it keeps one for a session, with one set of addresses.
    """

    engine = "onnx-trt"
    target = TENSORRT

    def provider_options(self, graph: GraphName) -> dict[str, str]:
        """The half types of a typed graph must be allowed; norms stay in fp32."""
        half = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable"}
        allowed = {half[self.manifest.precision]: "1"} if self.manifest.precision in half else {}
        return {"trt_layer_norm_fp32_fallback": "1"} | allowed


class OrtRtxSession(OrtDeviceSession):
    """ONNX Runtime's TensorRT-RTX provider, built in or as NVIDIA's plugin."""

    engine = "onnx-trt-rtx"
    target = RTX
