"""TensorRT and TensorRT-RTX: the step plan, replayed; no PyTorch.

`rollout` is replays of the step plan with nothing between them but copies on the device; so is
`forecast`, unless the bundle has a plan of the unrolled graph and that is faster here. A plan is
loaded for each batch size that is asked for, after the preflight.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, EngineSpec, GraphName
from stpl_core.codec import Array
from stpl_core.errors import BundleError, EnvironmentFault, FrameError
from stpl_runtime.engine import ForecastWay
from stpl_runtime.engines.cuda import CudaDevice, Device
from stpl_runtime.engines.preflight import FLAVOURS, Here, find_plan, look_here, read_plan
from stpl_runtime.engines.stepper import Choice, Executor, Stepper

Loader = Callable[[bytes, EngineSpec, Device], Callable[[], Executor]]
"""Plan bytes -> a maker of executors, all on one loaded plan."""


class TrtState:
    """A state on the device; its memory goes back to the pool when nobody holds it any more."""

    def __init__(self, address: int, batch: int, pool: list[int]) -> None:
        """Take an address out of the pool's hands."""
        self.address, self.batch = address, batch
        weakref.finalize(self, pool.append, address)


class TrtSession:
    """Keeps the `stpl_runtime.engine.Session` protocol."""

    engine = "trt"

    def __init__(
        self,
        bundle: Bundle,
        graphs: tuple[GraphName, ...],
        threads: int | None,
        *,
        forecast: ForecastWay = "auto",
        here: Here | None = None,
        device: Device | None = None,
        loader: Loader | None = None,
    ) -> None:
        """Check that the step plan fits this machine; see `stpl_runtime.engine.open_session`.

        Args:
            bundle: an opened bundle.
            graphs: any; the step plan serves all.
            threads: not used, the work is the GPU's.
            forecast: how K frames are made: `replays` of the step plan, the `unrolled` plan, or
                `auto` for what is measured to be faster.
            here: what to check against; None examines this machine.
            device: where memory is; None takes the GPU.
            loader: how a plan is loaded; None takes the flavour's library.
        """
        self.bundle, self.manifest = bundle, bundle.manifest
        self.here = here or look_here()
        built = [s.batch for s in self.manifest.engines if s.engine == self.engine]
        find_plan(bundle, self.engine, "step", min(built, default=1), self.here)
        self.forecast_way = forecast
        if forecast == "unrolled":
            find_plan(bundle, self.engine, "forecast", min(built, default=1), self.here)
        self.device: Device = device or CudaDevice(self.engine)
        self._loader = loader or _load
        self._steppers: dict[int, Stepper] = {}
        self._pools: dict[int, list[int]] = {}
        self._owned: list[int] = []
        gpu = self.here.gpu.capability if self.here.gpu else "unknown"
        version = self.here.versions[self.engine]
        self.provider = f"{FLAVOURS[self.engine]} {version}, compute capability {gpu}"

    def zero_state(self, batch: int = 1) -> TrtState:
        """The start of a sequence."""
        state = self._new_state(batch)
        self.device.zero(state.address, self._stepper(batch).layout.state_bytes)
        return state

    def step(self, frame: Array, state: TrtState) -> tuple[Array, TrtState]:
        """One step; see the protocol."""
        self._check(frame, self.manifest.frame, "C, H, W", state.batch)
        return self._stepper(state.batch).step(frame, state.address), state

    def forecast(self, frame: Array, state: TrtState) -> tuple[Array, TrtState]:
        """K frames; see the protocol."""
        self._check(frame, self.manifest.frame, "C, H, W", state.batch)
        after = self._new_state(state.batch)
        return self._stepper(state.batch).forecast(frame, state.address, after.address), after

    def rollout(self, frames: Array) -> Array:
        """T frames in, K frames out; see the protocol."""
        expected = (self.manifest.context, *self.manifest.frame)
        self._check(frames, expected, "T, C, H, W", len(frames))
        return self._stepper(len(frames)).rollout(frames)

    def state_arrays(self, state: TrtState) -> Mapping[str, NDArray[Any]]:
        """Copy a state out."""
        return self._stepper(state.batch).read_state(state.address)

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> TrtState:
        """Copy a state in."""
        batch = len(next(iter(arrays.values())))
        state = self._new_state(batch)
        self._stepper(batch).write_state(state.address, arrays)
        return state

    def close(self) -> None:
        """Free everything on the device; states must not be used any more."""
        for stepper in self._steppers.values():
            stepper.close()
        for address in self._owned:
            self.device.free(address)
        self._steppers.clear()
        self._owned.clear()
        self.device.close()

    def _stepper(self, batch: int) -> Stepper:
        if batch not in self._steppers:
            spec = find_plan(self.bundle, self.engine, "step", batch, self.here)
            executor = self._loader(read_plan(self.bundle, spec), spec, self.device)
            unrolled, why = self._unrolled(batch)
            stepper = Stepper(
                self.device,
                executor,
                self.manifest,
                batch,
                unrolled=unrolled,
                way=self.forecast_way,
                no_unrolled=why,
            )
            self._steppers[batch] = stepper
            if not stepper.recorded and "without CUDA graphs" not in self.provider:
                self.provider += ", without CUDA graphs"
        return self._steppers[batch]

    def _unrolled(self, batch: int) -> tuple[Callable[[], Executor] | None, str]:
        """The forecast plan of a batch, loaded; or why there is none."""
        if self.forecast_way == "replays":
            return None, "asked for"
        try:
            spec = find_plan(self.bundle, self.engine, "forecast", batch, self.here)
        except (BundleError, EnvironmentFault) as error:
            if self.forecast_way == "unrolled":
                raise
            return None, error.found
        return self._loader(read_plan(self.bundle, spec), spec, self.device), ""

    def choice(self, batch: int = 1) -> Choice:
        """How K frames of a batch are made; loads and measures where that was not done yet."""
        return self._stepper(batch).choice

    def facts(self) -> dict[str, Any]:
        """How K frames are made, for every batch that was opened; see `ReportsFacts`."""
        return {
            f"forecast, batch {batch}": str(stepper.choice)
            for batch, stepper in sorted(self._steppers.items())
        }

    def _new_state(self, batch: int) -> TrtState:
        pool = self._pools.setdefault(batch, [])
        if not pool:
            address = self._stepper(batch).new_state()
            self._owned.append(address)
            pool.append(address)
        return TrtState(pool.pop(), batch, pool)

    def _check(self, array: Array, expected: tuple[int, ...], axes: str, batch: int) -> None:
        if array.shape != (batch, *expected) or array.dtype != np.float32:
            raise FrameError(
                f"frames of shape {array.shape}, {array.dtype}",
                expected=f"(B, {axes}) = {(batch, *expected)}, float32",
                fix="reshape them to the bundle's grid",
            )


