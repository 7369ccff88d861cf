"""The closed-loop check: every way to run the rollout against PyTorch's own outputs.

Runs on any device from the bundle's `reference.npz`, without PyTorch. The engine's error is its
difference from PyTorch's float64 outputs; the tolerance comes with the reference (see there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import (
    AccuracyReport,
    Bundle,
    GraphAccuracy,
    GraphName,
    Int8Accuracy,
    LeadAccuracy,
)
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError
from stpl_runtime.engine import (
    KeepsStates,
    ReportsFacts,
    Session,
    StateHandle,
    closed_loop,
    free_run,
    open_session,
    precision_of,
)
from stpl_runtime.proof.int8_margin import early_margin_db, psnr_of
from stpl_runtime.proof.live_sequences import live_sequences
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_runtime.proof.tolerance import (
    TASK_BUDGET_DB,
    lead_psnr_db,
    lead_tolerance,
    output_tolerance,
    state_tolerance,
)

_Run = tuple[Array, StateHandle | None]


def verify_bundle(
    bundle: Bundle,
    *,
    engine: str = "onnx",
    threads: int | None = None,
    forecast: str = "auto",
    allow: str | None = None,
    require_provider: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> AccuracyReport:
    """Run every graph of the bundle over its reference sequences and judge each lead time.

    Each graph runs all sequences in one batch, and the first one alone.

    Args:
        bundle: an opened bundle.
        engine: a word of `stpl_runtime.engine.ENGINES`, or `auto`.
        threads: compute threads; None takes what this process may use.
        forecast: and
        allow: and
        require_provider: see `open_session`.
        progress: given what runs now.

    Raises:
        AccuracyError: nothing moves in the sequences of an int8 bundle.
    """
    reference = load_reference(bundle)
    refuse_dead(bundle, reference)
    graphs: tuple[GraphName, ...] = tuple(bundle.manifest.graphs)
    session = open_session(
        bundle,
        graphs,
        engine=engine,
        threads=threads,
        forecast=forecast,
        allow=allow,
        require_provider=require_provider,
    )
    try:
        if isinstance(session, KeepsStates):
            session.prove()
        precision = precision_of(session, bundle.manifest)
        batches = batches_of(bundle, session.engine, len(reference.context))
        report = progress or (lambda _: None)
        checks = tuple(check_session(session, graphs, reference, precision, batches, report))
        for what, fact in session.facts().items() if isinstance(session, ReportsFacts) else ():
            report(f"{what}: {fact}")
    finally:
        session.close()
    return AccuracyReport(data=reference.data, sequences=len(reference.context), checks=checks)


def refuse_dead(bundle: Bundle, reference: Reference) -> None:
    """Refuse to judge int8 by frames that no precision could fail on."""
    if bundle.manifest.precision != "int8":
        return
    if not live_sequences(np.concatenate([reference.context, reference.truth], axis=1)).any():
        raise AccuracyError(
            f"nothing moves in the {len(reference.context)} sequences of {reference.data} that "
            "came with the bundle: they prove nothing of int8",
            expected="sequences in which something is and moves",
            fix="export the run again",
        )


def first_breach(report: AccuracyReport) -> str | None:
    """Say which check failed first and by how much; None where all passed."""
    return next((breach for check in report.checks if (breach := breach_of(check))), None)


def breach_of(check: GraphAccuracy) -> str | None:
    """Say what failed first and by how much; None where all passed."""
    where = f"{check.path} on {check.provider}, batch {check.batch}"
    for lead in check.leads:
        if not lead.passed:
            if lead.max_error <= lead.tolerance:
                return (
                    f"{where}: {lead.psnr_db:.1f} dB at lead time {lead.lead}, "
                    f"at least {lead.min_psnr_db:.0f} dB promised"
                )
            return (
                f"{where}: error {lead.max_error:.2e} at lead time {lead.lead}, "
                f"tolerance {lead.tolerance:.2e}"
            )
    int8 = check.int8
    if int8 is not None and int8.budget_db and int8.psnr_change_db < -int8.budget_db:
        return (
            f"{where}: PSNR against truth changes by {int8.psnr_change_db:+.2f} dB, "
            f"-{int8.budget_db:g} dB promised"
        )
    if int8 is not None and not int8.passed:
        return (
            f"{where}: the first steps are {-(int8.early_margin_db or 0.0):.1f} dB further "
            "from the quantised graph than kernels may be"
        )
    for what, error in (("state", check.state_error), ("chances", check.output_error)):
        if error is not None and not error <= 1.0:
            return f"{where}: error of the {what} {error} times its tolerance"
    return None


def check_session(
    session: Session,
    graphs: Sequence[GraphName],
    reference: Reference,
    precision: str,
    batches: Sequence[int],
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[GraphAccuracy]:
    """Judge an open session, each graph at each batch.

    Args:
        session: with `graphs` open, and `step` for `forecast`.
        graphs: which to run.
        reference: of its bundle.
        precision: what it is judged as.
        batches: sequences at once.
        progress: given what runs now.
    """
    for batch in batches:
        for graph in graphs:
            progress(f"{graph}, batch {batch}")
            frames, state = run_graph(session, graph, reference, batch)
            yield GraphAccuracy(
                engine=session.engine,
                provider=session.provider,
                path=graph,
                batch=batch,
                leads=_leads(frames, reference, precision, batch),
                state_error=None
                if state is None or isinstance(session, KeepsStates)
                else _state_error(session, state, reference, precision),
                output_error=_output_error(session, graph, reference, precision, batch),
                int8=_int8(session, graph, frames, reference, batch),
            )


def batches_of(bundle: Bundle, engine: str, most: int) -> list[int]:
    """All sequences at once, and the first alone; plans have their own fixed batches."""
    built = {spec.batch for spec in bundle.manifest.engines if spec.engine == engine}
    sizes = {size for size in built if size <= most} if built else {most, 1}
    return sorted(sizes, reverse=True)


def run_graph(session: Session, graph: GraphName, reference: Reference, batch: int) -> _Run:
    """K frames `(B, K, C, H, W)` of the first `batch` sequences, and `forecast`'s state after."""
    context = reference.context[:batch]
    horizon = reference.truth.shape[1]
    if graph == "rollout":
        return session.rollout(np.ascontiguousarray(context)), None
    if graph == "step":
        return closed_loop(session, context, horizon), None
    state = session.zero_state(batch)
    for t in range(context.shape[1] - 1):
        _, state = session.step(np.ascontiguousarray(context[:, t]), state)
    return session.forecast(np.ascontiguousarray(context[:, -1]), state)


