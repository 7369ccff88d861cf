"""A recurrent step on a device: the state never leaves it, and nothing waits between steps.

K frames come from K replays of the step, or from one run of the unrolled plan where there is one;
which of the two is measured on the device when the stepper is made (`Choice`).

Two sets of buffers, A and B, hold a frame and the state. The step reads one set and writes the
other, so that a guess lies where the next step looks for its frame (an engine must not write what
it reads). Each direction, A to B and B to A, is recorded once as a CUDA graph and replayed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import GraphSpec, Manifest
from stpl_core.codec import Array
from stpl_runtime.engine import ForecastWay
from stpl_runtime.engines.cuda import Device

_ROUNDS = 9
_ALIGN = 256
_FLOAT = 4  # bytes; all inputs and outputs are float32


class Executor(Protocol):
    """A loaded plan with its own addresses."""

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output lies."""
        ...

    def enqueue(self) -> None:
        """Queue one run on the device's stream."""
        ...

    def capturable(self) -> bool:
        """Whether a run can be recorded."""
        ...


@dataclass(frozen=True)
class Choice:
    """How K frames are made, and why."""

    way: Literal["replays", "unrolled"]
    reason: str
    """`measured`, `asked for`, or why there was nothing to choose."""
    replays_ms: float | None = None
    """Median device time of K replays of the step; None where it was not measured."""
    unrolled_ms: float | None = None
    """The same of the unrolled plan."""

    def __str__(self) -> str:
        """One line for people."""
        why = self.reason
        if self.replays_ms is not None and self.unrolled_ms is not None:
            why = f"{self.replays_ms:.3f} ms by replays, {self.unrolled_ms:.3f} ms unrolled"
        return f"by {'the unrolled plan' if self.way == 'unrolled' else 'replays'} ({why})"


class Layout:
    """Where the frame and each state tensor of one batch lie in a set, in bytes."""

    def __init__(self, manifest: Manifest, batch: int) -> None:
        """Lay out the frame first, then the state in the manifest's order."""
        self.batch = batch
        self.frame_shape = (batch, *manifest.frame)
        self.frame_bytes = int(np.prod(self.frame_shape)) * _FLOAT
        self.state_start = _aligned(self.frame_bytes)
        self.shapes = {part.name: (batch, *part.shape) for part in manifest.state}
        self.offsets: dict[str, int] = {}
        end = self.state_start
        for name, shape in self.shapes.items():
            self.offsets[name] = end
            end = _aligned(end + int(np.prod(shape)) * _FLOAT)
        self.size = end
        self.state_bytes = end - self.state_start


