"""Times the candidates, and takes the fastest that passes the bundle's own verification."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median

import numpy as np

from stpl_core.bundle import Bundle, GraphName
from stpl_core.errors import AccuracyError, StplError
from stpl_runtime.engine import Session, closed_loop, held_to, precision_of
from stpl_runtime.engines.auto.candidates import Asked, Candidate, candidates, open_candidate
from stpl_runtime.engines.auto.table import (
    TIME_WAS_UP,
    Row,
    Table,
    free_cpus,
    load_now,
    read_table,
    versions,
    write_table,
)
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_runtime.proof.verify import breach_of, check_session

LONGEST_S = 20.0
"""No measuring takes longer."""
_NOWCASTS = 500
"""Measuring for a stream may take as long as so many nowcasts."""
_ROUNDS, _LONGEST_ROUNDS_S = 9, 1.0
_LEAST_ROUNDS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """What to run, and why."""

    candidate: Candidate
    line: str
    """For people; empty where there was nothing to choose."""


def choose(bundle: Bundle, asked: Asked) -> Choice:
    """The fastest of what was measured here before, else the first candidate; measures nothing.

    Raises:
        EnvironmentFault: nothing can run here.
        AccuracyError: nothing that was measured passed.
    """
    ways = candidates(bundle, asked)
    table = read_table(bundle, asked, load_now()) or _of_other_load(bundle, asked)
    if table is not None:
        return _best(bundle, table)
    if _nothing_to_choose(ways):
        return Choice(ways[0], "")
    way = f"stpl-deploy doctor {bundle.path} times the ways to run it"
    return Choice(ways[0], f"engine: {ways[0]}, not measured here; {way}")


def measured_choice(
    bundle: Bundle, asked: Asked, say: Say, *, most_s: float | None = None
) -> Choice:
    """The fastest that this machine has; measured now, where that was not done before.

    Args:
        bundle: an opened bundle.
        asked: what is fixed.
        say: given a line of progress.
        most_s: how long measuring may take; None: as long as it pays for a stream.

    Raises:
        EnvironmentFault: nothing can run here.
        AccuracyError: nothing passed the bundle's verification.
    """
    ways = candidates(bundle, asked)
    if _nothing_to_choose(ways):
        return Choice(ways[0], "")
    return _best(bundle, measured_table(bundle, asked, say, most_s=most_s))


def measured_table(bundle: Bundle, asked: Asked, say: Say, *, most_s: float | None = None) -> Table:
    """The table that holds here and now, measured where there is none; see `measured_choice`."""
    load, limit = load_now(), LONGEST_S if most_s is None else most_s
    table = read_table(bundle, asked, load)
    if table is None or (most_s is not None and not table.holds_for(limit)):
        ways = candidates(bundle, asked, free_cpus() if load == "shared" else None)
        say(f"engine: timing {len(ways)} ways to run this bundle, once, for {limit:.0f} s at most")
        rows, limit = _measure(bundle, asked, ways, limit, pays=most_s is None)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        table = Table(rows, now, load, asked.graphs, versions(), limit)
        if table.best is not None:
            write_table(bundle, asked, table)
    return table


def open_auto(
    bundle: Bundle,
    graphs: Sequence[GraphName],
    threads: int | None,
    require_provider: str | None,
    forecast: str,
    allow: str | None,
) -> Session:
    """What `open_session` does with `--engine auto`: the choice, without measuring."""
    asked = Asked(tuple(graphs), threads, forecast, allow)
    return open_best(bundle, asked, None, measure=False, require_provider=require_provider)


def open_best(
    bundle: Bundle,
    asked: Asked,
    say: Say | None,
    *,
    measure: bool,
    require_provider: str | None = None,
) -> Session:
    """Choose, say what, and open it; see `choose`, `measured_choice` and `open_session`."""
    say = say or (lambda _: None)
    choice = measured_choice(bundle, asked, say) if measure else choose(bundle, asked)
    if choice.line:
        say(choice.line)
    return held_to(open_candidate(bundle, asked, choice.candidate), require_provider)


def _of_other_load(bundle: Bundle, asked: Asked) -> Table | None:
    return read_table(bundle, asked, "quiet") or read_table(bundle, asked, "shared")


def _best(bundle: Bundle, table: Table) -> Choice:
    best = table.best
    if best is None:
        notes = "; ".join(f"{row.candidate.engine}: {row.note}" for row in table.rows)
        raise AccuracyError(
            f"no engine runs {bundle.path} as PyTorch did: {notes[:600]}",
            expected="one that passes the bundle's own verification",
            fix=f"stpl-deploy verify {bundle.path} --engine onnx",
        )
    others = [row for row in table.rows if row.ms and row.candidate.engine != best.candidate.engine]
    rest = ""
    if others:
        second = min(others, key=lambda row: row.ms or 0.0)
        rest = f"; {second.candidate.engine} {second.ms:.1f} ms"
    line = f"engine: {best.candidate}: {best.ms:.1f} ms a nowcast{rest}"
    return Choice(best.candidate, f"{line} (measured {table.measured[:10]}, {table.load} machine)")


def _measure(
    bundle: Bundle, asked: Asked, ways: tuple[Candidate, ...], limit: float, *, pays: bool
) -> tuple[tuple[Row, ...], float]:
    """Each candidate in turn, as long as there is time for one more; and how long that was.

    Args:
        bundle: an opened bundle.
        asked: what is fixed.
        ways: the candidates.
        limit: seconds.
        pays: end earlier where so much time would not be won back by a stream.
    """
    reference = load_reference(bundle)
    began, rows, longest = time.monotonic(), list[Row](), 0.0
    for candidate in ways:
        spent = time.monotonic() - began
        if rows and spent + longest > limit:
            rows.append(Row(candidate, None, note=TIME_WAS_UP))
            continue
        row = _row(bundle, asked, candidate, reference)
        rows.append(row)
        longest = max(longest, time.monotonic() - began - spent)
        if pays and row.ms is not None:
            limit = min(limit, _NOWCASTS * row.ms / 1e3)
    return tuple(rows), limit


def _nothing_to_choose(ways: Sequence[Candidate]) -> bool:
    """Whether all have one engine and one CPU."""
    return len({(one.engine, one.threads) for one in ways}) == 1


def _row(bundle: Bundle, asked: Asked, candidate: Candidate, reference: Reference) -> Row:
    began = time.monotonic()
    try:
        session = open_candidate(bundle, asked, candidate)
    except StplError as error:
        return Row(candidate, None, note=error.found)
    opened_s = time.monotonic() - began
    try:
        wrong = _breach(bundle, asked, session, reference)
        if wrong is not None:
            return Row(candidate, None, opened_s, wrong)
        return Row(candidate, round(nowcast_ms(session, bundle, asked, reference), 3), opened_s)
    except StplError as error:
        return Row(candidate, None, opened_s, error.found)
    finally:
        session.close()


def _breach(bundle: Bundle, asked: Asked, session: Session, reference: Reference) -> str | None:
    """What verification finds wrong of the graphs that would run, on one sequence."""
    precision = precision_of(session, bundle.manifest)
    graphs = [graph for graph in asked.graphs if graph in bundle.manifest.graphs]
    for check in check_session(session, graphs, reference, precision, [1]):
        wrong = breach_of(check)
        if wrong is not None:
            return wrong
    return None


def nowcast_ms(session: Session, bundle: Bundle, asked: Asked, reference: Reference) -> float:
    """Median milliseconds from the newest frame's arrival to its nowcast; the prefix ran before."""
    frames = reference.context[:1]  # (1, T, C, H, W)
    newest = np.ascontiguousarray(frames[:, -1])  # (1, C, H, W)
    state = session.zero_state(1)
    for t in range(frames.shape[1] - 1 if "step" in asked.graphs else 0):
        _, state = session.step(np.ascontiguousarray(frames[:, t]), state)
    unrolled, horizon = "forecast" in asked.graphs, bundle.manifest.horizon
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < _ROUNDS:
        start = time.perf_counter()
        if unrolled:
            session.forecast(newest, state)
        else:
            closed_loop(session, newest[:, None], horizon)
        times.append(time.perf_counter() - start)
        if len(times) >= _LEAST_ROUNDS and time.perf_counter() - began > _LONGEST_ROUNDS_S:
            break
    return 1e3 * median(times[1:])  # the first warms up
