"""OpenVINO: the same graphs and weights, compiled for this processor and kept compiled on disk.

Graphs are compiled for a batch of one, with every shape fixed; a larger batch runs row by row. A
graph whose batch is left open is slower, and would have to be compiled beside the other. Norms need
no exact form: OpenVINO's kernel takes the mean off first, and computes in float32 what a graph
widens to float64.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, GraphName
from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, MissingExtraError, install_command
from stpl_core.host.memory import amount, memory_room_bytes
from stpl_core.machine import usable_cpus
from stpl_runtime.engine import Session
from stpl_runtime.engines.checked_graphs import CheckedGraphs, not_open
from stpl_runtime.engines.compiled_cache import CompiledCache, graph_key
from stpl_runtime.engines.ort import check_shape
from stpl_runtime.engines.ov.core import openvino_core
from stpl_runtime.engines.ov.winograd import WIDE, fewer_products, gains
from stpl_runtime.engines.replays import ReplayingSession

if TYPE_CHECKING:
    import openvino

OLDEST = (2026, 0)


@dataclass(frozen=True)
class OvState:
    """State tensors `(B, *shape)`, in the manifest's order; never written again."""

    values: tuple[NDArray[Any], ...]
    batch: int


class OpenVinoSession:
    """Keeps the `stpl_runtime.engine.Session` protocol."""

    engine = "openvino"
    device: ClassVar[str] = "CPU"
    room_factor: ClassVar[int] = 8
    """Compiling an unrolled graph takes about so many times the bytes of its weights."""

    def __init__(
        self,
        bundle: Bundle,
        graphs: tuple[GraphName, ...],
        threads: int | None,
        allow: str | None = None,
    ) -> None:
        """Load `graphs` of the bundle; see `stpl_runtime.engine.open_session`."""
        self._ov = _library()
        self.manifest = bundle.manifest
        self._core = openvino_core()
        self._check_device()
        self.precision, self._hint = self._precision(allow)
        computes = "bf16" if self.precision == "bf16" and computes_bf16(self.device) else "f32"
        self._threads = threads or usable_cpus()
        self._checked = CheckedGraphs(bundle)
        self._cache = CompiledCache()
        self._graphs = graphs
        self._notes: dict[str, str] = {}
        self._requests = {graph: self._compiled(graph).create_infer_request() for graph in graphs}
        self.provider = f"OpenVINO on {self.device}, {computes}"

    def facts(self) -> Mapping[str, Any]:
        """How each graph came to be ready."""
        return dict(self._notes)

    def _check_device(self) -> None:
        found = self._core.available_devices
        if not any(name.partition(".")[0] == self.device for name in found):
            raise EnvironmentFault(
                f"OpenVINO finds no {self.device} here, only {', '.join(found) or 'nothing'}",
                expected=f"the {self.device} with its driver",
                fix="--engine openvino, which runs on the CPU",
            )

    def _precision(self, allow: str | None) -> tuple[str, str]:
        """What the results are judged as, and what OpenVINO may make of float32 in the graphs.

        Its own default on some processors is bf16, so that it is always said. A bundle in bf16
        says of each operation whether it is: told bf16, OpenVINO would round the others as well.
        """
        kept = self.manifest.precision
        if kept != "fp32" or allow != "bf16":
            return kept, "f32"
        if not computes_bf16(self.device):
            raise EnvironmentFault(
                f"this {self.device} has no bf16 arithmetic (OpenVINO lists "
                f"{', '.join(self._able())})",
                expected="one with AVX-512 BF16, AMX or Arm's BF16",
                fix="leave --allow bf16 out",
            )
        return "bf16", "bf16"

    def _able(self) -> list[str]:
        able: list[str] = self._core.get_property(self.device, "OPTIMIZATION_CAPABILITIES")
        return able

    def _request(self, graph: GraphName) -> openvino.InferRequest:
        """What runs a graph.

        Raises:
            BundleError: the graph was not asked for when the session was opened.
        """
        if graph not in self._requests:
            raise not_open(graph)
        return self._requests[graph]

    def _compiled(self, graph: GraphName) -> openvino.CompiledModel:
        """From the cache, or compiled now and kept.

        Raises:
            EnvironmentFault: OpenVINO refuses the graph.
        """
        version = self._ov.get_version()
        # A batch of one is quicker. Not in a rollout: its zero state would become constants, and
        # OpenVINO 2026.4.1 writes into one of PredRNN zigzag's, so that each run after the first
        # is wrong.
        batch = "any" if graph == "rollout" else 1
        how = {"engine": self.engine, "version": version, "hint": self._hint, "batch": batch}
        how |= {"precision": self.precision}
        key, began = graph_key(self.manifest, graph, how), time.perf_counter()
        kept = self._cache.read(key)
        if kept is not None:
            try:
                compiled = self._core.import_model(io.BytesIO(kept), self.device, self._config())
                self._note(graph, began, f"from the cache, {len(kept) / 1e6:.1f} MB")
                return compiled
            except Exception:  # of another build with the same version: compile it again
                self._cache.drop(key)
        model, described = self._checked.graph(graph)
        try:
            read = self._core.read_model(self._checked.whole(model, described))
            if batch == 1:
                read.reshape({one: [1, *one.partial_shape[1:]] for one in read.inputs})
            self._change(read)
            compiled = self._core.compile_model(read, self.device, self._config())
        except EnvironmentFault:
            raise
        except Exception as error:  # OpenVINO's own errors are RuntimeError and others
            raise EnvironmentFault(
                f"OpenVINO {version} cannot compile {self.manifest.graphs[graph].file}: "
                f"{' '.join(str(error).split())[:300]}",
                expected="a version and a device that run this graph",
                fix="--engine onnx, or pip install --upgrade openvino",
            ) from error
        self._note(graph, began, "compiled")
        self._keep(key, compiled)
        return compiled

    def _change(self, model: openvino.Model) -> None:
        """Leave a graph as it was exported."""

    def _keep(self, key: str, compiled: openvino.CompiledModel) -> None:
        if "EXPORT_IMPORT" not in self._able():
            return
        buffer = io.BytesIO()
        compiled.export_model(buffer)
        self._cache.write(key, buffer.getvalue())

    def _note(self, graph: str, began: float, how: str) -> None:
        self._notes[graph] = f"{how}, {time.perf_counter() - began:.2f} s"

    def _config(self) -> dict[str, Any]:
        """No pinning: other programs, and other sessions, may have the same CPUs."""
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self._hint, "NUM_STREAMS": 1}
        if self.device == "CPU":
            config |= {"INFERENCE_NUM_THREADS": self._threads, "ENABLE_CPU_PINNING": False}
        return config

    def zero_state(self, batch: int = 1) -> OvState:
        """The start of a sequence."""
        zeros = (np.zeros((batch, *part.shape), part.dtype) for part in self.manifest.state)
        return OvState(tuple(zeros), batch)

    def step(self, frame: Array, state: OvState) -> tuple[Array, OvState]:
        """One step; see the protocol."""
        return self._run("step", frame, state)

    def forecast(self, frame: Array, state: OvState) -> tuple[Array, OvState]:
        """K frames from one call; see the protocol."""
        return self._run("forecast", frame, state)

    def rollout(self, frames: Array) -> Array:
        """T frames in, K frames out; see the protocol."""
        check_shape(frames, (self.manifest.context, *self.manifest.frame), "T, C, H, W")
        request, spec = self._request("rollout"), self.manifest.graphs["rollout"]
        rows = []
        for row in np.ascontiguousarray(frames):  # (T, C, H, W)
            self._set(request, spec.inputs[0], row[None])
            request.infer()
            rows.append(_copy(request, spec.outputs[0]))
        return _joined(rows)  # (B, K, C, H, W)

    def _run(self, graph: GraphName, frame: Array, state: OvState) -> tuple[Array, OvState]:
        check_shape(frame, self.manifest.frame, "C, H, W")
        request, spec = self._request(graph), self.manifest.graphs[graph]
        names = (spec.outputs[0], *(part.output for part in self.manifest.state))
        frame = np.ascontiguousarray(frame)
        rows: list[list[NDArray[Any]]] = [[] for _ in names]
        for n in range(state.batch):
            self._set(request, spec.inputs[0], frame[n : n + 1])
            for part, value in zip(self.manifest.state, state.values, strict=True):
                if part.input is not None:
                    self._set(request, part.input, value[n : n + 1])
            request.infer()
            for name, made in zip(names, rows, strict=True):
                made.append(_copy(request, name))
        result, *after = (_joined(made) for made in rows)
        return result, OvState(tuple(after), state.batch)

    def _set(self, request: openvino.InferRequest, name: str, value: NDArray[Any]) -> None:
        request.set_tensor(name, self._ov.Tensor(value, shared_memory=True))

    def state_arrays(self, state: OvState) -> Mapping[str, NDArray[Any]]:
        """Copy a state out."""
        pairs = zip(self.manifest.state, state.values, strict=True)
        return {part.name: value.copy() for part, value in pairs}

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> OvState:
        """Copy a state in."""
        parts = self.manifest.state
        values = tuple(np.array(arrays[part.name], part.dtype, order="C") for part in parts)
        return OvState(values, len(values[0]))

    def close(self) -> None:
        """Drop the compiled graphs."""
        self._requests.clear()
        self._checked.close()