class Stepper:
    """Runs one batch size; a `state` is the address of `layout.state_bytes` on the device."""

    def __init__(
        self,
        device: Device,
        executor: Callable[[], Executor],
        manifest: Manifest,
        batch: int,
        *,
        unrolled: Callable[[], Executor] | None = None,
        way: ForecastWay = "auto",
        no_unrolled: str = "the bundle has no forecast plan",
    ) -> None:
        """Bind both directions, run each once, record it and check the record against that run.

        Args:
            device: where memory and work are.
            executor: makes executors of the step plan.
            manifest: the bundle's.
            batch: of the plans.
            unrolled: makes an executor of the forecast plan; None where there is none.
            way: how K frames are made; `auto` measures both ways.
            no_unrolled: why there is no `unrolled`.
        """
        self.device, self.manifest = device, manifest
        self.layout = Layout(manifest, batch)
        self.sets = (device.allocate(self.layout.size), device.allocate(self.layout.size))
        self.longest = max(manifest.context, manifest.horizon)
        frames = self.longest * self.layout.frame_bytes
        self.frames = device.allocate(frames)
        self.host = device.allocate_pinned(max(frames, self.layout.size))
        graph = manifest.graphs["step"]
        pairs = ((0, 1), (1, 0))
        self.executors = [self._bound(executor(), graph, *pair) for pair in pairs]
        self.recorded = True
        self.runs = [
            self._prepare(one, self.sets[n], (self.sets[1 - n], self.layout.size))
            for n, one in enumerate(self.executors)
        ]
        self.unrolled = None if unrolled is None or way == "replays" else self._unroll(unrolled())
        self.choice = self._choose(way, no_unrolled)

    def _unroll(self, executor: Executor) -> Callable[[], None]:
        """The forecast plan: reads set 0, writes K frames and the state of set 1."""
        self._bound(executor, self.manifest.graphs["forecast"], 0, 1, self.frames)
        size = self.manifest.horizon * self.layout.frame_bytes
        return self._prepare(executor, self.sets[0], (self.frames, size))

    def _choose(self, way: ForecastWay, no_unrolled: str) -> Choice:
        """Measure both ways in turn, or say why there is nothing to measure."""
        unrolled = self.unrolled
        if unrolled is None:
            return Choice("replays", "asked for" if way == "replays" else no_unrolled)
        if way == "unrolled":
            return Choice("unrolled", "asked for")
        self._fill(self.sets[0])
        times: dict[str, list[float]] = {"replays": [], "unrolled": []}
        for _ in range(_ROUNDS):
            times["replays"].append(self.device.time(self._replays))
            times["unrolled"].append(self.device.time(unrolled))
        by_replays, at_once = (median(each[2:]) for each in times.values())  # two warm up
        faster: Literal["replays", "unrolled"] = "unrolled" if at_once < by_replays else "replays"
        return Choice(faster, "measured", by_replays, at_once)

    def _replays(self) -> None:
        """K frames from set 0 by K replays, as `forecast` runs them."""
        self.runs[0]()
        self._free_run(1, self.manifest.horizon)

    def _bound(
        self,
        executor: Executor,
        graph: GraphSpec,
        source: int,
        target: int,
        frames: int | None = None,
    ) -> Executor:
        """Bind a graph from one set to another; its frames go to `frames` where that is given."""
        reads, writes = self.sets[source], self.sets[target]
        executor.bind(graph.inputs[0], reads)
        executor.bind(graph.outputs[0], writes if frames is None else frames)
        for part in self.manifest.state:
            if part.input is not None:
                executor.bind(part.input, reads + self.layout.offsets[part.name])
            executor.bind(part.output, writes + self.layout.offsets[part.name])
        return executor

    def _prepare(
        self, executor: Executor, reads: int, written: tuple[int, int]
    ) -> Callable[[], None]:
        """The replay of a run; the plain call where recording fails or differs.

        Args:
            executor: bound.
            reads: the set that it reads.
            written: address and bytes of what it writes, to be compared.
        """
        self._fill(reads)
        executor.enqueue()  # the first run compiles and allocates: never inside a record
        plain = self._read(*written)
        if not executor.capturable():
            self.recorded = False
            return executor.enqueue
        replay = self.device.capture(executor.enqueue)
        self.device.zero(*written)
        replay()
        if not np.array_equal(plain, self._read(*written)):
            self.recorded = False
            return executor.enqueue
        return replay

    def _fill(self, target: int) -> None:
        """Values that are not all alike, so that a replay that does nothing is seen."""
        count = self.layout.size // _FLOAT
        values = np.linspace(-0.5, 0.5, count, dtype=np.float32)
        self._host(count)[:] = values
        self.device.copy(target, self.host, self.layout.size)
        self.device.wait()

    def _read(self, source: int, size: int) -> NDArray[np.float32]:
        self.device.copy(self.host, source, size)
        self.device.wait()
        return self._host(size // _FLOAT).copy()

    def _host(self, count: int) -> NDArray[np.float32]:
        """The pinned buffer's first `count` floats."""
        buffer = (ctypes.c_char * (count * _FLOAT)).from_address(self.host)
        return np.frombuffer(memoryview(buffer), dtype=np.float32)

    def new_state(self) -> int:
        """Memory for a state, zero."""
        address = self.device.allocate(self.layout.state_bytes)
        self.device.zero(address, self.layout.state_bytes)
        return address

    def _load(self, frame: Array, state: int) -> None:
        self._host(frame.size)[:] = frame.ravel()
        self.device.copy(self.sets[0], self.host, self.layout.frame_bytes)
        start = self.sets[0] + self.layout.state_start
        self.device.copy(start, state, self.layout.state_bytes)

    def step(self, frame: Array, state: int) -> Array:
        """Advance `state` in place by a frame `(B, C, H, W)`; returns the guess, same shape."""
        self._load(frame, state)
        self.runs[0]()
        start = self.sets[1] + self.layout.state_start
        self.device.copy(state, start, self.layout.state_bytes)
        guess = self._read(self.sets[1], self.layout.frame_bytes)
        return guess.reshape(self.layout.frame_shape)

    def forecast(self, frame: Array, state: int, after: int) -> Array:
        """K frames `(B, K, C, H, W)` from the newest one; the state after that goes to `after`."""
        self._load(frame, state)
        at_once = self.unrolled if self.choice.way == "unrolled" else None
        (at_once or self.runs[0])()
        start = self.sets[1] + self.layout.state_start
        self.device.copy(after, start, self.layout.state_bytes)
        if at_once is not None:
            return self._fetch_forecast()
        self._free_run(1, self.manifest.horizon)
        return self._fetch_frames()

    def rollout(self, frames: Array) -> Array:
        """T frames `(B, T, C, H, W)` -> K frames `(B, K, C, H, W)`, from the zero state."""
        each = self.layout.frame_bytes
        by_time = np.ascontiguousarray(np.swapaxes(frames, 0, 1))  # (T, B, C, H, W)
        self._host(by_time.size)[:] = by_time.ravel()
        self.device.copy(self.frames, self.host, by_time.nbytes)
        self.device.zero(self.sets[0], self.layout.size)
        now = 0
        at_once = self.unrolled if self.choice.way == "unrolled" else None
        for t in range(len(by_time) - (at_once is not None)):
            self.device.copy(self.sets[now], self.frames + t * each, each)
            self.runs[now]()
            now = 1 - now
        if at_once is not None:
            if now == 1:  # the unrolled plan reads set 0
                self.device.copy(self.sets[0], self.sets[1], self.layout.size)
            self.device.copy(self.sets[0], self.frames + (len(by_time) - 1) * each, each)
            at_once()
            return self._fetch_forecast()
        self._free_run(now, self.manifest.horizon)
        return self._fetch_frames()

    def _free_run(self, now: int, horizon: int) -> None:
        """Set `now` holds the first guess: keep it, feed it back, and so on; nothing waits."""
        each = self.layout.frame_bytes
        for k in range(horizon):
            self.device.copy(self.frames + k * each, self.sets[now], each)
            if k < horizon - 1:
                self.runs[now]()
                now = 1 - now

    def _fetch_forecast(self) -> Array:
        """What the unrolled plan wrote: `(B, K, C, H, W)`."""
        batch, *frame = self.layout.frame_shape
        flat = self._read(self.frames, self.manifest.horizon * self.layout.frame_bytes)
        return flat.reshape(batch, self.manifest.horizon, *frame)

    def _fetch_frames(self) -> Array:
        horizon = self.manifest.horizon
        flat = self._read(self.frames, horizon * self.layout.frame_bytes)
        by_time = flat.reshape(horizon, *self.layout.frame_shape)  # (K, B, C, H, W)
        return np.ascontiguousarray(np.swapaxes(by_time, 0, 1))  # (B, K, C, H, W)

    def read_state(self, state: int) -> dict[str, NDArray[Any]]:
        """Copy a state out: name -> `(B, *shape)`."""
        whole = self._read(state, self.layout.state_bytes)
        return {name: whole[self._part(name)].reshape(s) for name, s in self.layout.shapes.items()}

    def write_state(self, state: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Copy a state in."""
        host = self._host(self.layout.state_bytes // _FLOAT)
        for name in self.layout.shapes:
            host[self._part(name)] = np.asarray(arrays[name], np.float32).ravel()
        self.device.copy(state, self.host, self.layout.state_bytes)
        self.device.wait()  # the pinned buffer is used again

    def _part(self, name: str) -> slice:
        """The floats of one tensor within a state."""
        start = (self.layout.offsets[name] - self.layout.state_start) // _FLOAT
        return slice(start, start + int(np.prod(self.layout.shapes[name])))

    def close(self) -> None:
        """Give all buffers back."""
        self.device.wait()
        for address in (*self.sets, self.frames):
            self.device.free(address)
        self.device.free_pinned(self.host)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
