"""Looking at a live source for some seconds: what it is, and what to type to stream from it."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError, SourceLostError, StplError
from stpl_core.reader import ReadOptions
from stpl_runtime.ingest.decoding import file_suffixes
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.source import (
    Arrival,
    BadFrame,
    Notes,
    Seen,
    Source,
    SourceSpec,
    open_source,
    scheme_of,
)
from stpl_runtime.timing import EPOCH, utc_text

WHAT: Mapping[str, str] = {
    "http": "a picture or file that changes, polled",
    "mjpeg+http": "MJPEG: pictures without an end over HTTP",
    "hls+http": "HLS: a playlist, and pieces of film",
    "s3": "objects in a bucket",
    "rtsp": "a network camera",
    "rtmp": "a video stream",
    "tcp": "a video stream (MPEG-TS)",
    "udp": "a video stream (MPEG-TS)",
    "camera": "a camera on this machine",
    "mqtt": "messages of a broker",
    "kafka": "records of a broker",
    "zmq": "messages of a publisher",
    "stdin": "standard input",
}
"""Word -> what lies there; words of the same family have that of the first."""
_FAMILIES = {"https": "http", "gs": "s3", "abfs": "s3", "rtsps": "rtsp", "zmq+ipc": "zmq"}
_TIMES: Mapping[str, str] = {
    "mjpeg+http": "of arrival",
    "hls+http": "of the playlist",
    "rtsp": "of the camera's clock, tied to arrival",
    "rtmp": "of the stream's clock, tied to arrival",
    "tcp": "of the stream's clock, tied to arrival",
    "udp": "of the stream's clock, tied to arrival",
    "camera": "of the camera's clock, tied to arrival",
    "stdin": "counted from now",
}
_QUEUES = ("mqtt", "kafka", "zmq")
_POLL_S = "1"
_BEHIND_S, _AHEAD_S = 86400.0, 60.0
"""Frame times further off this machine's clock than that are doubted."""
_JOIN_S = 6.0
_ADDRESS = re.compile(r"\S*://\S+")
_REFUSED = re.compile(
    r"(?<![\w:.])(401|403)\b|not authori[sz]ed|unauthori[sz]ed|authentication|access denied"
    r"|credentials",
    re.IGNORECASE,
)
"""What the reason of a refusal holds, outside of addresses: a port may be 40395."""
_RECIPES = {"grey": "camera", "rain": "radar-nowcast", "temperature": "era5-t2m"}


@dataclass(frozen=True)
class LiveLook:
    """What was seen."""

    source: str
    """What it is called, without credentials."""
    word: str
    """Of the source that reads it."""
    what: str
    seconds: float
    state: str
    """Of its health at the end."""
    frames: int
    bad: dict[str, int]
    """Reason -> how many."""
    shapes: list[tuple[int, int, int]]
    """(C, H, W), the most frequent first."""
    format: str
    """Reader or container, codec and pixel format."""
    quantity: str
    units: str
    low: float | None
    high: float | None
    grid: str
    times: str
    """Where the frames' times come from."""
    first: str | None
    last: str | None
    lag_s: float | None
    """Of the newest frame when it arrived."""
    plausible: bool
    cadence_s: float | None
    """Between the times of frames."""
    arrivals_s: float | None
    """Between their arrivals."""
    recipe: str
    """Whose codec fits; empty where none of ours does."""
    codec: dict[str, Any]
    """A codec that fits."""
    next: str
    """What to type."""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass
class _Sight:
    """What comes in while it is looked at."""

    arrivals: list[tuple[float, datetime, datetime]] = field(default_factory=list)
    """Of each frame: time.monotonic(), UTC, its own time."""
    bad: Counter[str] = field(default_factory=Counter)
    seen: list[Seen] = field(default_factory=list)
    shapes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    low: float = np.inf
    high: float = -np.inf
    has_times: bool = True
    begun: float = 0.0
    """time.monotonic() when the first frame came; 0: none did."""
    error: BaseException | None = None

    def look(self, seen: Seen) -> None:
        """See `SourceSpec.look`."""
        self.seen = [*self.seen[-99:], seen]
        self.shapes[seen.shape] += 1
        self.has_times &= seen.has_time
        if seen.low is not None and seen.high is not None:
            self.low, self.high = min(self.low, seen.low), max(self.high, seen.high)

    def add(self, arrival: Arrival) -> None:
        if isinstance(arrival.item, BadFrame):
            self.bad[arrival.item.reason] += 1
        else:
            at = arrival.item.valid_time
            self.begun = self.begun or time.monotonic()
            self.arrivals.append((arrival.arrived, arrival.arrived_at, at))


