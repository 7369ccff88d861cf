"""A bundle in Triton's Python backend: the server batches and routes, our session computes.

`stpl-deploy package --backend python` writes a `model.py` that imports this class. The state of
each sequence stays in this process, under its number. A request of a sequence that is not known
here, and does not start one, is answered by an error.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import GraphName, open_bundle
from stpl_core.codec import Array
from stpl_core.errors import StplError
from stpl_runtime.engine import Session, StateHandle, open_session
from stpl_runtime.streaming.batching import joined, split

BUNDLE = "bundle"
"""The folder beside `model.py`."""
_TAKEN_OVER = b"used_dltensor"
"""DLPack's name of a capsule whose content has another owner. Kept here: a name is not copied."""


@dataclass
class _Kept:
    state: StateHandle
    used: float


class ServedModel:
    """One graph of a bundle over a session; without anything of Triton's."""

    def __init__(self, folder: Path, graph: GraphName, idle_s: float, threads: int | None) -> None:
        """Open the bundle.

        Args:
            folder: of the bundle.
            graph: which graph.
            idle_s: a state that was not used for twice that is forgotten: Triton has ended its
                sequence, and reports that to nobody.
            threads: compute threads; None: all CPUs.
        """
        bundle = open_bundle(folder)
        self.manifest = bundle.manifest
        self._graph, self._idle_s = graph, idle_s
        self._session: Session = open_session(bundle, (graph,), engine="onnx", threads=threads)
        self._states: dict[int, _Kept] = {}

    def rollout(self, frames: Array) -> Array:
        """`(B, T, C, H, W)` -> `(B, K, C, H, W)`."""
        return self._session.rollout(frames)

    def run(
        self, frames: Array, numbers: Sequence[int], starts: Sequence[bool], ends: Sequence[bool]
    ) -> dict[str, NDArray[Any]]:
        """Give a frame to each of B sequences, each of another number.

        Args:
            frames: `(B, C, H, W)`, model units.
            numbers: of the sequences.
            starts: whether each begins.
            ends: whether each ends with this frame.

        Returns:
            Output of the graph -> `(B, ...)`.

        Raises:
            KeyError: a sequence that was not started.
        """
        zero = self._session.zero_state()
        pairs = list(zip(numbers, starts, strict=True))
        states = [zero if start else self._states[number].state for number, start in pairs]
        state = states[0] if len(states) == 1 else joined(self._session, states)
        run = self._session.step if self._graph == "step" else self._session.forecast
        made, after = run(frames, state)
        now = monotonic()
        parts = [after] if len(states) == 1 else split(self._session, after)
        for number, end, part in zip(numbers, ends, parts, strict=True):
            self._states[number] = _Kept(part, now)
            if end:
                del self._states[number]
        for number in [n for n, kept in self._states.items() if now - kept.used > 2 * self._idle_s]:
            del self._states[number]
        found: dict[str, NDArray[Any]] = {self.manifest.graphs[self._graph].outputs[0]: made}
        beside = [part for part in self.manifest.state if part.input is None]
        if beside:
            arrays = self._session.state_arrays(after)
            found |= {part.output: arrays[part.name] for part in beside}
        return found

    def knows(self, number: int) -> bool:
        """Whether a sequence was started here."""
        return number in self._states

    def close(self) -> None:
        """Free it."""
        self._session.close()


class TritonPythonModel:
    """What Triton's Python backend makes and calls; its names are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside `model.py`."""
        config = json.loads(args["model_config"])
        facts = {key: value["string_value"] for key, value in config["parameters"].items()}
        batching = config.get("sequence_batching", {})
        idle_s = int(batching.get("max_sequence_idle_microseconds", 1_000_000)) / 1e6
        folder = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        threads = int(facts["stpl_threads"]) if facts.get("stpl_threads") else None
        self._graph = cast("GraphName", facts["stpl_graph"])
        self._model = ServedModel(folder, self._graph, idle_s, threads)
        self._input = config["input"][0]["name"]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, those of the same shape together; each by frames or by an error."""
        import triton_python_backend_utils as triton

        answers: list[Any] = [None] * len(requests)
        good = []
        for n, request in enumerate(requests):
            if self._graph == "rollout" or self._is_known(request, triton):
                good.append(n)
            else:
                answers[n] = _refused(
                    triton, "the sequence is not known: it must specify the START flag"
                )
        if good:
            try:
                found = self._run([requests[n] for n in good], triton)
            except (StplError, KeyError, ValueError) as error:
                found = [_refused(triton, str(error)) for _ in good]
            for n, answer in zip(good, found, strict=True):
                answers[n] = answer
        return answers

    def finalize(self) -> None:
        """Free it."""
        self._model.close()

    def _is_known(self, request: Any, triton: Any) -> bool:
        starts = bool(request.flags() & triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
        return starts or self._model.knows(request.correlation_id())

    def _run(self, requests: Sequence[Any], triton: Any) -> list[Any]:
        taken = [
            np.from_dlpack(triton.get_input_tensor_by_name(request, self._input))
            for request in requests
        ]
        rows = [len(one) for one in taken]
        frames = np.concatenate(taken)  # (B, ...)
        if self._graph == "rollout":
            name = self._model.manifest.graphs["rollout"].outputs[0]
            found: dict[str, NDArray[Any]] = {name: self._model.rollout(frames)}
        else:
            flags = [request.flags() for request in requests]
            found = self._model.run(
                frames,
                [request.correlation_id() for request in requests],
                [bool(f & triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START) for f in flags],
                [bool(f & triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END) for f in flags],
            )
        ends = np.cumsum(rows)
        return [
            triton.InferenceResponse(
                [_tensor(triton, name, array[end - count : end]) for name, array in found.items()]
            )
            for end, count in zip(ends, rows, strict=True)
        ]


def _tensor(triton: Any, name: str, array: NDArray[Any]) -> Any:
    """A tensor of Triton's. Made of an array itself it is empty where numpy is 2 or later."""
    capsule = array.copy().__dlpack__()
    made = triton.Tensor.from_dlpack(name, capsule)
    # Triton renames what it took over, and numpy, which knows another name, complains in the log.
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes, rename.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_int
    rename(capsule, _TAKEN_OVER)
    return made


def _refused(triton: Any, text: str) -> Any:
    return triton.InferenceResponse(
        output_tensors=[], error=triton.TritonError(text, triton.TritonError.INVALID_ARG)
    )