class OpenVinoWinogradSession(OpenVinoSession):
    """With fewer products in wide convolutions (`stpl_runtime.engines.ov.winograd`)."""

    engine = "openvino:winograd"
    room_factor = 20

    def _precision(self, allow: str | None) -> tuple[str, str]:
        """Where bf16 is allowed, the graph itself says what is in it."""
        kept = self.manifest.precision
        if kept != "fp32":
            raise EnvironmentFault(
                f"{self.engine} computes in fp32, not in {kept}",
                expected="a bundle in fp32, in bf16 with --allow bf16",
                fix="--engine openvino",
            )
        precision, _ = super()._precision(allow)
        return precision, "f32"

    def _change(self, model: openvino.Model) -> None:
        """Replace what gains by it.

        Raises:
            EnvironmentFault: nothing does.
        """
        if not fewer_products(model, "bf16" if self.precision == "bf16" else "f32"):
            raise EnvironmentFault(
                "no convolution of this bundle gains by fewer products",
                expected=WIDE,
                fix="--engine openvino, which gives the same",
            )


class OpenVinoGpuSession(OpenVinoSession):
    """An Intel GPU. Not run by us."""

    engine = "openvino:GPU"
    device = "GPU"


class OpenVinoNpuSession(OpenVinoSession):
    """An Intel NPU. Not run by us."""

    engine = "openvino:NPU"
    device = "NPU"