class RtxSession(TrtSession):
    """The same on TensorRT-RTX."""

    engine = "trt-rtx"


def _load(data: bytes, spec: EngineSpec, device: Device) -> Callable[[], Executor]:
    """Load a plan by its flavour's library."""
    trt: Any = importlib.import_module("tensorrt" if spec.engine == "trt" else "tensorrt_rtx")
    log = _logger(spec.engine)
    library = trt.Runtime(log)
    plan = library.deserialize_cuda_engine(data)
    if plan is None:
        raise EnvironmentFault(
            f"{FLAVOURS[spec.engine]} {trt.__version__} cannot load {spec.file}: {log.last}",
            expected="a plan that passed every check of the manifest to load",
            fix=f"export the run again here with --engine {spec.engine}",
        )
    return lambda: _TrtExecutor(library, plan, device)


class _TrtExecutor:
    """One execution context: its addresses never change, so that it can be recorded."""

    def __init__(self, library: Any, plan: Any, device: Device) -> None:
        self.owners = (library, plan)  # both must outlive the context
        self.context, self.device = plan.create_execution_context(), device

    def bind(self, name: str, address: int) -> None:
        """See `Executor`."""
        if not self.context.set_tensor_address(name, address):
            raise EnvironmentFault(
                f"the plan has no input or output {name}",
                expected="the names of the manifest",
                fix="export the run again",
            )

    def enqueue(self) -> None:
        """See `Executor`."""
        if not self.context.execute_async_v3(self.device.stream):
            raise EnvironmentFault(
                "the plan does not run", expected="a GPU with free memory", fix="nvidia-smi"
            )

    def capturable(self) -> bool:
        """See `Executor`; TensorRT-RTX can say so, TensorRT's plans of fixed shape always are."""
        ask = getattr(self.context, "is_stream_capturable", None)
        return True if ask is None else bool(ask(self.device.stream))


@cache
def _logger(flavour: str) -> Any:
    """The process's one logger of a flavour: errors are kept, nothing goes to stdout."""
    trt: Any = importlib.import_module("tensorrt" if flavour == "trt" else "tensorrt_rtx")

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "it does not say why"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message
            elif severity == trt.ILogger.WARNING:
                sys.stderr.write(f"{message}\n")

    return Logger()
