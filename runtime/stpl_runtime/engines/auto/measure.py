"""Times candidates, one after the other, and those that are nearly as fast in turn."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import numpy as np

from stpl_core.bundle import Bundle
from stpl_core.errors import StplError
from stpl_runtime.engine import Session, closed_loop, precision_of
from stpl_runtime.engines.auto.candidates import Asked, Candidate, open_candidate
from stpl_runtime.engines.auto.table import TIME_WAS_UP, Row
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_runtime.proof.verify import breach_of, check_session

_NOWCASTS = 500
"""Measuring for a stream may take as long as so many nowcasts."""
_ROUNDS, _LONGEST_ROUNDS_S = 9, 1.0
_LEAST_ROUNDS = 3
_CLOSE, _TURNS = 1.2, 5
"""Two that differ by no more are timed in turn, so often each: a machine is not as fast at one
moment as at another."""

Open = tuple[int, Session]
"""A row of the table, and its session."""


def measure(
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
    leader: Open | None = None
    try:
        for candidate in ways:
            spent = time.monotonic() - began
            if rows and spent + longest > limit:
                rows.append(Row(candidate, None, note=TIME_WAS_UP))
                continue
            row, session = _tried(bundle, asked, candidate, reference)
            rows.append(row)
            if session is not None:
                leader = _faster(bundle, asked, reference, rows, leader, (len(rows) - 1, session))
            longest = max(longest, time.monotonic() - began - spent)
            if pays and row.ms is not None:
                limit = min(limit, _NOWCASTS * row.ms / 1e3)
    finally:
        if leader is not None:
            leader[1].close()
    return tuple(rows), limit


def _tried(
    bundle: Bundle, asked: Asked, candidate: Candidate, reference: Reference
) -> tuple[Row, Session | None]:
    """Its row; and its session, open, where it may be taken."""
    began = time.monotonic()
    try:
        session = open_candidate(bundle, asked, candidate)
    except StplError as error:
        return Row(candidate, None, note=error.found), None
    opened_s = time.monotonic() - began
    try:
        wrong = _breach(bundle, asked, session, reference)
        if wrong is None:
            ms = round(nowcast_ms(session, bundle, asked, reference), 3)
            return Row(candidate, ms, opened_s), session
    except StplError as error:
        wrong = error.found
    except BaseException:
        session.close()
        raise
    session.close()
    return Row(candidate, None, opened_s, wrong), None


def _faster(
    bundle: Bundle, asked: Asked, reference: Reference, rows: list[Row], leader: Open | None,
    other: Open,
) -> Open:  # fmt: skip
    """Of two the faster one; their rows say by how much, and the other one is closed."""
    if leader is None:
        return other

    def ms(one: Open) -> float:
        return rows[one[0]].ms or 0.0

    both = (leader, other)
    if max(map(ms, both)) <= _CLOSE * min(map(ms, both)):
        times: dict[int, list[float]] = {row: [] for row, _ in both}
        for _ in range(_TURNS):
            for row, session in both:
                times[row].append(nowcast_ms(session, bundle, asked, reference, _LEAST_ROUNDS))
        for row, found in times.items():
            rows[row] = replace(rows[row], ms=round(median(found), 3))
    fast, slow = sorted(both, key=ms)
    slow[1].close()
    return fast


def _breach(bundle: Bundle, asked: Asked, session: Session, reference: Reference) -> str | None:
    """What verification finds wrong of the graphs that would run, on one sequence."""
    precision = precision_of(session, bundle.manifest)
    graphs = [graph for graph in asked.graphs if graph in bundle.manifest.graphs]
    for check in check_session(session, graphs, reference, precision, [1]):
        wrong = breach_of(check)
        if wrong is not None:
            return wrong
    return None


def nowcast_ms(
    session: Session, bundle: Bundle, asked: Asked, reference: Reference, rounds: int = _ROUNDS
) -> float:
    """Median milliseconds from the newest frame's arrival to its nowcast; the prefix ran before."""
    frames = reference.context[:1]  # (1, T, C, H, W)
    newest = np.ascontiguousarray(frames[:, -1])  # (1, C, H, W)
    state = session.zero_state(1)
    for t in range(frames.shape[1] - 1 if "step" in asked.graphs else 0):
        _, state = session.step(np.ascontiguousarray(frames[:, t]), state)
    unrolled, horizon = "forecast" in asked.graphs, bundle.manifest.horizon
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < rounds:
        start = time.perf_counter()
        if unrolled:
            session.forecast(newest, state)
        else:
            closed_loop(session, newest[:, None], horizon)
        times.append(time.perf_counter() - start)
        if len(times) >= _LEAST_ROUNDS and time.perf_counter() - began > _LONGEST_ROUNDS_S:
            break
    return 1e3 * median(times[1:])  # the first warms up
