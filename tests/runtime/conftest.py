"""A committed bundle, its sessions, and frames: none of it needs torch or onnx."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.codec import Array
from stpl_core.frames import Frame
from stpl_runtime.engine import Session, open_session
from stpl_runtime.links.health import Health
from stpl_runtime.source import Arrival, BadFrame
from stpl_runtime.streaming.report import StreamReport
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams

DATA = Path(__file__).parents[1] / "data"
BUNDLES = ("convlstm-tiny", "modernn-mini")
START = datetime(2026, 1, 31, 23, 50, tzinfo=timezone.utc)
CADENCE_S = 300.0


def slot_time(slot: float) -> datetime:
    """When slot `slot` of the tests' grid is."""
    return START + timedelta(seconds=slot * CADENCE_S)


def picture(slot: int, shape: tuple[int, int, int] = (1, 16, 16)) -> Array:
    """The frame that belongs to `slot`: differs for every slot."""
    return np.random.default_rng(slot % 10_007).random(shape, dtype=np.float32)


def make_frame(slot: int, shape: tuple[int, int, int] = (1, 16, 16), *, variant: int = 0) -> Frame:
    """Slot `slot`'s frame, or a correction of it."""
    data = picture(slot, shape) if variant == 0 else picture(5000 + slot * 7 + variant, shape)
    return Frame(slot_time(slot), data, source_id=f"f{slot}")


def open_named(name: str) -> Bundle:
    """One of the committed bundles."""
    path = DATA / f"{name}.bundle"
    if not path.is_dir():
        pytest.skip(f"no bundle {path.name}")
    return open_bundle(path)


@pytest.fixture(scope="session", params=BUNDLES)
def any_bundle(request: pytest.FixtureRequest) -> Bundle:
    """Each committed bundle in turn."""
    return open_named(request.param)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The tiny one: T = 4, K = 3, 16x16, no cadence."""
    return open_named("convlstm-tiny")


@pytest.fixture(scope="session")
def session(bundle: Bundle) -> Iterator[Session]:
    """The tiny bundle with every graph open."""
    opened = open_session(bundle, ("step", "forecast", "rollout"), threads=1)
    yield opened
    opened.close()


@pytest.fixture
def own_bundle(tmp_path: Path, bundle: Bundle) -> Path:
    """A copy of the tiny bundle that a test may spoil."""
    return Path(shutil.copytree(bundle.path, tmp_path / "own.bundle"))


class ListSource:
    """A source that yields what it is given, as fast as it is taken.

    `pause` is called with the number of each item before it is yielded.
    """

    name = "list"

    def __init__(
        self,
        items: Sequence[Frame | BadFrame],
        *,
        waits: bool = True,
        pause: Callable[[int], None] = lambda _: None,
        error: Exception | None = None,
    ) -> None:
        self.items, self.waits, self._pause, self._error = items, waits, pause, error
        self.health = Health()

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        for n, item in enumerate(self.items):
            if stop.is_set():
                return
            self._pause(n)
            yield Arrival(item, time.monotonic(), datetime.now(timezone.utc))
        if self._error is not None:
            raise self._error


def run_alone(stream: Stream, **limits: Any) -> StreamReport:
    """Run one stream until it ends; `limits` as `Streams.run` has them."""
    Streams([stream]).run(**limits)
    return stream.report()


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six frames with times in their names."""
    path = tmp_path / "in"
    path.mkdir()
    for n in range(6):
        np.save(path / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(n))
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line in this process -> exit code, stdout, stderr."""
    from stpl_deploy.cli import run

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call
