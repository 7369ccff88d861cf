"""The ways to run a bundle that this machine has."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stpl_core.bundle import Bundle, GraphName
from stpl_core.errors import EnvironmentFault, install_command
from stpl_core.machine import usable_cpus
from stpl_runtime.engine import Session, open_session
from stpl_runtime.engines.ov.session import computes_bf16
from stpl_runtime.engines.replays import ReplayingSession

VARIABLE = "STPL_ENGINE"
"""Names the engine that `auto` takes, for many devices that are alike."""
Way = Literal["replays", "unrolled", "own"]


@dataclass(frozen=True)
class Asked:
    """What the user fixes; the rest is to be found out."""

    graphs: tuple[GraphName, ...]
    threads: int | None = None
    forecast: str = "auto"
    allow: str | None = None


@dataclass(frozen=True)
class Candidate:
    """One way to run a bundle."""

    engine: str
    way: Way
    """How K frames are made; `own`: only steps run, or the engine decides."""
    threads: int
    precision: str
    """What it computes in: the bundle's, or a lower one that was allowed."""

    def __str__(self) -> str:
        """In a few words."""
        ways = {"replays": ", by replays of the step", "unrolled": ", unrolled", "own": ""}
        plural = "" if self.threads == 1 else "s"
        return f"{self.engine}{ways[self.way]}, {self.threads} thread{plural}, {self.precision}"


def candidates(bundle: Bundle, asked: Asked, free: int | None = None) -> tuple[Candidate, ...]:
    """Every way, the likely ones first.

    GPU engines are among them only where the bundle has their plans: nobody else asked for one.

    Args:
        bundle: an opened bundle.
        asked: what is fixed.
        free: CPUs that other work leaves; None: all.

    Raises:
        EnvironmentFault: no engine for the CPU is installed, and there is no plan.
    """
    counts = _thread_counts(asked.threads, free)
    precision = bundle.manifest.precision
    named = os.environ.get(VARIABLE, "auto")
    if named != "auto":
        return (Candidate(named, "own", counts[0], precision),)
    engines = installed_engines(precision)
    lossy = asked.allow == "bf16" and precision == "fp32" and computes_bf16()
    plans = sorted({spec.engine for spec in bundle.manifest.engines})
    found = [Candidate(plan, "own", counts[0], precision) for plan in plans if _has_gpu()]
    for threads in counts:
        for way in _ways(asked):
            for engine in engines:
                if lossy and engine != "onnx":
                    found.append(Candidate(engine, way, threads, "bf16"))
                found.append(Candidate(engine, way, threads, precision))
    if not found:
        half = precision == "bf16"
        raise EnvironmentFault(
            "no engine is installed that runs bf16 on the CPU"
            if half
            else "no engine is installed",
            expected="openvino" if half else "onnxruntime or openvino",
            fix=install_command("openvino" if half else "cpu"),
        )
    return tuple(found)


def installed_engines(precision: str) -> tuple[str, ...]:
    """Engines for the CPU whose library is here, and that compute in this precision."""
    words = {"onnx": "onnxruntime", "openvino": "openvino", "openvino:winograd": "openvino"}
    cannot = {"onnx": ("bf16",), "openvino:winograd": ("bf16", "fp16", "int8")}
    return tuple(
        word
        for word, library in words.items()
        if importlib.util.find_spec(library) is not None and precision not in cannot.get(word, ())
    )


def open_candidate(bundle: Bundle, asked: Asked, candidate: Candidate) -> Session:
    """Open one; see `open_session`."""
    graphs: Sequence[GraphName] = asked.graphs
    replays = candidate.way == "replays"
    if replays:
        graphs = ("step",)
    lower = candidate.precision != bundle.manifest.precision
    session = open_session(
        bundle,
        graphs,
        engine=candidate.engine,
        threads=candidate.threads,
        allow=candidate.precision if lower else None,
    )
    return ReplayingSession(session, bundle.manifest, "measured") if replays else session


def _thread_counts(threads: int | None, free: int | None) -> tuple[int, ...]:
    """As many as stated; else those that are free, all, and one: a small model loses by threads.

    Threads wait for each other after every operation. Beside other work each waits for its turn
    too, and two of them that do so are slower than one.
    """
    if threads is not None:
        return (threads,)
    most = usable_cpus()
    return tuple(dict.fromkeys((min(free or most, most), most, 1)))


def _ways(asked: Asked) -> tuple[Way, ...]:
    if "forecast" not in asked.graphs:
        return ("own",)
    if "step" not in asked.graphs or asked.forecast == "unrolled":
        return ("unrolled",)
    return ("replays",) if asked.forecast == "replays" else ("unrolled", "replays")


def _has_gpu() -> bool:
    from stpl_runtime.engines.gpu import local_gpu

    return local_gpu() is not None


def affinity() -> tuple[int, ...]:
    """The CPUs that this process may run on, by number."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:  # not on this system
        return tuple(range(os.cpu_count() or 1))
