"""ONNX Runtime on the CPU; the state is bound to buffers that never leave the runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, GraphName
from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, FrameError, MissingExtraError
from stpl_core.machine import usable_cpus
from stpl_runtime.engines.checked_graphs import CheckedGraphs, not_open
from stpl_runtime.engines.compiled_cache import CompiledCache, graph_key
from stpl_runtime.engines.exact_norms import norms_lose_digits, with_exact_norms

if TYPE_CHECKING:
    import onnxruntime

_NORM = b"LayerNormalization"
_PROVIDERS = ["CPUExecutionProvider"]


@dataclass(frozen=True)
class OrtState:
    """State tensors as the runtime's own values, in the manifest's order."""

    values: tuple[onnxruntime.OrtValue, ...]
    batch: int


class OrtSession:
    """Keeps the `stpl_runtime.engine.Session` protocol."""

    engine = "onnx"

    def __init__(self, bundle: Bundle, graphs: tuple[GraphName, ...], threads: int | None) -> None:
        """Load `graphs` of the bundle; see `stpl_runtime.engine.open_session`."""
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "cpu") from error
        self._ort = onnxruntime
        self.manifest = bundle.manifest
        self._threads = threads or usable_cpus()
        self._checked = CheckedGraphs(bundle)
        self._cache = CompiledCache()
        self._sessions: dict[str, onnxruntime.InferenceSession] = {
            graph: self._load(graph, bundle.graph(graph)) for graph in graphs
        }
        self.provider = self._running_on()

    def _running_on(self) -> str:
        """What really runs."""
        sessions = self._sessions.values()
        return next((s.get_providers()[0] for s in sessions), "CPUExecutionProvider")

    def _options(self) -> onnxruntime.SessionOptions:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Threads that wait in a loop take CPUs from others; benchmarks/spinning.py measures it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        return options

    def _load(self, graph: GraphName, path: Path) -> onnxruntime.InferenceSession:
        """Load one graph.

        Raises:
            EnvironmentFault: onnxruntime refuses it.
        """
        how = {"engine": self.engine, "version": self._ort.__version__}
        key = graph_key(self.manifest, graph, how)
        kept = self._cache.read(key)
        if kept is not None:
            session = self._reopened(kept)
            if session is not None:
                return session
            self._cache.drop(key)
        model, described = self._checked.graph(graph)
        if _NORM in model and norms_lose_digits():
            model = with_exact_norms(model)
        options = self._options()
        self._checked.lend_weights(described, options)
        try:
            kept_now = self._opened_and_kept(model, options, key) if self._cache.keeps else None
            return kept_now or self._ort.InferenceSession(model, options, providers=_PROVIDERS)
        except Exception as error:  # onnxruntime's own errors share no public base
            if self.manifest.precision == "bf16":
                raise EnvironmentFault(
                    f"{path}: ONNX Runtime has no bf16 convolution on the CPU",
                    expected="a bundle in fp32 or fp16, OpenVINO, or a TensorRT engine",
                    fix="stpl-deploy export RUN --out BUNDLE --precision fp16",
                ) from error
            raise EnvironmentFault(
                f"onnxruntime {self._ort.__version__} cannot load {path}: {_line(error)}",
                expected="a version that runs this graph",
                fix="pip install --upgrade onnxruntime",
            ) from error

    def _opened_and_kept(
        self, model: bytes, options: onnxruntime.SessionOptions, key: str
    ) -> onnxruntime.InferenceSession | None:
        """Open a graph and keep what it was optimised to; None where that cannot be written."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                optimised = Path(folder) / "optimised.onnx"
                options.optimized_model_filepath = str(optimised)
                session = self._ort.InferenceSession(model, options, providers=_PROVIDERS)
                self._cache.write(key, optimised.read_bytes())
                return session
        except Exception:  # a full disk is met by onnxruntime, in an error of its own
            return None
        finally:
            options.optimized_model_filepath = ""

    def _reopened(self, optimised: bytes) -> onnxruntime.InferenceSession | None:
        """A graph that this version optimised on this processor; None where it refuses it."""
        options = self._options()
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return self._ort.InferenceSession(optimised, options, providers=_PROVIDERS)
        except Exception:  # of another build with the same version
            return None

    def zero_state(self, batch: int = 1) -> OrtState:
        """The start of a sequence."""
        return self.state_from_arrays(
            {s.name: np.zeros((batch, *s.shape), s.dtype) for s in self.manifest.state}
        )

    def step(self, frame: Array, state: OrtState) -> tuple[Array, OrtState]:
        """One step; see the protocol."""
        return self._run("step", frame, state)

    def forecast(self, frame: Array, state: OrtState) -> tuple[Array, OrtState]:
        """K frames from one call; see the protocol."""
        return self._run("forecast", frame, state)

    def rollout(self, frames: Array) -> Array:
        """T frames in, K frames out; see the protocol."""
        expected = (self.manifest.context, *self.manifest.frame)
        check_shape(frames, expected, "T, C, H, W")
        session = self._session("rollout")
        spec = self.manifest.graphs["rollout"]
        with running("rollout"):
            out: Array = session.run([spec.outputs[0]], {spec.inputs[0]: frames})[0]
        return out  # (B, K, C, H, W)

    def _run(self, graph: GraphName, frame: Array, state: OrtState) -> tuple[Array, OrtState]:
        check_shape(frame, self.manifest.frame, "C, H, W")
        session = self._session(graph)
        spec = self.manifest.graphs[graph]
        binding = session.io_binding()
        binding.bind_cpu_input(spec.inputs[0], np.ascontiguousarray(frame, dtype=np.float32))
        for part, value in zip(self.manifest.state, state.values, strict=True):
            if part.input is not None:
                binding.bind_ortvalue_input(part.input, value)
        for name in spec.outputs:
            binding.bind_output(name, "cpu")
        with running(graph):
            session.run_with_iobinding(binding)
        outputs = dict(zip(spec.outputs, binding.get_outputs(), strict=True))
        result: Array = outputs[spec.outputs[0]].numpy()
        after = tuple(outputs[part.output] for part in self.manifest.state)
        return result, OrtState(after, state.batch)

    def state_arrays(self, state: OrtState) -> Mapping[str, NDArray[Any]]:
        """Copy a state out."""
        pairs = zip(self.manifest.state, state.values, strict=True)
        return {part.name: value.numpy().copy() for part, value in pairs}

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> OrtState:
        """Copy a state in."""
        parts = self.manifest.state
        values = tuple(
            self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(arrays[part.name]))
            for part in parts
        )
        return OrtState(values, len(arrays[parts[0].name]))

    def close(self) -> None:
        """Drop the loaded graphs."""
        self._sessions.clear()
        self._checked.close()

    def _session(self, graph: GraphName) -> onnxruntime.InferenceSession:
        if graph not in self._sessions:
            raise not_open(graph)
        return self._sessions[graph]


@contextmanager
def running(graph: GraphName) -> Iterator[None]:
    """One line for what a graph cannot compute.

    Raises:
        EnvironmentFault: onnxruntime refuses what it met on the way.
    """
    try:
        yield
    except Exception as error:  # onnxruntime's own errors share no public base
        raise EnvironmentFault(
            f"onnxruntime cannot run the {graph} graph: {_line(error)}",
            expected="a graph that runs here",
            fix="stpl-deploy verify BUNDLE; where that fails too, export the run again",
        ) from error


def check_shape(array: Array, expected: tuple[int, ...], axes: str) -> None:
    """Refuse frames that are not of the bundle's shape and float32.

    Args:
        array: `(B, *expected)`.
        expected: the shape after the batch.
        axes: what its sides are called.

    Raises:
        FrameError: another shape or type.
    """
    if array.shape[1:] != expected or array.dtype != np.float32:
        raise FrameError(
            f"frames of shape {array.shape}, {array.dtype}",
            expected=f"(B, {axes}) = (B, {', '.join(map(str, expected))}), float32",
            fix="reshape them to the bundle's grid",
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