def look_at(
    word: str,
    seconds: float,
    options: Mapping[str, str] | None = None,
    *,
    cadence_s: float | None = None,
    reader: str | None = None,
    variable: str | None = None,
    reading: ReadOptions | None = None,
) -> LiveLook:
    """Read a source for some seconds, for no model.

    Args:
        word: as `stpl-deploy stream` takes it; no path.
        seconds: how long.
        options: `--source-option`.
        cadence_s: between files, for a URL with a time in it.
        reader: of files and messages; None finds it.
        variable: which one, where a file holds several.
        reading: what else is said about reading.

    Raises:
        UsageError: no such source, or an option that does not hold.
        FrameError: nothing that came is a frame.
        SourceLostError: nothing came.
        StplError: what opening it raises.
    """
    scheme, _ = scheme_of(word)
    given = dict(options or {})
    sight = _Sight()
    reading = reading or ReadOptions()
    spec = SourceSpec(
        shape=(3, 1 << 20, 1 << 20),  # of several forms the largest
        codec=FrameCodec(),
        time_format=reading.time_format,
        cadence_s=cadence_s,
        reader=reader,
        variable=variable,
        reading=reading,
        options={"interval": _POLL_S, **given} if scheme in ("http", "https") else given,
        look=sight.look,
    )
    source = open_source(word, spec)
    file_suffixes()  # loads the readers before the clock starts
    _watch(source, sight, seconds)
    if sight.error is not None and not sight.arrivals:
        raise sight.error
    if not sight.arrivals:
        raise _nothing(source, sight, seconds)
    return _result(word, source, sight, seconds, given, cadence_s)


def _watch(source: Source, sight: _Sight, seconds: float) -> None:
    """Read it in a thread, which is left behind where it does not end.

    The first frame has so many seconds to come; from then on they are counted anew.
    """
    stop, ended = threading.Event(), threading.Event()

    def read() -> None:
        try:
            for arrival in source.arrivals(stop):
                if stop.is_set():
                    return
                sight.add(arrival)
        except BaseException as error:  # raised again by the caller
            sight.error = error
        finally:
            ended.set()

    thread = threading.Thread(target=read, name="look", daemon=True)
    thread.start()
    try:
        if not ended.wait(seconds):
            ended.wait(max(0.0, sight.begun + seconds - time.monotonic()))
    finally:
        stop.set()
    thread.join(_JOIN_S)


def _nothing(source: Source, sight: _Sight, seconds: float) -> StplError:
    """Why there is no frame."""
    health = source.health.now()
    note = source.note if isinstance(source, Notes) else ""
    if sight.bad:
        reason = sight.bad.most_common(1)[0][0]
        if "expected" in reason:
            found, _, rest = reason.partition("; expected ")
            expected, _, fix = rest.partition("; try: ")
            return FrameError(f"{source.name}: {found}", expected=expected, fix=fix)
        return FrameError(
            f"{source.name}: {reason}", expected="frames", fix="look at what it sends"
        )
    reason = health.reason or note
    if _REFUSED.search(_ADDRESS.sub("", reason)):
        return SourceLostError(
            f"{source.name} needs a user and a password, or a token: {reason}",
            expected="one that it takes",
            fix="USER:PASSWORD@ before the host, or --source-option token_env=NAME where it has "
            "that; docs/live-sources.md lists the options",
        )
    answered = health.was_up or (bool(note) and not health.reason)
    if health.state == "down" or not answered:
        return SourceLostError(
            f"{source.name} was not there in {seconds:g} s: {reason or 'no answer'}",
            expected="a source that answers",
            fix="check that it runs, its address and your rights",
        )
    if health.state == "ended":
        return FrameError(
            f"{source.name} ended and gave no frame", expected="frames", fix="look at what it holds"
        )
    absent = health.was_up and note
    return SourceLostError(
        note if absent else f"{source.name} answers, and sent nothing in {seconds:g} s",
        expected="a frame",
        fix=f"{'check the address' if absent else 'check that something is sent there'}; "
        f"--seconds {6 * seconds:g} waits longer",
    )