def _leads(
    frames: Array, reference: Reference, precision: str, batch: int
) -> tuple[LeadAccuracy, ...]:
    exact = reference.float64[:batch]
    truth = reference.kept(reference.truth[:batch])
    finite = np.isfinite(frames).all()  # of every pixel, whichever are kept
    frames = reference.kept(frames)
    error = np.abs(frames.astype(np.float64) - exact)  # (B, K, C, H, W)
    seen = where_observed(reference, batch)  # (B, K, 1, H, W)
    leads = []
    for k in range(error.shape[1]):
        squared = float(np.mean(np.square(error[:, k])))
        ours = _mse(frames[:, k].astype(np.float64) - truth[:, k], seen[:, k])
        theirs = _mse(exact[:, k] - truth[:, k], seen[:, k])
        leads.append(
            LeadAccuracy(
                lead=k + 1,
                max_error=float(error[:, k].max()) if finite else float("inf"),
                mean_error=float(error[:, k].mean()) if finite else float("inf"),
                psnr_db=-10.0 * float(np.log10(squared)) if finite and squared > 0 else None,
                tolerance=lead_tolerance(reference, precision, k),
                min_psnr_db=lead_psnr_db(reference, precision, k),
                mse_change=ours / theirs - 1.0 if finite and theirs > 0 else 0.0,
            )
        )
    return tuple(leads)


