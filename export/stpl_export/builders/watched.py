"""What a build writes, says and is interrupted by: graph file, log, progress, Ctrl-C."""

from __future__ import annotations

import gc
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Progress = Callable[[str], None]


@contextmanager
def graph_file(graph: bytes, weights_beside: Path) -> Iterator[Path | None]:
    """The graph as a file beside its weights, where the parser looks for them; None for none."""
    if not weights_beside.is_file():
        yield None
        return
    path = weights_beside.with_name(f".{secrets.token_hex(4)}.onnx")
    try:
        path.write_bytes(graph)
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def no_collection() -> Iterator[None]:
    """Let Python's garbage collector rest.

    The builder sends some 20 lines of log for each layer; their strings would make Python search
    all of PyTorch's objects for garbage again and again, a sixth of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def make_logger(trt: Any) -> Any:
    """A logger that keeps warnings and errors; the library's own writes on stdout."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                self.warnings.append(message)
                sys.stderr.write(f"{message}\n")
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def clear(self) -> None:
            self.warnings.clear()
            self.errors.clear()

        def last(self) -> str:
            return self.errors[-1] if self.errors else "it gives no reason"

    return Logger()


def make_monitor(trt: Any, progress: Progress, every_s: float = 2.0) -> Any:
    """A progress monitor that names the innermost phase now and then, and hears Ctrl-C."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self.steps: dict[str, int] = {}
            self.reported = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                now = time.monotonic()
                if now - self.reported >= every_s:
                    self.reported = now
                    progress(f"{phase_name}: {step + 1} of {self.steps.get(phase_name, '?')}")
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

    return Monitor()
