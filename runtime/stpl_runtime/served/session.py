"""A bundle that a Triton server runs, as a session: `--engine triton:grpc://HOST:8001`.

The recurrent state stays at the server, in a sequence. So a state is here the frames that it has
read, and the sequences that have read them:

- `take_in` only notes a frame: nothing is sent that nobody waits for.
- A forecast from exactly T frames is one request of the model NAME_rollout, which keeps no state.
- Otherwise the frames go to a sequence of NAME_step or NAME_forecast, one by one. Where that
  sequence has gone on, or is lost, a new one reads the frames again from the first: with the same
  results. Where the first ones are no longer kept, it is an error, never another result.

A sequence has a random number of 63 bits: a server that was started anew never continues the
sequence of another client with our frames.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import MANIFEST, Bundle, GraphName
from stpl_core.codec import Array
from stpl_core.errors import SequenceLostError, UsageError
from stpl_core.files import sha256_of
from stpl_runtime.engines.ort import check_shape
from stpl_runtime.served.address import parse_address
from stpl_runtime.served.client import Client, Model, Part

KEPT = 64
"""Frames of a sequence that are kept at least: a longer one cannot be read again."""
_CHECK_S = 5.0
"""How often the server is asked whether it still has this bundle's model."""


@dataclass(eq=False)
class _Sequences:
    """B sequences of one model."""

    numbers: tuple[int, ...]
    sent: int = 0
    """Frames that each has read."""


