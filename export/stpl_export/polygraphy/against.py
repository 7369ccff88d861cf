"""`verify --against`: engines, and results of other machines, judged by Polygraphy's Comparator.

Every graph of every engine runs the bundle's sequences in closed loop and is compared with
PyTorch's float64 at each lead time. Results that were kept (`--results`) on another machine are
judged in the same way and compared with those of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.bundle import Bundle, GraphName
from stpl_core.errors import BundleError, EnvironmentFault, UsageError
from stpl_core.files import atomic_file
from stpl_core.options import EngineOptions
from stpl_export.polygraphy.library import PYTORCH, quiet
from stpl_export.polygraphy.limits import Limit, comparisons, limits_of, peak_db
from stpl_export.polygraphy.results import load_results, same_batch
from stpl_export.polygraphy.runners import (
    engine_label,
    label_precision,
    pytorch_runner,
    session_runner,
    split_name,
)
from stpl_runtime.engine import Session, open_session
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_runtime.proof.verify import batches_of, refuse_dead

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One output of one graph on one engine, beside PyTorch's or another machine's."""

    engine: str
    """The engine's word; with the file that it comes from, where it did not run here."""
    graph: str
    batch: int
    output: str
    """`lead 3`, `state layer0.h` ..."""
    max_error: float
    limit: Limit
    psnr_db: float
    """Peak 1; infinite where both are the same."""
    passed: bool
    """Polygraphy's verdict."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, and how it went."""

    data: str
    sequences: int
    providers: dict[str, str]
    """Engine -> what really ran it."""
    unable: dict[str, str]
    """Engine -> why it cannot run here."""
    rows: tuple[Row, ...]
    """Against PyTorch."""
    between: tuple[Row, ...]
    """Each engine here against the results of a file."""

    @property
    def passed(self) -> bool:
        """Whether everything that ran is within its limits."""
        return all(row.passed for row in (*self.rows, *self.between))

    def first_breach(self) -> str | None:
        """What failed first and by how much; None where nothing did."""
        for row in (*self.rows, *self.between):
            if row.passed:
                continue
            where = f"{row.graph} on {row.engine}, batch {row.batch}, {row.output}"
            if row.max_error <= row.limit.tolerance:
                return f"{where}: {row.psnr_db:.1f} dB, at least {row.limit.min_psnr_db:.1f} dB"
            return f"{where}: error {row.max_error:.2e}, tolerance {row.limit.tolerance:.2e}"
        return None


def compare_engines(
    bundle: Bundle,
    engines: Sequence[str],
    files: Sequence[Path] = (),
    *,
    backend: EngineOptions | None = None,
    results: Path | None = None,
    progress: Progress = lambda _: None,
) -> Comparison:
    """Run every graph on every engine and compare with PyTorch, and with the files' results.

    Args:
        bundle: an opened bundle.
        engines: words of `stpl_runtime.engine.ENGINES`, or `auto`.
        files: results that `results` kept on other machines, of the same bundle.
        backend: threads, required provider, and how TensorRT makes forecasts.
        results: keep all outputs here, as Polygraphy's RunResults in JSON.
        progress: given what runs now.

    Raises:
        UsageError: a file that is not of this bundle, an unknown engine, a `results` that is there.
        MissingExtraError: Polygraphy is not installed.
        AccuracyError: nothing moves in the sequences of an int8 bundle.
    """
    if results is not None and results.exists():
        raise UsageError(
            f"{results} already exists", expected="a new file", fix="another --results"
        )
    reference = load_reference(bundle)
    refuse_dead(bundle, reference)
    judge = _Judge(reference, bundle.manifest.precision)
    with quiet():
        loaded = {path.name: load_results(path, reference) for path in files}
        ours = _run_all(bundle, engines, reference, backend or EngineOptions(), progress)
        rows = [*judge.rows(ours.runs)]
        between: list[Row] = []
        for name, runs in loaded.items():
            rows += judge.rows(runs, f" of {name}")
            between += judge.between(ours.runs, runs, name)
        if results is not None:
            _save(results, reference, ours.runs)
    return Comparison(
        data=reference.data,
        sequences=len(reference.context),
        providers=ours.providers,
        unable=ours.unable,
        rows=tuple(rows),
        between=tuple(between),
    )


@dataclass
class _Ours:
    """What ran here."""

    runs: Any
    """Polygraphy's RunResults."""
    providers: dict[str, str]
    unable: dict[str, str]


def _run_all(
    bundle: Bundle,
    engines: Sequence[str],
    reference: Reference,
    backend: EngineOptions,
    progress: Progress,
) -> _Ours:
    from polygraphy.comparator import Comparator, RunResults

    ours = _Ours(RunResults(), {}, {})
    graphs: tuple[GraphName, ...] = tuple(bundle.manifest.graphs)
    for engine in dict.fromkeys(engines):
        try:
            with _session(bundle, graphs, engine, backend) as session:
                label = engine_label(session, bundle.manifest.precision)
                if label in ours.providers:  # by another of its words
                    continue
                progress(f"{label} on {session.provider}: {', '.join(graphs)}")
                runners = [session_runner(session, label, graph, reference) for graph in graphs]
                batches = batches_of(bundle, session.engine, len(reference.context))
                made = Comparator.run(runners, data_loader=_feeds(reference, batches))
                ours.providers[label] = session.provider
        except (EnvironmentFault, BundleError) as error:  # no driver, no library, no plan
            ours.unable[engine] = str(error)
            progress(f"{engine} cannot run here: {error}")
            continue
        ours.runs.lst += made.lst
    return ours


