"""A session and PyTorch's own results as Polygraphy's runners, one for each graph.

Each reads `context` `(B, T, C, H, W)` and gives named outputs: `lead 1` to `lead K`, each
`(B, C, H, W)` or what is kept of that; after `forecast` the state of the first sequence, as
`state NAME`. Of an int8 bundle also what its quantised graph is held to (see `limits`).
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import GraphName
from stpl_core.codec import Array
from stpl_export.polygraphy.library import PYTORCH
from stpl_runtime.engine import Session, StateHandle
from stpl_runtime.proof.reference import Reference
from stpl_runtime.proof.verify import early_guesses, run_graph, where_observed

Outputs = OrderedDict[str, NDArray[Any]]

TRUTH = "against truth"
"""All frames where something was observed, `(P,)`; PyTorch's runner gives the truth itself."""


def runner_name(engine: str, graph: str) -> str:
    """As `onnx step`; see `split_name`."""
    return f"{engine} {graph}"


def split_name(name: str) -> tuple[str, str]:
    """A runner's engine and graph."""
    engine, _, graph = name.rpartition(" ")
    return engine, graph


def engine_label(session: Session, precision: str) -> str:
    """The engine's word; as `openvino(bf16)` where it runs in less than the bundle's precision."""
    own = str(getattr(session, "precision", precision))
    return session.engine if own == precision else f"{session.engine}({own})"


def label_precision(label: str) -> str | None:
    """The precision in an engine's label, where it has one."""
    found = re.search(r"\((\w+)\)$", label)
    return found[1] if found else None


def session_runner(session: Session, label: str, graph: GraphName, reference: Reference) -> Any:
    """A runner of one graph on an open session, which stays the caller's; see `engine_label`."""

    def run(context: Array) -> Outputs:
        batch = len(context)
        given = replace(reference, context=context)
        frames, state = run_graph(session, graph, given, batch)
        outputs = _leads(frames, reference)
        if state is not None:
            outputs |= _states(session, state, reference)
        if reference.int8 is not None and graph == "step":
            early = early_guesses(session, given, batch)  # (B, n, C, H, W)
            outputs |= {f"early {n + 1}": early[:, n] for n in range(early.shape[1])}
        if reference.int8 is not None and batch == len(reference.context):
            outputs[TRUTH] = _observed(frames, reference)
        return outputs

    return _runner(runner_name(label, graph), reference, run)


def pytorch_runner(reference: Reference) -> Any:
    """A runner that gives PyTorch's results in float64 as the bundle keeps them."""

    def run(context: Array) -> Outputs:
        batch = len(context)
        exact = reference.float64[:batch]
        outputs: Outputs = OrderedDict(
            (f"lead {k + 1}", exact[:, k]) for k in range(exact.shape[1])
        )
        outputs |= {f"state {name}": state.values for name, state in reference.states.items()}
        if reference.int8 is not None:
            early = reference.int8.early[:batch]
            outputs |= {f"early {n + 1}": early[:, n] for n in range(early.shape[1])}
            if batch == len(reference.context):
                outputs[TRUTH] = _observed(reference.truth.astype(np.float64), reference)
        return outputs

    return _runner(PYTORCH, reference, run)


def _leads(frames: Array, reference: Reference) -> Outputs:
    kept = reference.kept(frames)
    if not np.isfinite(frames).all():  # of every pixel, whichever are kept
        kept = np.full_like(kept, np.inf)
    return OrderedDict((f"lead {k + 1}", kept[:, k]) for k in range(kept.shape[1]))


def _states(session: Session, state: StateHandle, reference: Reference) -> Outputs:
    arrays = session.state_arrays(state)
    outputs: Outputs = OrderedDict()
    for name, expected in reference.states.items():
        whole = arrays[name][:1]
        kept = expected.kept(whole)
        outputs[f"state {name}"] = kept if np.isfinite(whole).all() else np.full_like(kept, np.inf)
    return outputs


def _observed(frames: NDArray[Any], reference: Reference) -> NDArray[Any]:
    kept = reference.kept(frames)
    seen = where_observed(reference, len(frames))
    return np.asarray(kept[np.broadcast_to(seen, kept.shape)])


def _runner(name: str, reference: Reference, run: Callable[[Array], Outputs]) -> Any:
    from polygraphy.backend.base import BaseRunner
    from polygraphy.common import TensorMetadata

    class Runner(BaseRunner):  # type: ignore[misc]  # untyped base
        def get_input_metadata_impl(self) -> Any:
            shape = (None, *reference.context.shape[1:])
            return TensorMetadata().add("context", dtype=np.float32, shape=shape)

        def infer_impl(self, feed_dict: dict[str, Array]) -> Outputs:
            begin = time.perf_counter()
            made = run(np.ascontiguousarray(feed_dict["context"]))
            # Polygraphy looks at arrays as they lie in memory.
            outputs = OrderedDict((k, np.ascontiguousarray(v)) for k, v in made.items())
            self.inference_time = time.perf_counter() - begin
            return outputs

    return Runner(name=name)
