"""What a stream did: counted, and how long things took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from stpl_core.errors import AccuracyError, FrameError, SinkError
from stpl_runtime.ledger import Counts
from stpl_runtime.streaming.bad_frame_log import Fault
from stpl_runtime.streaming.publisher import SinkReport


@dataclass(frozen=True)
class StreamReport:
    """What a stream did."""

    ended: str
    """Why it ended, in words; `error` where an error gives the reason."""
    counts: Counts
    bad_frames: tuple[Fault, ...]
    """The bad ones of `counts`, by what is wrong with them."""
    nowcasts: int
    """Made, and offered to every sink."""
    skipped: int
    """Not made, because a newer frame was there already."""
    incomplete: int
    """Not made, because a frame of the window was missing; the newest slot's too, so far."""
    not_finite: int
    """Made by the engine with NaN or infinity, and not published."""
    prewarmed: int
    """Nowcasts for which only the newest frame's own work was left when it arrived."""
    sink_failures: dict[str, int]
    """Sink -> nowcasts that it could not write."""
    latency_median_ms: float | None
    """From a frame's arrival to its nowcast, before the sinks."""
    latency_p95_ms: float | None
    standing_in: int = 0
    """Nowcasts that depend on a frame that was missing and stood in for."""
    again: int = 0
    """Nowcasts made a second time, when such a frame came late."""
    gaps: int = 0
    """Times that the window started anew: after a long gap, or on a new time line."""
    reconnects: int = 0
    """Times that the source came back."""
    unread_files: int = 0
    """Files (and folders) of the source that it saw and did not read."""
    sinks: dict[str, SinkReport] = field(default_factory=dict)
    """Sink -> what became of the nowcasts."""
    age_median_ms: float | None = None
    """From a frame's arrival until its nowcast was written."""
    age_p99_ms: float | None = None
    lag_median_s: float | None = None
    """From the newest frame's own time until its nowcast was written."""

    @property
    def exit_code(self) -> int:
        """0, or the code of what went wrong on the way."""
        if any(self.sink_failures.values()):
            return SinkError.exit_code
        if self.not_finite:
            return AccuracyError.exit_code
        all_bad = self.counts.bad == self.counts.received > 0
        return FrameError.exit_code if all_bad else 0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        document = asdict(self)
        document["stand_ins"] = document.pop("standing_in")
        document["passed_over"] = document.pop("unread_files")
        for what, other in (("latency", "p95"), ("age", "p99")):
            names = f"{what}_median_ms", f"{what}_{other}_ms"
            document[f"{what}_ms"] = dict(
                zip(("median", other), map(document.pop, names), strict=True)
            )
        return document


@dataclass(frozen=True)
class StreamsReport:
    """What one stream or several did over one session."""

    ended: str
    streams: Mapping[str, StreamReport]
    batches: tuple[int, ...] = ()
    """Batch sizes by which forecasts were made together, beside single ones."""
    batch_gap: float = 0.0
    """Greatest difference from single ones that was seen in the test of these sizes, model units;
    0: the same bits."""

    @property
    def only(self) -> StreamReport | None:
        """That of the one stream; None where there are several."""
        return next(iter(self.streams.values())) if len(self.streams) == 1 else None

    @property
    def nowcasts(self) -> int:
        """Of all streams."""
        return sum(report.nowcasts for report in self.streams.values())

    @property
    def counts(self) -> Counts:
        """Of all streams."""
        every = [report.counts for report in self.streams.values()]
        names = [item.name for item in fields(Counts)]
        return Counts(**{name: sum(getattr(one, name) for one in every) for name in names})

    @property
    def exit_code(self) -> int:
        """The first stream's that is not 0."""
        return next((one.exit_code for one in self.streams.values() if one.exit_code), 0)

    def as_json(self) -> dict[str, Any]:
        """For `--json`; of one stream, that stream's own."""
        if self.only is not None:
            return self.only.as_json()
        return {
            "ended": self.ended,
            "counts": asdict(self.counts),
            "nowcasts": self.nowcasts,
            "batches": list(self.batches),
            "batch_gap": self.batch_gap,
            "streams": {name: report.as_json() for name, report in self.streams.items()},
        }
