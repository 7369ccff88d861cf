"""Progress of training on stderr: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Protocol, TextIO

from stpl_train.checkpoint import ValidationRow

_EVERY_S = 0.2  # between redraws of the bar
_LINE_EVERY_S = 15.0  # between plain lines


class Reporter(Protocol):
    """Receives the progress of a training run, from the process of rank 0."""

    def note(self, line: str) -> None:
        """A line for the person, before the start."""
        ...

    def start(self, done: int, total: int) -> None:
        """`done` of `total` iterations are there already."""
        ...

    def wants_step(self) -> bool:
        """Whether `step` would show anything now (reading the loss makes a GPU wait)."""
        ...

    def step(self, done: int, loss: float) -> None:
        """`done` iterations; `loss` of the last optimiser step."""
        ...

    def validating(self, done: int, of: int) -> None:
        """`done` of `of` validation sequences are predicted."""
        ...

    def validated(self, row: ValidationRow, best: bool) -> None:
        """One validation; `best` where its weights were kept."""
        ...

    def close(self) -> None:
        """Training ended, for whatever reason."""
        ...


class Quiet:
    """Reports nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def start(self, done: int, total: int) -> None:
        """Nothing."""

    def wants_step(self) -> bool:
        """Never."""
        return False

    def step(self, done: int, loss: float) -> None:
        """Nothing."""

    def validating(self, done: int, of: int) -> None:
        """Nothing."""

    def validated(self, row: ValidationRow, best: bool) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Rate:
    """Iterations per second over the last steps, and the time that is left."""

    def __init__(self, done: int, total: int) -> None:
        """Start the clock at `done` of `total` iterations."""
        self._total = total
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)], maxlen=50)

    def mark(self, done: int) -> tuple[float, float]:
        """Note the time at `done` iterations; return iterations per second and seconds left."""
        now = time.monotonic()
        then, before = self._marks[0]
        self._marks.append((now, done))
        rate = (done - before) / max(now - then, 1e-9)
        return rate, (self._total - done) / rate if rate > 0 else 0.0


class Plain:
    """A line now and then, for logs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`, stderr by default."""
        self._stream = stream
        self._last = time.monotonic()
        self._total = 0
        self._rate: Rate | None = None

    def _print(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """One line."""
        self._print(line)

    def start(self, done: int, total: int) -> None:
        """Start the clock and announce the start: the first numbers may take a while."""
        verb = "resuming" if done else "training"
        self._print(f"iteration {done}/{total}  {verb}; Ctrl-C saves, --resume continues")
        self._rate, self._total = Rate(done, total), total
        self._last = time.monotonic()

    def wants_step(self) -> bool:
        """Every 15 seconds."""
        return time.monotonic() - self._last > _LINE_EVERY_S

    def step(self, done: int, loss: float) -> None:
        """One line with rate and time left."""
        assert self._rate is not None
        rate, left = self._rate.mark(done)
        self._last = time.monotonic()
        self._print(
            f"iteration {done}/{self._total}  loss {loss:.4g}  {rate:.1f} it/s  "
            f"{_duration(left)} left"
        )

    def validating(self, done: int, of: int) -> None:
        """A line where the last one is 15 seconds old."""
        if self.wants_step():
            self._last = time.monotonic()
            self._print(f"validating  {done}/{of} sequences")

    def validated(self, row: ValidationRow, best: bool) -> None:
        """One line with the errors."""
        self._last = time.monotonic()
        self._print(f"iteration {row.iteration}/{self._total}  {_verdict(row)}{_star(best)}")

    def close(self) -> None:
        """Nothing to take down."""


class Bar:
    """A progress bar with rate, loss, time left and the last validation."""

    def note(self, line: str) -> None:
        """One line."""
        print(line, file=sys.stderr, flush=True)

    def start(self, done: int, total: int) -> None:
        """Show the bar on stderr."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._last = 0.0
        self._rate = Rate(done, total)
        self._bar = Progress(
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]}  {task.fields[left]}  {task.fields[loss]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(
            "training", total=total, completed=done, loss="", rate="", left=""
        )
        self._bar.start()

    def wants_step(self) -> bool:
        """Five times a second."""
        return time.monotonic() - self._last > _EVERY_S

    def step(self, done: int, loss: float) -> None:
        """Move the bar."""
        rate, left = self._rate.mark(done)
        self._last = time.monotonic()
        self._bar.update(
            self._task,
            completed=done,
            loss=f"loss {loss:.4g}",
            rate=f"{rate:.1f} it/s",
            left=f"{_duration(left)} left",
        )

    def validating(self, done: int, of: int) -> None:
        """Show where it is in place of the loss."""
        self._bar.update(self._task, loss=f"validating {done}/{of}", rate="", left="")

    def validated(self, row: ValidationRow, best: bool) -> None:
        """Print a line above the bar."""
        text = f"iteration {row.iteration:>7}  {_verdict(row)}{_star(best)}"
        self._bar.console.print(text, highlight=False)

    def close(self) -> None:
        """Take the bar down."""
        self._bar.stop()


def make_reporter(quiet: bool = False) -> Reporter:
    """A bar where stderr is a terminal, plain lines where not, nothing where `quiet`."""
    if quiet:
        return Quiet()
    return Bar() if sys.stderr.isatty() else Plain()


def _verdict(row: ValidationRow) -> str:
    ahead = sum(m < p for m, p in zip(row.mse, row.persistence, strict=True))
    return (
        f"loss {row.loss:.4g}  validation MSE/frame {row.mean_mse:.4g}  "
        f"(persistence {row.mean_persistence:.4g}; better at {ahead} of {len(row.mse)} lead times)"
    )


def _star(best: bool) -> str:
    return "  best so far" if best else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d}"