@contextmanager
def _session(
    bundle: Bundle, graphs: tuple[GraphName, ...], engine: str, backend: EngineOptions
) -> Iterator[Session]:
    session = open_session(
        bundle,
        graphs,
        engine=engine,
        threads=backend.threads,
        require_provider=backend.require_provider,
        forecast=backend.forecast if engine in ("auto", "trt", "trt-rtx") else "auto",
        allow=backend.allow if engine.startswith(("auto", "openvino")) else None,
    )
    try:
        yield session
    finally:
        session.close()


def _feeds(reference: Reference, batches: Sequence[int]) -> list[dict[str, Any]]:
    return [{"context": np.ascontiguousarray(reference.context[:size])} for size in batches]


class _Judge:
    """Polygraphy's verdict on outputs, with the bundle's limits."""

    def __init__(self, reference: Reference, precision: str) -> None:
        self.reference, self.precision = reference, precision

    def limits(self, label: str) -> dict[str, Limit]:
        """The limits of an engine, which may run in less than the bundle's precision."""
        precision = label_precision(label) or self.precision
        return limits_of(self.reference, precision, label.partition("(")[0])

    def rows(self, runs: Any, of: str = "") -> Iterator[Row]:
        """Every output of every runner but PyTorch's own against PyTorch."""
        from polygraphy.comparator import Comparator, IterationResult, RunResults

        for name, iterations in runs.items():
            if name == PYTORCH:
                continue
            for result in iterations:
                batch = len(result["lead 1"])
                feeds = _feeds(self.reference, [batch])
                made = Comparator.run([pytorch_runner(self.reference)], data_loader=feeds)
                exact = {n: values for n, values in made[0][1][0].items() if n in result}
                both = RunResults()
                both.append((PYTORCH, [IterationResult(exact, runner_name=PYTORCH)]))
                both.append((name, [result]))
                yield from self._compared(both, self.limits(split_name(name)[0]), of)

    def between(self, ours: Any, theirs: Any, file: str) -> Iterator[Row]:
        """The lead times of each graph here against the same graph's in a file.

        Each may be its tolerance away from PyTorch, so that two may be both that far apart.
        """
        from polygraphy.comparator import IterationResult, RunResults

        for name, iterations in ours.items():
            for other, others in theirs.items():
                if other == PYTORCH or split_name(other)[1] != split_name(name)[1]:
                    continue
                limits = self._apart(split_name(name)[0], split_name(other)[0])
                for one, two in same_batch(iterations, others):
                    pair = RunResults()
                    for who, result in ((other, two), (name, one)):
                        kept = {lead: result[lead] for lead in limits}
                        pair.append((who, [IterationResult(kept, runner_name=who)]))
                    beside = f" beside {split_name(other)[0]} of {file}"
                    yield from self._compared(pair, limits, beside)

    def _apart(self, one: str, other: str) -> dict[str, Limit]:
        """How far two engines may be from each other at each lead time."""
        ours, theirs = self.limits(one), self.limits(other)
        return {
            name: Limit(limit.tolerance + theirs[name].tolerance)
            for name, limit in ours.items()
            if name.startswith("lead ")
        }

    def _compared(self, pair: Any, limits: dict[str, Limit], of: str) -> Iterator[Row]:
        from polygraphy.comparator import Comparator

        exact, found = pair[0][1][0], pair[1][1][0]
        name = pair[1][0]
        engine, graph = split_name(name)
        values = {output: exact[output] for output in exact}
        gaps, psnrs = Comparator.compare_accuracy(pair, compare_func=comparisons(limits, values))
        key = (pair[0][0], name)
        for output, gap in gaps[key][0].items():
            psnr = psnrs[key][0][output]
            whole = not isinstance(gap, bool)  # False where the shapes differ
            yield Row(
                engine=f"{engine}{of}",
                graph=graph,
                batch=len(found["lead 1"]),
                output=output,
                max_error=gap.max_absdiff if whole else np.inf,
                limit=limits[output],
                psnr_db=psnr.psnr - peak_db(values[output]) if whole else -np.inf,
                passed=bool(gap) and bool(psnr),
            )


def _save(path: Path, reference: Reference, runs: Any) -> None:
    """Keep what ran here, with PyTorch's results first, which name the bundle."""
    from polygraphy.comparator import Comparator, RunResults

    batches = sorted({len(one["lead 1"]) for its in runs.values() for one in its}, reverse=True)
    feeds = _feeds(reference, batches or [len(reference.context)])
    kept: Any = RunResults()
    kept.lst += Comparator.run([pytorch_runner(reference)], data_loader=feeds).lst
    kept.lst += runs.lst
    with atomic_file(path) as file:
        file.write(kept.to_json().encode())