def _int8(
    session: Session, graph: GraphName, frames: Array, reference: Reference, batch: int
) -> Int8Accuracy | None:
    if reference.int8 is None:
        return None
    margin = None
    if graph == "step":
        guesses = early_guesses(session, reference, batch)
        margin = early_margin_db(guesses, reference.int8, session.engine)
    frames, truth = reference.kept(frames), reference.kept(reference.truth[:batch])
    seen = where_observed(reference, batch)
    ours, theirs = (
        _mse(some.astype(np.float64) - truth, seen) for some in (frames, reference.float64[:batch])
    )
    return Int8Accuracy(
        psnr_change_db=psnr_of(ours) - psnr_of(theirs),
        budget_db=TASK_BUDGET_DB if batch == len(reference.context) else None,
        early_margin_db=margin,
    )


def early_guesses(session: Session, reference: Reference, batch: int) -> Array:
    """What is kept of the guesses after the first n frames of an int8 bundle: `(B, n, C, H, W)`."""
    assert reference.int8 is not None
    state = session.zero_state(batch)
    guesses = []
    for t in range(reference.int8.early.shape[1]):
        frame = np.ascontiguousarray(reference.context[:batch, t])
        guess, state = session.step(frame, state)
        guesses.append(guess)
    return np.asarray(reference.kept(np.stack(guesses, axis=1)), np.float32)


def where_observed(reference: Reference, batch: int) -> NDArray[np.bool_]:
    """Where the truth is one, `(B, K, 1, H, W)`, of the pixels that are kept."""
    truth = reference.truth[:batch]
    if reference.observed is None:
        return np.ones((*truth.shape[:2], 1, 1, 1), np.bool_)
    seen = reference.observed[:batch, -truth.shape[1] :, None]
    return np.asarray(reference.kept(seen), np.bool_)


def _output_error(
    session: Session, graph: GraphName, reference: Reference, precision: str, batch: int
) -> float | None:
    """Greatest error of what is given beside the frames, as a multiple of its tolerance.

    Of the first sequence alone, by the step graph, which alone gives it.
    """
    if graph != "step" or not reference.outputs:
        return None
    worst = 0.0
    *earlier, newest = np.swapaxes(reference.context[:batch], 0, 1)  # (B, C, H, W) each
    state = session.zero_state(batch)
    for frame in earlier:
        _, state = session.step(np.ascontiguousarray(frame), state)
    steps = free_run(
        session,
        np.ascontiguousarray(newest),
        state,
        reference.truth.shape[1],
        tuple(reference.outputs),
    )
    for k, (_, given, _) in enumerate(steps):
        for name, expected in reference.outputs.items():
            found = given[name][0].reshape(-1)
            gap = np.abs(found[expected.places] - expected.values[k]).max()
            share = float(gap / output_tolerance(reference, precision, name)[k])
            worst = max(worst, share if np.isfinite(found).all() else float("inf"))
    return worst


def _mse(gap: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    """Mean square of `(B, C, H, W)` where `(B, 1, H, W)` is true; 0 where it never is."""
    counted = np.broadcast_to(where, gap.shape)
    return float(np.square(gap).sum(where=counted) / max(1, counted.sum()))


def _state_error(
    session: Session, state: StateHandle, reference: Reference, precision: str
) -> float:
    """Greatest state error of the first sequence as a multiple of its tolerance."""
    arrays = session.state_arrays(state)
    worst = 0.0
    for name, expected in reference.states.items():
        whole = arrays[name][:1]
        gap = np.abs(expected.kept(whole).astype(np.float64) - expected.values).max()
        gap = gap if np.isfinite(whole).all() else np.inf
        allowed = state_tolerance(reference, precision, name)
        worst = max(worst, float(gap) / allowed if np.isfinite(gap) else float("inf"))
    return worst
