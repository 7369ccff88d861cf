"""What all tests share."""

from __future__ import annotations

import os

# Before numpy or torch is imported: tiny tensors gain nothing from threads, and a busy machine
# loses by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests that name no engine are about the one that was always the default, freshly compiled: those
# about `auto` and about the cache say so.
os.environ.setdefault("STPL_ENGINE", "onnx")
os.environ.setdefault("STPL_CACHE_MB", "0")

import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from stpl_core.errors import StplError
from tests.advice import Refusal, next_lines, refusal_of, typed
from tests.exported_once import exported_once as exported_once

# How fast examples are drawn says how busy the machine is, not whether the code is right.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")

Cli = Callable[..., subprocess.CompletedProcess[str]]


def pytest_configure() -> None:
    """Pin a parallel worker to a CPU of its own, so that no engine's threads fight another's."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[int(worker.removeprefix("gw")) % len(cpus)]})


_refused: list[Refusal] = []
"""By the test that runs now."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """What a refused command line was advised is typed after the test, and has to lead on."""
    from stpl_deploy import cli

    report = cli._report

    def noted(error: Exception, words: Sequence[str]) -> int:
        if isinstance(error, StplError):
            message = " ".join(str(error).split())
            _refused.append(Refusal(tuple(words), Path.cwd(), message))
        return report(error, words)

    _refused.clear()
    cli._report = noted
    try:
        result = yield
    finally:
        cli._report = report
    for refusal in tuple(dict.fromkeys(_refused)):
        for line in next_lines(refusal):
            if wrong := typed(refusal, line):
                pytest.fail(wrong, pytrace=False)
    return result


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run `stpl-deploy` with arguments in a process of its own."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stpl_deploy", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
            **options,
        )
        if refusal := refusal_of(arguments, options.get("cwd") or Path.cwd(), done.stderr):
            _refused.append(refusal)
        return done

    return run


@pytest.fixture
def cli_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """As `cli`, in this process: a start takes seconds where torch or xarray is needed."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        from stpl_deploy.cli import run

        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        code = run(words)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def _budget_of_a_fresh_process() -> Iterator[None]:
    """A verb that opened a bundle leaves that bundle's budget of pixels in the process."""
    yield
    from stpl_core.safety.budget import set_most_pixels

    set_most_pixels(None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]
