"""The live part of the demo: another process fills a folder, the stream makes nowcasts of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.options import FrameOptions, StreamOptions
from stpl_deploy.demo import feed
from stpl_deploy.demo.film import Row
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.streaming.opening import open_stream
from stpl_runtime.streaming.report import StreamReport
from stpl_runtime.streaming.signals import stop_on_signals


@dataclass
class Keep:
    """A sink that keeps every nowcast in memory, to be scored when its truth is there."""

    name: str = "memory"
    nowcasts: list[Nowcast] = field(default_factory=list)

    def write(self, nowcast: Nowcast) -> None:
        """Keep it."""
        self.nowcasts.append(nowcast)

    def close(self) -> None:
        """Nothing is open."""


def stream_live(
    bundle: Bundle, frames: Array, folder: Path, sink: str, period_s: float
) -> tuple[list[Nowcast], StreamReport]:
    """Stream `frames` through a bundle as they arrive in a folder.

    Args:
        bundle: the opened bundle.
        frames: `(T, C, H, W)` physical units, fed by another process.
        folder: where they appear.
        sink: a sink's word and path, beside the one that scores.
        period_s: seconds between two frames.
    """
    folder.mkdir()
    keep, cadence_s = Keep(), feed.CADENCE.total_seconds()
    options = StreamOptions(
        sources=[f"folder:{folder}"], sinks=[sink], reading=FrameOptions(cadence=cadence_s)
    )
    with (
        open_stream(bundle, options, sinks=[keep]) as opened,
        tempfile.TemporaryDirectory() as temporary,
    ):
        array = Path(temporary) / "frames.npy"
        np.save(array, frames)
        command = [sys.executable, "-m", feed.__name__, str(array), str(folder), str(period_s)]
        with subprocess.Popen(command) as feeder, stop_on_signals(opened.streams):  # noqa: S603
            try:
                opened.streams.run(
                    max_nowcasts=len(frames) - bundle.manifest.context + 1,
                    idle_timeout_s=10 * period_s + 10,
                )
            finally:
                feeder.terminate()
        return keep.nowcasts, opened.each[0].report()


def with_truth(nowcasts: list[Nowcast], frames: Array, context: int) -> list[Row]:
    """Context, truth and forecast of every nowcast whose truth was observed.

    Args:
        nowcasts: from `stream_live`.
        frames: `(T, C, H, W)`, the frames that were fed.
        context: T of the bundle.
    """
    rows: list[Row] = []
    for nowcast in nowcasts:
        assert nowcast.issue_time is not None, "the feed names its times"
        newest = round((nowcast.issue_time - feed.START) / feed.CADENCE)
        truth = frames[newest + 1 : newest + 1 + len(nowcast.frames)]
        if len(truth) == len(nowcast.frames):
            rows.append((frames[newest + 1 - context : newest + 1], truth, nowcast.frames))
    return rows