@dataclass(frozen=True)
class ServedState:
    """What a state has read."""

    batch: int
    read: int = 0
    frames: tuple[Array, ...] = ()
    """The newest of them, `(B, C, H, W)`; all, up to `KEPT`."""
    places: Mapping[GraphName, _Sequences] = field(default_factory=dict)
    """Those that have read them, or less."""
    given: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What the last step gave beside its frame."""

    @property
    def is_whole(self) -> bool:
        """Whether it can be read again from the first frame."""
        return len(self.frames) == self.read


class ServedSession:
    """Keeps `stpl_runtime.engine.Session` and `stpl_runtime.engine.KeepsStates`."""

    engine = "triton"

    def __init__(
        self,
        bundle: Bundle,
        graphs: tuple[GraphName, ...],
        threads: int | None,
        *,
        address: str,
    ) -> None:
        """Find the models of `graphs`; see `stpl_runtime.engine.open_session`.

        Args:
            bundle: that the models were made of.
            graphs: that will be called.
            threads: refused: the server has its own.
            address: what follows `triton:`.
        """
        if threads is not None:
            raise UsageError(
                f"--threads {threads} with --engine triton:{address}",
                expected="the server's own threads",
                fix="leave --threads out",
            )
        self.manifest = bundle.manifest
        self._bundle = sha256_of(bundle.file(MANIFEST))[:16]
        self._address = parse_address(address)
        self._client = Client(self._address)
        self._name = self._address.name or bundle.path.resolve().stem
        self._strict = False
        self._models: dict[GraphName, Model] = {}
        self._checked_at = 0.0
        self._over: list[tuple[GraphName, tuple[int, ...]]] = []
        """Sequences that nobody goes on with."""
        # A nowcast from T frames is a rollout.
        usual: tuple[GraphName, ...] = ("rollout",) if "forecast" in graphs else ()
        self._graphs = tuple(dict.fromkeys((*graphs, *usual)))
        try:
            self.server = self._client.server()
            self._check(now=True)
        except BaseException:
            self._client.close()
            raise
        versions = {model.version for model in self._models.values()}
        self.provider = (
            f"{self.server} at {self._address.host}, {self._name} version {'/'.join(versions)}"
        )

    def facts(self) -> Mapping[str, Any]:
        """See `stpl_runtime.engine.ReportsFacts`."""
        return {
            "server": f"{self.server} at {self._address.host}",
            "models": ", ".join(f"{m.name} version {m.version}" for m in self._models.values()),
        }

    def prove(self) -> None:
        """From now on run every graph by its own model, and read nothing again."""
        self._strict = True

    def zero_state(self, batch: int = 1) -> ServedState:
        """The start of a sequence."""
        return ServedState(batch)

    def take_in(self, frame: Array, state: ServedState) -> ServedState:
        """The state after a frame `(B, C, H, W)` whose guess nobody wants."""
        check_shape(frame, self.manifest.frame, "C, H, W")
        graph: GraphName = "forecast" if "forecast" in self._models else "step"
        place = state.places.get(graph)
        if state.read - (0 if place is None else place.sent) >= KEPT:  # before they are let go
            return self._run(graph, frame, state)[1]
        return self._after(frame, state, state.places)

    def step(self, frame: Array, state: ServedState) -> tuple[Array, ServedState]:
        """One step; see the protocol."""
        return self._run("step", frame, state)

    def forecast(self, frame: Array, state: ServedState) -> tuple[Array, ServedState]:
        """K frames; see the protocol."""
        check_shape(frame, self.manifest.frame, "C, H, W")
        is_window = state.is_whole and state.read + 1 == self.manifest.context
        if is_window and not self._strict:
            frames = np.stack([*state.frames, frame], axis=1)  # (B, T, C, H, W)
            return self.rollout(frames), self._after(frame, state, state.places)
        return self._run("forecast", frame, state)

    def rollout(self, frames: Array) -> Array:
        """T frames in, K frames out; see the protocol."""
        expected = (self.manifest.context, *self.manifest.frame)
        check_shape(frames, expected, "T, C, H, W")
        self._check()
        spec = self.manifest.graphs["rollout"]
        made = [
            self._client.run(self._models["rollout"], {spec.inputs[0]: one[None]}, spec.outputs[:1])
            for one in frames
        ]  # one row each: every server takes it
        return np.concatenate([one[spec.outputs[0]] for one in made])  # (B, K, C, H, W)

    def outputs(self, state: ServedState, names: Sequence[str]) -> Mapping[str, Array]:
        """See `stpl_runtime.engine.JoinsOutputs`."""
        return {name: state.given[name] for name in names}

    def fork(self, state: ServedState) -> ServedState:
        """A state that may be used up while this one is kept."""
        return state

    def state_arrays(self, state: ServedState) -> Mapping[str, NDArray[Any]]:
        """Refused: it stays at the server."""
        self._refuse_states()

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> ServedState:
        """Refused: it stays at the server."""
        self._refuse_states()

    def close(self) -> None:
        """End what is open."""
        self._end_those_over()
        self._client.close()

    def _refuse_states(self) -> NoReturn:
        raise UsageError(
            f"--engine triton:{self._address.host} keeps its states to itself",
            expected="an engine on this machine, for a carried state that is written to a file",
            fix="leave --state-file out, or --engine onnx",
        )

    def _run(self, graph: GraphName, frame: Array, state: ServedState) -> tuple[Array, ServedState]:
        """Give a frame to a sequence, and before it what it has not read yet."""
        check_shape(frame, self.manifest.frame, "C, H, W")
        until = monotonic() + self._address.deadline_s
        place = state.places.get(graph)
        while True:
            self._check(now=place is None)
            if place is None or place.sent > state.read:  # it has gone on without this state
                self._refuse_new(state)
                place = self._new(graph, state.batch)
            try:
                made = self._read(graph, place, [*self._missing(state, place), frame])
                break
            except SequenceLostError:
                place = None
                if self._strict or not state.is_whole or monotonic() >= until:
                    raise
        spec = self.manifest.graphs[graph]
        given = {part.name: made[part.output] for part in self.manifest.state if part.input is None}
        places = {**state.places, graph: place}
        return made[spec.outputs[0]], self._after(frame, state, places, given)

    def _after(
        self,
        frame: Array,
        state: ServedState,
        places: Mapping[GraphName, _Sequences],
        given: Mapping[str, NDArray[Any]] | None = None,
    ) -> ServedState:
        frames = (*state.frames, np.array(frame))
        if len(frames) > max(KEPT, self.manifest.context):
            frames = frames[1:]
        return ServedState(state.batch, state.read + 1, frames, places, given or {})

    def _missing(self, state: ServedState, place: _Sequences) -> tuple[Array, ...]:
        left = state.read - place.sent
        return state.frames[len(state.frames) - left :] if left else ()

    def _refuse_new(self, state: ServedState) -> None:
        """Raise where a new sequence cannot read all frames."""
        if not state.is_whole:
            raise SequenceLostError(
                f"the state after {state.read} frames went on at {self._address.host}, and its "
                "first frames are no longer kept",
                expected="a sequence that the server keeps between two frames",
                fix="--context window; or stpl-deploy package with a longer --idle, and start "
                "again: the state begins anew",
            )

    def _new(self, graph: GraphName, batch: int) -> _Sequences:
        self._end_those_over()
        numbers = tuple(1 + secrets.randbelow(2**63 - 1) for _ in range(batch))
        place = _Sequences(numbers)
        weakref.finalize(place, self._over.append, (graph, numbers)).atexit = False
        return place

    def _read(
        self, graph: GraphName, place: _Sequences, frames: Sequence[Array]
    ) -> dict[str, NDArray[Any]]:
        """Send frames to a sequence; what came of the last one."""
        spec = self.manifest.graphs[graph]
        made: dict[str, NDArray[Any]] = {}
        beside = [part.output for part in self.manifest.state if part.input is None]
        for frame in frames:
            parts = [Part(number, start=place.sent == 0) for number in place.numbers]
            place.sent += 1
            made = self._client.run_parts(
                self._models[graph], parts, {spec.inputs[0]: frame}, [spec.outputs[0], *beside]
            )
        return made

    def _end_those_over(self) -> None:
        """End sequences that nobody goes on with, so that the server has room for others."""
        blank = np.zeros((1, *self.manifest.frame), np.float32)  # (1, C, H, W)
        while self._over:
            graph, numbers = self._over.pop()
            spec = self.manifest.graphs[graph]
            frames = np.repeat(blank, len(numbers), axis=0)
            parts = [Part(number, end=True) for number in numbers]
            try:
                self._client.run_parts(
                    self._models[graph], parts, {spec.inputs[0]: frames}, spec.outputs[:1]
                )
            except SequenceLostError:
                continue  # it is over already

    def _check(self, *, now: bool = False) -> None:
        """Find the models, or see that they are still those of this bundle."""
        if not now and monotonic() - self._checked_at < _CHECK_S:
            return
        for graph in self._graphs:
            if graph in self.manifest.graphs:
                self._models[graph] = self._client.model(f"{self._name}_{graph}", self._bundle)
        self._checked_at = monotonic()