def open_where_it_fits(
    bundle: Bundle, graphs: tuple[GraphName, ...], threads: int | None, allow: str | None = None
) -> Session:
    """A session on the CPU; where the unrolled graphs would not fit, `step` alone is compiled."""
    return _where_it_fits(OpenVinoSession, bundle, graphs, threads, allow)


def open_winograd_where_it_fits(
    bundle: Bundle, graphs: tuple[GraphName, ...], threads: int | None, allow: str | None = None
) -> Session:
    """The same, with fewer products."""
    return _where_it_fits(OpenVinoWinogradSession, bundle, graphs, threads, allow)


def _where_it_fits(
    cls: type[OpenVinoSession],
    bundle: Bundle,
    graphs: tuple[GraphName, ...],
    threads: int | None,
    allow: str | None,
) -> Session:
    room = memory_room_bytes()
    files = bundle.manifest.files.items()
    weights = sum(spec.bytes for name, spec in files if name.endswith(".safetensors"))
    needed = cls.room_factor * weights * len(graphs)
    if room is None or room >= needed or "step" not in graphs or len(graphs) == 1:
        return cast("Session", cls(bundle, graphs, threads, allow))
    why = f"{amount(room)} of memory left, {amount(needed)} wanted for the unrolled graphs"
    alone = cast("Session", cls(bundle, ("step",), threads, allow))
    return ReplayingSession(alone, bundle.manifest, why)


def gains_by_fewer_products(bundle: Bundle) -> bool:
    """Whether `openvino:winograd` does anything for a bundle; reads its step graph."""
    checked = CheckedGraphs(bundle)
    try:
        return gains(openvino_core().read_model(checked.whole(*checked.graph("step"))))
    finally:
        checked.close()


def computes_bf16(device: str = "CPU") -> bool:
    """Whether OpenVINO is here, and this device has bf16 arithmetic."""
    try:
        _library()
        able = openvino_core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    except (EnvironmentFault, RuntimeError):  # OpenVINO has no such device
        return False
    return "BF16" in able


def _joined(rows: list[NDArray[Any]]) -> NDArray[Any]:
    """Rows `(1, *shape)` as one array `(B, *shape)`."""
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _copy(request: openvino.InferRequest, name: str) -> NDArray[Any]:
    """An output as the caller's own array: the next run writes into the request's."""
    out: NDArray[Any] = request.get_tensor(name).data.copy()
    return out


def _library() -> Any:
    """OpenVINO, of a version that we know.

    Raises:
        MissingExtraError: it is not installed.
        EnvironmentFault: it is too old.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    version = str(openvino.__version__)
    numbers = version.replace("-", ".").split(".")[:2]
    if all(one.isdigit() for one in numbers) and tuple(map(int, numbers)) < OLDEST:
        raise EnvironmentFault(
            f"openvino {version} is installed",
            expected=f"{OLDEST[0]}.{OLDEST[1]} or later",
            fix=install_command("openvino"),
        )
    return openvino
