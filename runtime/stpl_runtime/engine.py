"""Engine sessions: a bundle's graphs opened on a backend. Read this file before `engines/`.

A backend is one module under `engines/` with a class that keeps the `Session` protocol; its word
in `ENGINES` is what `--engine` takes.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, GraphName, Manifest
from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, UsageError

ENGINES: dict[str, str] = {
    "onnx": "stpl_runtime.engines.ort:OrtSession",
    "onnx-cuda": "stpl_runtime.engines.ort_gpu:OrtCudaSession",
    "onnx-cuda-graph": "stpl_runtime.engines.ort_gpu:OrtCudaGraphSession",
    "onnx-trt": "stpl_runtime.engines.ort_gpu:OrtTensorrtSession",
    "onnx-trt-rtx": "stpl_runtime.engines.ort_gpu:OrtRtxSession",
    "trt": "stpl_runtime.engines.trt:TrtSession",
    "trt-rtx": "stpl_runtime.engines.trt:RtxSession",
    "openvino": "stpl_runtime.engines.ov.session:open_where_it_fits",
    "openvino:winograd": "stpl_runtime.engines.ov.session:open_winograd_where_it_fits",
    "openvino:GPU": "stpl_runtime.engines.ov.session:OpenVinoGpuSession",
    "openvino:NPU": "stpl_runtime.engines.ov.session:OpenVinoNpuSession",
}
"""One word -> where the session class lives. The class is made with (bundle, graphs, threads)."""
TRITON = "triton:"
"""Begins the word of a served bundle; the server's address follows."""
_SERVED = "stpl_runtime.served.session:ServedSession"
_AUTO = "stpl_runtime.engines.auto.choose:open_auto"
_OTHER_NAMES = {"tensorrt": "trt", "engine": "trt", "rtx": "trt-rtx", "cpu": "onnx", "ort": "onnx"}
_OTHER_NAMES |= {"gpu": "onnx-cuda", "cuda": "onnx-cuda", "onnx-tensorrt": "onnx-trt"}
_OTHER_NAMES |= {"ov": "openvino", "npu": "openvino:NPU", "onnx-openvino": "openvino"}
_OTHER_NAMES |= {"winograd": "openvino:winograd"}
"""What people call some of them elsewhere."""

ForecastWay = Literal["auto", "replays", "unrolled"]
FORECAST_WAYS: tuple[ForecastWay, ...] = ("auto", "replays", "unrolled")


class StateHandle(Protocol):
    """The recurrent state of one batch, where the backend keeps it. Opaque."""

    @property
    def batch(self) -> int:
        """Number of sequences in it."""
        ...


class Session(Protocol):
    """A bundle on a backend. Frames are numpy `(B, C, H, W)` float32 in model units.

    Results are the caller's own arrays. `step` uses its state up: the handle that it was given
    must not be used again. `forecast` leaves its state as it was, so that a nowcast can be forked
    from one prefix as often as needed.
    """

    engine: str
    """The word in ENGINES."""
    provider: str
    """What really runs, such as `CPUExecutionProvider`."""

    def zero_state(self, batch: int = 1) -> StateHandle:
        """The start of a sequence."""
        ...

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        """Frame at t `(B, C, H, W)` -> guess of t+1 `(B, C, H, W)` and the state after t."""
        ...

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        """Newest frame and the state before it -> K frames `(B, K, C, H, W)`, state after it."""
        ...

    def rollout(self, frames: Array) -> Array:
        """T frames `(B, T, C, H, W)` -> K frames `(B, K, C, H, W)`, from the zero state."""
        ...

    def state_arrays(self, state: StateHandle) -> Mapping[str, NDArray[Any]]:
        """Copy a state out: name -> `(B, *shape)`."""
        ...

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> StateHandle:
        """Copy a state in."""
        ...

    def close(self) -> None:
        """Free what the backend holds."""
        ...