def _result(
    word: str,
    source: Source,
    sight: _Sight,
    seconds: float,
    given: Mapping[str, str],
    cadence_s: float | None,
) -> LiveLook:
    kind = getattr(source, "kind", scheme_of(word)[0])
    family = _family(kind)
    newest = sight.seen[-1] if sight.seen else Seen((0, 0, 0))
    values = (sight.low, sight.high) if sight.low <= sight.high else (None, None)
    by_arrival = not sight.has_times
    times = sorted(at for _, _, at in sight.arrivals)
    lag_s = None
    if not by_arrival:
        lag_s = (sight.arrivals[-1][1] - sight.arrivals[-1][2]).total_seconds()
    recipe, codec = fitting_recipe(newest.quantity, newest.units, *values)
    extra = dict(given)
    if by_arrival and family in _QUEUES:
        extra.setdefault("time", "arrival")
    return LiveLook(
        source=source.name,
        word=kind,
        what=WHAT.get(family, "a source of another package"),
        seconds=seconds,
        state=source.health.now().state,
        frames=len(sight.arrivals),
        bad=dict(sight.bad.most_common(5)),
        shapes=[shape for shape, _ in sight.shapes.most_common(5)],
        format=newest.form,
        quantity=newest.quantity,
        units=newest.units,
        low=values[0],
        high=values[1],
        grid="" if newest.grid is None else newest.grid.crs_wkt and "on the Earth",
        times="none" if by_arrival else _TIMES.get(family, "of the data, its name or the sender"),
        first=None if by_arrival else utc_text(times[0]),
        last=None if by_arrival else utc_text(times[-1]),
        lag_s=lag_s,
        plausible=lag_s is not None and -_AHEAD_S <= lag_s <= _BEHIND_S,
        cadence_s=None if by_arrival else _step([(at - EPOCH).total_seconds() for at in times]),
        arrivals_s=_step([arrived for arrived, _, _ in sight.arrivals]),
        recipe=recipe,
        codec=codec,
        next=_next(word, source, extra, cadence_s),
    )


def _family(kind: str) -> str:
    if kind in _FAMILIES:
        return _FAMILIES[kind]
    if kind.startswith("mqtt"):
        return "mqtt"
    return kind.replace("+https", "+http")


def _step(times: Sequence[float]) -> float | None:
    """The median step between distinct times, seconds."""
    steps = np.diff(np.unique(times))
    return round(float(np.median(steps)), 3) if len(steps) else None


def fitting_recipe(
    quantity: str, units: str, low: float | None, high: float | None
) -> tuple[str, dict[str, Any]]:
    """The recipe whose codec fits, empty where none does; and a codec in the unit of what came."""
    if units == "1":
        return _RECIPES["grey"], {"quantity": "grey level", "units": "1", "low": 0.0, "high": 1.0}
    if units in ("mm h-1", "mm", "dBZ"):
        high = 75.0 if units == "dBZ" else 60.0
        return _RECIPES["rain"], {
            "quantity": quantity, "units": units, "low": 0.0, "high": high, "clip": True,
        }  # fmt: skip
    recipe = _RECIPES["temperature"] if units in ("K", "degC") else ""
    ends = {} if low is None or high is None or low >= high else {"low": low, "high": high}
    return recipe, {"quantity": quantity, "units": units, **ends}


def _next(word: str, source: Source, options: Mapping[str, str], cadence_s: float | None) -> str:
    """What to type; a password that was given is not written again."""
    import shlex

    shown = word
    if without_credentials(word) != word:
        shown = without_credentials(word).replace("***@", "USER:PASSWORD@")
    words = ["stpl-deploy", "stream", "BUNDLE", shown]
    words += [] if cadence_s is None else ["--cadence", f"{cadence_s:g}"]
    for name, value in options.items():
        words += ["--source-option", f"{name}={value}"]
    return " ".join(map(shlex.quote, words))
