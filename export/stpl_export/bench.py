"""`stpl-deploy bench`: from a frame's arrival to its nowcast, each way in turn, in one process.

Every round runs each row once, in a new order, so that a machine that slows down slows all of them.
A row is the time of one whole answer at batch 1, numpy in and numpy out:

    pytorch-eager     T + K - 1 steps of the model (where torch is installed)
    pytorch-compiled  the same with torch.compile on the step (where asked for)
    onnx-steps        T + K - 1 calls of the step graph (another engine has its own name there)
    onnx-unrolled     one call of the rollout graph
    onnx-prewarmed    one call of the forecast graph; its T - 1 prefix steps ran before the arrival
    onnx-first-frame  one call of the step graph on that prefix: the first predicted frame

Beside each time stands what was reached: the multiply-accumulates of the convolutions and matrix
products of the row's steps, as the ONNX graph states them, over the median; and its share of this
machine's peak, a large matrix product in the same precision and threads, measured in this process.
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.bundle import WEIGHTS, Bundle, Manifest
from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.machine import describe, usable_cpus
from stpl_core.options import EngineOptions
from stpl_core.safety.trust import is_trusted
from stpl_runtime.engine import ReportsFacts, Session, closed_loop, open_session, precision_of
from stpl_runtime.engines.auto.candidates import Asked, installed_engines
from stpl_runtime.engines.auto.choose import LONGEST_S, measured_choice
from stpl_runtime.engines.ov.session import (
    OpenVinoWinogradSession,
    computes_bf16,
    gains_by_fewer_products,
)
from stpl_runtime.nowcasting.predict import graphs_needed
from stpl_runtime.proof.reference import load_reference

RATIOS = {
    "prewarmed_vs_unrolled": ("onnx-unrolled", "onnx-prewarmed"),
    "prewarmed_vs_eager": ("pytorch-eager", "onnx-prewarmed"),
    "prewarmed_vs_compiled": ("pytorch-compiled", "onnx-prewarmed"),
    "unrolled_vs_eager": ("pytorch-eager", "onnx-unrolled"),
    "unrolled_vs_steps": ("onnx-steps", "onnx-unrolled"),
}
"""Name -> (slower, faster): how many times the second is faster than the first."""


@dataclass(frozen=True)
class Row:
    """Latency of one way, in milliseconds, over the rounds."""

    name: str
    median_ms: float
    p95_ms: float
    min_ms: float
    rounds: int
    precision: str = "fp32"
    gflops: float | None = None
    """GFLOP/s at the median (GOP/s in int8); two for a multiply-accumulate."""
    peak_share: float | None = None
    """Of the peak in this precision, 0 to 1."""


@dataclass(frozen=True)
class Peer:
    """Another way to run the same model, timed in the same rounds."""

    label: str
    """Before the names of its rows, such as `openvino-bf16`."""
    bundle: Bundle
    engine: str
    allow: str | None = None


@dataclass(frozen=True)
class Case:
    """One row while it is measured."""

    prepare: Callable[[], Callable[[], Any]]
    """Prepares one arrival (untimed) and returns what is timed."""
    steps: int
    """Steps of the model that are timed."""
    precision: str


@dataclass(frozen=True)
class Ratio:
    """How many times faster, from the medians; the spread is over single rounds."""

    name: str
    times: float
    p05: float
    p95: float


@dataclass(frozen=True)
class BenchReport:
    """What `bench` found, and where."""

    bundle: str
    model: str
    context: int
    horizon: int
    frame: tuple[int, int, int]
    threads: int
    engine: str
    provider: str
    """Where the engine really runs."""
    facts: dict[str, Any]
    """What its session found out, such as how TensorRT makes a forecast."""
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    peaks: dict[str, float]
    """Precision -> GFLOP/s of a large matrix product on these threads."""
    machine: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The report as JSON: `rows`, and `ratios` as name -> times, `ratio_spread` beside them."""
        whole = asdict(self)
        whole["ratios"] = {ratio.name: ratio.times for ratio in self.ratios}
        whole["ratio_spread"] = {ratio.name: [ratio.p05, ratio.p95] for ratio in self.ratios}
        return whole