@runtime_checkable
class ReportsFacts(Protocol):
    """A session that found something out about itself while it was opened and warmed up."""

    def facts(self) -> Mapping[str, Any]:
        """What it found, for reports."""
        ...


@runtime_checkable
class KeepsStates(Protocol):
    """A session whose states stay at a server: they cannot be copied."""

    def take_in(self, frame: Array, state: Any) -> StateHandle:
        """The state after a frame `(B, C, H, W)` whose guess nobody wants; uses `state` up."""
        ...

    def fork(self, state: Any) -> StateHandle:
        """A state that may be used up while this one is kept."""
        ...

    def prove(self) -> None:
        """From now on run every graph as it is served, and hide no failure."""
        ...


def precision_of(session: Session, manifest: Manifest) -> str:
    """What a session's results are judged as: the bundle's precision, or a lower one it runs in."""
    return str(getattr(session, "precision", manifest.precision))


def open_session(
    bundle: Bundle,
    graphs: Sequence[GraphName],
    *,
    engine: str = "onnx",
    threads: int | None = None,
    require_provider: str | None = None,
    forecast: str = "auto",
    allow: str | None = None,
) -> Session:
    """Open the graphs that a verb needs on a backend.

    Args:
        bundle: an opened bundle.
        graphs: which graphs; a call that needs another one raises BundleError.
        engine: a word of `ENGINES`; `triton:grpc://HOST:8001/NAME`; or `auto`: the fastest that
            was measured here, else the first that is installed (`stpl_runtime.engines.auto`).
        threads: compute threads; None takes the CPUs this process may use.
        require_provider: what must run it, by name or a part of it, such as `cuda`; None for any.
            GPU engines never fall back to the CPU, whatever is said here.
        forecast: TensorRT and `auto`: K frames by `replays` of the step or `unrolled`; `auto` takes
            what is measured to be faster.
        allow: a lossy precision that `openvino` and `auto` may run an fp32 bundle in: `bf16`.

    Raises:
        UsageError: an unknown engine, or a `forecast` that it does not know.
        EnvironmentFault: this machine cannot run the engine, or another provider runs it.
        MissingExtraError: the backend's library is not installed.
        BundleError: the bundle lacks a graph.
    """
    if engine == "auto":
        chosen = _named(_AUTO)(bundle, graphs, threads, require_provider, forecast, allow)
        return cast("Session", chosen)
    if engine.startswith(TRITON):
        address = engine.removeprefix(TRITON)
        _how("triton", forecast, allow)
        served = _named(_SERVED)(bundle, tuple(graphs), threads, address=address)
        return held_to(cast("Session", served), require_provider)
    if engine not in ENGINES:
        near = (
            [_OTHER_NAMES[engine]]
            if engine in _OTHER_NAMES
            else difflib.get_close_matches(engine, ENGINES)
        )
        raise UsageError(
            f"unknown engine {engine}",
            expected=f"auto or one of {', '.join(ENGINES)}",
            fix=f"--engine {near[0] if near else 'onnx'}",
        )
    if engine != "onnx":  # which judges each graph as it reads it
        from stpl_runtime.engines.checked_graphs import check_graphs

        check_graphs(bundle, [graph for graph in graphs if graph in bundle.manifest.graphs])
    cls = _named(ENGINES[engine])
    session = cast("Session", cls(bundle, tuple(graphs), threads, **_how(engine, forecast, allow)))
    return held_to(session, require_provider)


def held_to(session: Session, expected: str | None) -> Session:
    """The session, closed where another provider runs it; see `require`."""
    try:
        require(session.provider, expected)
    except EnvironmentFault:
        session.close()
        raise
    return session


def _named(where: str) -> Any:
    """What `MODULE:NAME` stands for; it imports this module, so that it cannot be imported here."""
    module_name, _, name = where.partition(":")
    return getattr(importlib.import_module(module_name), name)


