"""Memory that stays: resident, of a process of its own, over 2,000 frames and more.

In the process of the whole suite other tests' threads and freed blocks move it by ten MiB. The
long runs are in test_soak.py.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pytest

from stpl_core.codec import FrameCodec
from stpl_runtime.engine import Session, open_session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.nowcaster import ContextMode, Nowcaster
from stpl_runtime.nowcasting.stand_ins import OnGap
from stpl_runtime.sink import open_sink
from stpl_runtime.source import Arrival, SourceSpec
from stpl_runtime.sources.folder import FolderSource
from stpl_runtime.streaming.stream import Stream
from tests.runtime.conftest import ListSource, make_frame, open_named, picture, run_alone, slot_time
from tests.runtime.streaming.test_chaos import MODES, run_chaos
from tests.runtime.streaming.test_stream import KeptSink, make_stream, paced

T = TypeVar("T")
# MiB; a sink that kept the frames of each nowcast (3 kB) made them 0.9, 12.9 and 1.9.
CHAOS, FRAMES, FILES = 0.5, 1.5, 0.8


def in_a_process(function: Callable[..., T], *args: object) -> T:
    """What a function of this module returns, or raises, in a new interpreter."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def open_tiny() -> Session:
    """The tiny bundle's session."""
    return open_session(open_named("convlstm-tiny"), ("step", "forecast"), threads=1)


def resident_mib() -> float:
    """MiB of this process, without what could be collected."""
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


def reported(what: str, grown: float) -> float:
    """`grown`, after telling it."""
    sys.stderr.write(f"{what}: resident memory grew by {grown:.2f} MiB\n")
    return grown


@pytest.mark.parametrize(("mode", "on_gap"), MODES)
def test_chaos(mode: ContextMode, on_gap: OnGap) -> None:
    assert reported(f"chaos, {mode}, {on_gap}", in_a_process(over_chaos, mode, on_gap)) < CHAOS


def over_chaos(mode: ContextMode, on_gap: OnGap) -> float:
    """MiB from frame 500 to frame 1,500 and more."""
    bundle, session = open_named("convlstm-tiny"), open_tiny()
    resident = run_chaos(bundle, session, 2000, mode, on_gap)[2]
    session.close()
    assert len(resident) >= 3
    return resident[-1][1] - resident[0][1]


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_frames_and_files_written(mode: str, tmp_path: Path) -> None:
    """Every nowcast is written, to memory where there is such a disk: fsync takes milliseconds."""
    shared = Path("/dev/shm")
    place = shared if os.access(shared, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=place) as directory:
        grown = in_a_process(over_frames, mode, directory)
    assert reported(f"2,000 frames, {mode}", grown) < FRAMES


def over_frames(mode: str, directory: str) -> float:
    """MiB from frame 500 to frame 2,500."""
    bundle, session = open_named("convlstm-tiny"), open_tiny()
    resident: dict[int, float] = {}
    sink = KeptSink()

    def pause(n: int) -> None:
        paced(sink, 3)(n)
        if n in (500, 2499):
            resident[n] = resident_mib()
        elif n > 4:
            sink.kept[n - 5] = sink.kept[0]  # all others are let go

    class Endless(ListSource):
        def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
            for n in range(2500):
                self.items = [make_frame(n)]
                pause(n)
                yield from super().arrivals(stop)

    npz = open_sink(f"npz:{directory}")
    report = run_alone(make_stream(bundle, session, Endless([]), npz, sink, mode=mode))
    session.close()
    assert report.nowcasts == 2497
    assert report.counts.used == 2500
    return resident[2499] - resident[500]


def test_files_of_a_folder(tmp_path: Path) -> None:
    for n in range(2500):
        np.save(tmp_path / f"r{slot_time(n):%Y%m%d%H%M}.npy", picture(n))
    assert reported("2,000 files", in_a_process(over_files, tmp_path)) < FILES


def over_files(folder: Path) -> float:
    """MiB from file 500 to file 1,500 and more of 2,500."""
    bundle, session = open_named("convlstm-tiny"), open_tiny()
    ledger = Ledger()
    resident: list[float] = []

    class Probe:
        name = "probe"

        def write(self, _: object) -> None:
            used = ledger.snapshot().used
            if used < 2400 and used // 500 > len(resident):  # then all are listed again: 1 MiB
                resident.append(resident_mib())

        def close(self) -> None:
            """Nothing is open."""

    nowcaster = Nowcaster(bundle, session, cadence_s=300.0, ledger=ledger)
    source = FolderSource(folder, SourceSpec((1, 16, 16), FrameCodec()))
    report = run_alone(Stream(nowcaster, source, [Probe()], ledger=ledger), idle_timeout_s=10.0)
    session.close()
    assert report.counts.used == report.counts.received == 2500
    assert len(resident) >= 3
    return resident[-1] - resident[0]