def bench_bundle(
    bundle: Bundle,
    *,
    rounds: int = 30,
    engine: str = "auto",
    threads: int | None = None,
    forecast: str = "auto",
    allow: str | None = None,
    require_provider: str | None = None,
    compiled: bool = False,
    peers: Sequence[Peer] = (),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> BenchReport:
    """Measure every way that this machine has.

    Args:
        bundle: an opened bundle.
        rounds: timed rounds, after two that warm up.
        engine: a word of `stpl_runtime.engine.ENGINES`, or `auto`; PyTorch is measured on the CPU.
        threads: compute threads of every engine; None takes what this process may use.
        forecast: and
        allow: and
        require_provider: see `open_session`.
        compiled: measure torch.compile too; it compiles for a while first.
        peers: other ways, timed beside it.
        progress: called with the round and the number of rounds.
    """
    count = threads or usable_cpus()
    frames = load_reference(bundle).context[:1]  # (1, T, C, H, W)
    session = open_session(
        bundle,
        ["step", "forecast", "rollout"],
        engine=engine,
        threads=count,
        forecast=forecast,
        allow=allow,
        require_provider=require_provider,
    )
    with ExitStack() as stack:
        stack.callback(session.close)
        cases = _engine_cases(session, frames, bundle.manifest)
        for peer in peers:
            cases |= _peer_cases(peer, frames, count, stack)
        cases = _with_torch(cases, bundle, frames, count, compiled=compiled)
        times = _timed(cases, rounds, progress)
        facts = dict(session.facts()) if isinstance(session, ReportsFacts) else {}
    return _report(bundle, session, facts, count, cases, times)


def _report(
    bundle: Bundle,
    session: Session,
    facts: dict[str, Any],
    threads: int,
    cases: dict[str, Case],
    times: dict[str, list[float]],
) -> BenchReport:
    peaks = _peaks({case.precision for case in cases.values()}, threads)
    gflop = step_gflop(bundle)
    manifest = bundle.manifest
    name = manifest.model.name
    if not _may_build(name):
        facts["PyTorch"] = f"not timed: {name} is a class of somebody's own; --trust-model {name}"
    return BenchReport(
        bundle=bundle.path.name,
        model=f"{name}, {manifest.model.parameters:,} parameters",
        context=manifest.context,
        horizon=manifest.horizon,
        frame=manifest.frame,
        threads=threads,
        engine=session.engine,
        provider=session.provider,
        facts=facts,
        rows=tuple(_row(name, case, times[name], gflop, peaks) for name, case in cases.items()),
        peaks=peaks,
        ratios=_ratios(session.engine, times),
        machine=describe(),
    )


def _ratios(engine: str, times: dict[str, list[float]]) -> tuple[Ratio, ...]:
    return tuple(
        _ratio(name, times[slow], times[fast])
        for name, (slow, fast) in ratios_of(engine).items()
        if slow in times and fast in times
    )


def _with_torch(
    cases: dict[str, Case], bundle: Bundle, frames: Array, threads: int, *, compiled: bool
) -> dict[str, Case]:
    """PyTorch's cases before and after the engine's, where it is installed and may build it."""
    if importlib.util.find_spec("torch") is None or not _may_build(bundle.manifest.model.name):
        return cases
    cases = {"pytorch-eager": _torch_case(bundle, frames, threads), **cases}
    if compiled:
        cases["pytorch-compiled"] = _torch_case(bundle, frames, threads, compiled=True)
    return cases


def _timed(
    cases: Mapping[str, Case], rounds: int, progress: Callable[[int, int], None]
) -> dict[str, list[float]]:
    """Milliseconds of each case in each round, after two that warm up; their order is shuffled."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    shuffle = random.Random(0)  # noqa: S311 (an order of rounds, not a secret)
    for n in range(rounds + 2):
        progress(n, rounds + 2)
        shuffle.shuffle(order)
        for name in order:
            timed = cases[name].prepare()
            begin = time.perf_counter()
            timed()
            if n >= 2:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def ratios_of(engine: str) -> dict[str, tuple[str, str]]:
    """`RATIOS` with the rows of another engine."""

    def row(name: str) -> str:
        return f"{engine}-{name.removeprefix('onnx-')}" if name.startswith("onnx-") else name

    return {name: (row(slow), row(fast)) for name, (slow, fast) in RATIOS.items()}


def _peer_cases(peer: Peer, frames: Array, threads: int, stack: ExitStack) -> dict[str, Case]:
    """Those of another way; closed with the stack."""
    session = open_session(
        peer.bundle,
        ["step", "forecast", "rollout"],
        engine=peer.engine,
        threads=threads,
        allow=peer.allow,
    )
    stack.callback(session.close)
    return _engine_cases(session, frames, peer.bundle.manifest, peer.label)


def _engine_cases(
    session: Session, frames: Array, manifest: Manifest, label: str = ""
) -> dict[str, Case]:
    newest = np.ascontiguousarray(frames[:, -1])  # (1, C, H, W)
    horizon = manifest.horizon

    def prewarmed(last: Callable[[Array, Any], Any]) -> Callable[[], Callable[[], Any]]:
        def prepare() -> Callable[[], Any]:
            state = session.zero_state(1)
            for t in range(frames.shape[1] - 1):
                _, state = session.step(np.ascontiguousarray(frames[:, t]), state)
            return lambda: last(newest, state)

        return prepare

    name, precision = label or session.engine, precision_of(session, manifest)
    every = frames.shape[1] + horizon - 1
    return {
        f"{name}-steps": Case(
            lambda: lambda: closed_loop(session, frames, horizon), every, precision
        ),
        f"{name}-unrolled": Case(lambda: lambda: session.rollout(frames), every, precision),
        f"{name}-prewarmed": Case(prewarmed(session.forecast), horizon, precision),
        f"{name}-first-frame": Case(prewarmed(session.step), 1, precision),
    }


def settled(bundle: Bundle, backend: EngineOptions, say: Callable[[str], None]) -> EngineOptions:
    """What `--engine auto` stands for here: measured, where that was not done before."""
    if backend.engine != "auto":
        return backend
    graphs = graphs_needed(bundle.manifest, bundle.manifest.horizon)
    asked = Asked(graphs, backend.threads, backend.forecast, backend.allow)
    choice = measured_choice(bundle, asked, say, most_s=LONGEST_S)
    say(choice.line)
    taken = choice.candidate
    allow = backend.allow if taken.precision != bundle.manifest.precision else None
    return replace(
        backend, engine=taken.engine, threads=taken.threads, forecast="auto", allow=allow
    )


def peers_of(bundle: Bundle, taken: str) -> tuple[Peer, ...]:
    """The other engines for the CPU that are installed, and bf16 where this CPU has it."""
    precision = bundle.manifest.precision
    engines = [
        engine
        for engine in installed_engines(precision)
        if engine != OpenVinoWinogradSession.engine or gains_by_fewer_products(bundle)
    ]
    found = [Peer(engine, bundle, engine) for engine in engines if engine != taken]
    if precision == "fp32" and computes_bf16():
        halves = [engine for engine in engines if engine.startswith("openvino")]
        found += [Peer(f"{engine}-bf16", bundle, engine, "bf16") for engine in halves]
    return tuple(found)


def step_gflop(bundle: Bundle) -> float | None:
    """GFLOP of one step at batch 1, by its step graph: convolutions and matrix products.

    None where onnx, which reads the graph, is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    from stpl_export.precision.macs import graph_work

    model = onnx.load(bundle.graph("step"), load_external_data=False)
    work = graph_work(model)
    return 2e-9 * (sum(work.convolutions.values()) + sum(work.products.values()))


def _peaks(precisions: set[str], threads: int) -> dict[str, float]:
    if importlib.util.find_spec("torch") is None:
        return {}
    from stpl_export.peak import peak_gflops

    found = {precision: peak_gflops(precision, threads) for precision in sorted(precisions)}
    return {precision: round(peak, 1) for precision, peak in found.items() if peak is not None}


def _may_build(name: str) -> bool:
    """Whether a bundle's model may be built in PyTorch to be timed: ours, or trusted by hand."""
    if importlib.util.find_spec("torch") is None or is_trusted(name):
        return True
    from stpl_train.models import is_known

    return is_known(name)


def _torch_case(bundle: Bundle, frames: Array, threads: int, *, compiled: bool = False) -> Case:
    """PyTorch with the same weights, the same threads, the same frames."""
    import safetensors.torch
    import torch

    from stpl_train.forecaster import rollout
    from stpl_train.models import build_model

    manifest = bundle.manifest
    model = build_model(manifest.model.name, manifest.frame, manifest.model.keys).eval()
    tensors = safetensors.torch.load_file(bundle.file(WEIGHTS))
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    if compiled:
        model.step = torch.compile(model.step, dynamic=False)  # type: ignore[method-assign]  # as torch.compile is used

    def run() -> Array:
        with torch.inference_mode():
            out = rollout(model, torch.from_numpy(frames), manifest.horizon).numpy()
        return np.asarray(out, dtype=np.float32)

    def prepare() -> Callable[[], Any]:
        torch.set_num_threads(threads)
        return run

    return Case(prepare, manifest.context + manifest.horizon - 1, "fp32")


def _row(
    name: str, case: Case, times: list[float], step_gflop: float | None, peaks: Mapping[str, float]
) -> Row:
    median, p95 = (float(value) for value in np.percentile(times, (50, 95)))
    gflops = None if step_gflop is None else 1e3 * case.steps * step_gflop / median
    peak = peaks.get(case.precision)
    return Row(
        name,
        round(median, 3),
        round(p95, 3),
        round(min(times), 3),
        len(times),
        case.precision,
        None if gflops is None else round(gflops, 2),
        None if gflops is None or peak is None else round(gflops / peak, 4),
    )


def _ratio(name: str, slow: list[float], fast: list[float]) -> Ratio:
    times = float(np.median(slow) / np.median(fast))
    low, high = (float(v) for v in np.percentile(np.divide(slow, fast), (5, 95)))
    return Ratio(name, round(times, 2), round(low, 2), round(high, 2))


def save_chart(report: BenchReport, path: Path) -> None:
    """Draw each row as a point at its median and a line from the least to p95, on a log axis.

    SVG or PNG, by the file's name. The median stands beside the row's name: at the end of the line
    it would read as p95.
    """
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7.5, 0.6 * len(report.rows) + 1.6), layout="tight")
    axes = figure.subplots()
    names = [f"{row.name}\n{row.median_ms:.1f} ms" for row in report.rows]
    medians = [row.median_ms for row in report.rows]
    reach = [
        [row.median_ms - row.min_ms for row in report.rows],
        [row.p95_ms - row.median_ms for row in report.rows],
    ]
    axes.errorbar(medians, names, xerr=reach, fmt="o", color="#3b6ea5", ecolor="#888888", capsize=3)
    axes.set_xscale("log")
    axes.grid(axis="x", which="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("ms from a frame's arrival to its nowcast (point: median, line: least to p95)")
    axes.set_title(
        f"{report.model}, {report.context} in, {report.horizon} out, {report.threads} threads",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."))