def require(running: str, expected: str | None) -> None:
    """Refuse a session that does not run where `--require-provider` says.

    Args:
        running: the session's own word on where it runs.
        expected: a provider or a part of its name, such as `cuda`; None for any.

    Raises:
        EnvironmentFault: it runs elsewhere.
    """
    place = running.partition(",")[0]
    if expected is None or expected.lower() in place.lower():
        return
    engines = {"cuda": "onnx-cuda", "rtx": "trt-rtx", "trt": "trt", "tensorrt": "trt"}
    near = next(
        (engine for word, engine in engines.items() if word in expected.lower()), "onnx-cuda"
    )
    raise EnvironmentFault(
        f"the session runs on {place}",
        expected=f"{expected}, which --require-provider asks for",
        fix=f"--engine {near}; stpl-deploy doctor says which work here",
    )


def _how(engine: str, forecast: str, allow: str | None) -> dict[str, Any]:
    """The arguments that some engines alone take."""
    if forecast not in FORECAST_WAYS:
        raise UsageError(
            f"unknown --forecast {forecast}",
            expected=f"one of {', '.join(FORECAST_WAYS)}",
            fix="--forecast auto",
        )
    if allow is not None and not engine.startswith("openvino"):
        raise UsageError(
            f"--allow {allow} with --engine {engine}",
            expected="openvino or auto, which can run fp32 in it",
            fix="leave --allow out",
        )
    if engine in ("trt", "trt-rtx"):
        return {"forecast": forecast}
    if forecast != "auto":
        raise UsageError(
            f"--forecast {forecast} with --engine {engine}",
            expected="trt or trt-rtx, which have a plan of each graph, or auto",
            fix="leave --forecast out",
        )
    return {"allow": allow} if engine.startswith("openvino") else {}


def closed_loop(session: Session, frames: Array, horizon: int) -> Array:
    """Roll out by the step graph: any horizon.

    Args:
        session: with the `step` graph open.
        frames: the context, `(B, T, C, H, W)`, model units.
        horizon: K >= 1.

    Returns:
        `(B, K, C, H, W)`, model units, unclipped.
    """
    state = session.zero_state(frames.shape[0])
    guess = frames[:, 0]
    for t in range(frames.shape[1]):
        guess, state = session.step(np.ascontiguousarray(frames[:, t]), state)  # (B, C, H, W)
    future = [guess]
    while len(future) < horizon:
        guess, state = session.step(guess, state)
        future.append(guess)
    return np.stack(future, axis=1)  # (B, K, C, H, W)


@runtime_checkable
class JoinsOutputs(Protocol):
    """A session whose states are not of whole frames."""

    def outputs(self, state: StateHandle, names: Sequence[str]) -> Mapping[str, Array]:
        """What the step that made this state gave beside its frame: name -> `(B, Q, C, H, W)`."""
        ...


def free_run(
    session: Session, frame: Array, state: StateHandle, horizon: int, outputs: Sequence[str] = ()
) -> Iterator[tuple[Array, Mapping[str, Array], StateHandle]]:
    """Take in the newest frame and roll out, step by step.

    Args:
        session: with the `step` graph open.
        frame: the newest one, `(B, C, H, W)`, model units.
        state: the state before it, which is used up.
        horizon: K >= 1.
        outputs: which of the manifest's `outputs` are wanted.

    Yields:
        K times the guess `(B, C, H, W)`; what was given beside it, name -> `(B, Q, C, H, W)`; and
        the state after the frame that was read, which the next step uses up.
    """
    for _ in range(horizon):
        frame, state = session.step(frame, state)
        yield frame, outputs_in(session, state, outputs), state


def outputs_in(session: Session, state: StateHandle, names: Sequence[str]) -> Mapping[str, Array]:
    """What the step that made this state gave beside its frame: name -> `(B, Q, C, H, W)`."""
    if not names:
        return {}
    if isinstance(session, JoinsOutputs):
        return session.outputs(state, names)
    arrays = session.state_arrays(state)
    return {name: arrays[name] for name in names}
