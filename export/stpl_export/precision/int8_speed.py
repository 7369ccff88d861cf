"""int8 against fp32 on this machine: both engines in one process, in turn, each on its own graphs.

What is timed is what a nowcast waits for: one call of `forecast` at batch 1, from the state that
the context left. Rounds follow one another until there are enough, so that a machine that slows
down slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from stpl_core.bundle import AccuracyReport, Bundle, Speed
from stpl_core.errors import SpeedError
from stpl_core.machine import cpu_name, usable_cpus
from stpl_runtime.engine import Session, open_session
from stpl_runtime.proof.reference import load_reference

LEAST_GAIN = 1.05
"""int8 costs accuracy: it must be at least so many times as fast."""
_WARM, _LEAST_ROUNDS, _MOST_ROUNDS = 2, 9, 60
_SECONDS = 5.0


def measure_speed(int8: Bundle, fp32: Bundle) -> Speed:
    """Time one forecast of each in turn.

    Args:
        int8: an opened bundle.
        fp32: of the same run.
    """
    threads = usable_cpus()
    sessions = [
        open_session(bundle, ["step", "forecast"], threads=threads) for bundle in (int8, fp32)
    ]
    frames = load_reference(int8).context[:1]  # (1, T, C, H, W)
    calls = [_forecast(session, frames) for session in sessions]
    times: list[tuple[float, float]] = []
    end = time.monotonic() + _SECONDS
    while len(times) < _WARM + _LEAST_ROUNDS or (
        time.monotonic() < end and len(times) < _WARM + _MOST_ROUNDS
    ):
        # Each goes first every other time.
        order = (0, 1) if len(times) % 2 else (1, 0)
        took = {n: _milliseconds(calls[n]) for n in order}
        times.append((took[0], took[1]))
    for session in sessions:
        session.close()
    ours, theirs = np.asarray(times[_WARM:]).T
    low, high = np.percentile(theirs / ours, (5, 95))
    return Speed(
        times=round(float(np.median(theirs) / np.median(ours)), 3),
        p05=round(float(low), 3),
        p95=round(float(high), 3),
        int8_ms=round(float(np.median(ours)), 3),
        fp32_ms=round(float(np.median(theirs)), 3),
        rounds=len(ours),
        threads=threads,
        machine=cpu_name(),
    )


def _forecast(session: Session, frames: np.ndarray[Any, Any]) -> Callable[[], Any]:
    state = session.zero_state(1)
    for t in range(frames.shape[1] - 1):
        _, state = session.step(np.ascontiguousarray(frames[:, t]), state)
    newest = np.ascontiguousarray(frames[:, -1])  # (1, C, H, W)
    return lambda: session.forecast(newest, state)


def _milliseconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def speed_line(speed: Speed) -> str:
    """The measurement in words."""
    return (
        f"int8 is {speed.times:.2f} times as fast as fp32 (single rounds {speed.p05:.2f} to "
        f"{speed.p95:.2f}; forecast {speed.int8_ms:.1f} ms against {speed.fp32_ms:.1f} ms, "
        f"{speed.threads} threads)"
    )


def check_speed(speed: Speed, report: AccuracyReport) -> None:
    """Raise SpeedError where int8 gains nothing; the message states its accuracy as well."""
    if speed.times >= LEAST_GAIN:
        return
    lasts = [check.leads[-1].psnr_db for check in report.checks]
    psnr = min((value for value in lasts if value is not None), default=float("inf"))
    changes = [
        check.int8.psnr_change_db
        for check in report.checks
        if check.int8 is not None and check.int8.budget_db is not None
    ]
    raise SpeedError(
        f"{speed_line(speed)}, and {psnr:.0f} dB from PyTorch at the last lead time, "
        f"PSNR against truth {min(changes):+.3f} dB",
        expected=f"at least {LEAST_GAIN:g} times as fast",
        fix="--precision fp32; or --keep-slower, for a bundle that another machine will run",
    )
