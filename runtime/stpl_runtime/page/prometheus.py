"""What Prometheus gets: worked out from the hub at each scrape, nothing global."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from stpl_core import __version__
from stpl_core.scores.images import Doubles
from stpl_runtime.page.hub import Hub
from stpl_runtime.page.stream_view import BUCKETS_S
from stpl_runtime.page.verdict import WORDS
from stpl_runtime.watching.skill_sums import LiveScores

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_FATES = ("used", "late", "duplicate", "dropped", "bad")
_STREAM = ["stream"]


def exposition(hub: Hub, clients: int) -> tuple[bytes, str]:
    """The text of `/metrics` and its content type.

    Args:
        hub: asked for everything.
        clients: pages that listen now.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

    class Now:
        def collect(self) -> Iterator[Metric]:
            return metric_families(hub, clients)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Now())
    return generate_latest(registry), CONTENT_TYPE_LATEST


def metric_families(hub: Hub, clients: int) -> Iterator[Metric]:
    """Every metric of `/metrics`, with what it counts now."""
    from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily

    facts = {"version": __version__, "model": hub.look.model, "units": hub.look.units}
    yield InfoMetricFamily("stpl_build", "What runs", value=facts)
    start = GaugeMetricFamily("stpl_start_time_seconds", "Start of this process")
    start.add_metric([], hub.started.timestamp())
    yield start
    pages = GaugeMetricFamily("stpl_page_clients", "Pages that listen")
    pages.add_metric([], clients)
    yield pages
    yield from _frames(hub)
    yield from _nowcasts(hub)
    yield from _source(hub)
    yield from _skill(hub)
    sinks = {name: feed.report().sinks for name, feed in hub.feeds.items()}
    for word, kind, text in (
        ("failures", "failed", "could not write"),
        ("dropped", "dropped", "was too slow for"),
        ("not_deleted", "not_deleted", "wrote, but could not delete what is too old beside them"),
    ):
        counted = [
            ([name, sink], getattr(report, kind))
            for name, of in sinks.items()
            for sink, report in of.items()
        ]
        yield _counter(
            f"stpl_sink_{word}", f"Nowcasts that a sink {text}", ["stream", "sink"], counted
        )
    yield _counter(
        "stpl_watch_missed", "Events that scores and page had no time for", [], [([], hub.missed())]
    )


def _frames(hub: Hub) -> Iterator[Metric]:
    counts = {name: feed.report().counts for name, feed in hub.feeds.items()}
    yield _counter(
        "stpl_frames_received",
        "Frames that arrived",
        _STREAM,
        [([name], found.received) for name, found in counts.items()],
    )
    yield _counter(
        "stpl_frames",
        "Frames by what became of them; they and the pending ones add up to those received",
        ["stream", "fate"],
        [([name, fate], getattr(found, fate)) for name, found in counts.items() for fate in _FATES],
    )
    yield _gauge(
        "stpl_frames_pending",
        "Frames that wait",
        _STREAM,
        [([name], found.pending) for name, found in counts.items()],
    )


def _nowcasts(hub: Hub) -> Iterator[Metric]:
    from prometheus_client.metrics_core import HistogramMetricFamily

    reports = {name: feed.report() for name, feed in hub.feeds.items()}
    for field, text in (
        ("nowcasts", "Nowcasts that were made"),
        ("skipped", "Nowcasts not made, a newer frame had already arrived"),
        ("incomplete", "Nowcasts not made, a frame of the window was missing"),
        ("not_finite", "Nowcasts with NaN or infinity, not published"),
        ("prewarmed", "Nowcasts whose past had been run ahead"),
        ("standing_in", "Nowcasts that depend on a frame that was not observed"),
    ):
        word = "stpl_nowcasts" if field == "nowcasts" else f"stpl_nowcasts_{field}"
        yield _counter(
            word,
            text,
            _STREAM,
            [([name], getattr(found, field)) for name, found in reports.items()],
        )
    family = HistogramMetricFamily(
        "stpl_nowcast_latency_seconds", "From a frame's arrival to its nowcast", labels=_STREAM
    )
    for name, view in hub.views.items():
        counts, total_s = list(view.latency.counts), view.latency.total_s
        buckets, so_far = [], 0
        for limit, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
            so_far += count
            buckets.append((limit, so_far))
        family.add_metric([name], buckets, total_s)
    yield family


def _source(hub: Hub) -> Iterator[Metric]:
    health = {name: hub.health(name) for name in hub.feeds}
    yield _gauge(
        "stpl_source_up",
        "1 while the source answers",
        _STREAM,
        [([name], float(now.state == "up")) for name, now in health.items()],
    )
    yield _counter(
        "stpl_source_reconnects",
        "Times that the source came back",
        _STREAM,
        [([name], now.reconnects) for name, now in health.items()],
    )
    yield _counter(
        "stpl_gaps",
        "Times that the window started anew",
        _STREAM,
        [([name], feed.report().gaps) for name, feed in hub.feeds.items()],
    )
    words = {name: hub.verdict(name).word for name in hub.feeds}
    yield _gauge(
        "stpl_status",
        "1 for the state that the stream is in",
        ["stream", "status"],
        [([name, word], float(word == now)) for name, now in words.items() for word in WORDS],
    )
    arrived = {n: s.arrived for n, s in hub.views.items() if s.arrived is not None}
    now = datetime.now(timezone.utc)
    yield _gauge(
        "stpl_frame_age_seconds",
        "Since the newest frame's valid time",
        _STREAM,
        [([n], (now - a.valid_time).total_seconds()) for n, a in arrived.items()],
    )
    yield _gauge(
        "stpl_frame_lag_seconds",
        "From its valid time to its arrival",
        _STREAM,
        [([name], newest.lag_s) for name, newest in arrived.items()],
    )
    yield _gauge(
        "stpl_arrival_age_seconds",
        "Since the newest frame arrived",
        _STREAM,
        [([name], hub.arrival_age_s(name) or 0.0) for name in arrived],
    )


def _skill(hub: Hub) -> Iterator[Metric]:
    labels = ["stream", "way", "lead"]
    samples: dict[str, list[tuple[list[str], float]]] = {"mse": [], "mae": [], "psnr": []}
    events: list[tuple[list[str], float]] = []
    scored: list[tuple[list[str], float]] = []
    alarms: list[tuple[list[str], float]] = []
    for name in hub.feeds:
        skill = hub.skill.now(name)
        if skill is None:
            continue
        _add(samples, events, name, skill.rolling)
        scored += [
            ([name, "no"], float(skill.total.frames.sum())),
            ([name, "yes"], float(skill.flagged.frames.sum())),
        ]
        if skill.alarm is not None:
            alarms.append(([name], float(skill.alarm.standing)))
    for score, text in (
        ("mse", "Squared error summed over a frame, in [0, 1]"),
        ("mae", "Absolute error summed over a frame, in [0, 1]"),
        ("psnr", "Peak signal-to-noise ratio, dB"),
    ):
        text = f"{text}; the newest {hub.skill.window} of each lead time"
        yield _gauge(f"stpl_skill_{score}", text, labels, samples[score])
    yield _gauge(
        "stpl_skill_csi", "Critical success index at a threshold", [*labels, "threshold"], events
    )
    yield _counter(
        "stpl_skill_scored", "Pairs of forecast and truth", ["stream", "stand_ins"], scored
    )
    yield _gauge("stpl_alarm", "1 while the skill is below persistence", _STREAM, alarms)


def _add(
    samples: dict[str, list[tuple[list[str], float]]],
    events: list[tuple[list[str], float]],
    name: str,
    scores: LiveScores,
) -> None:
    for way, found in scores.per_lead.items():
        for score, values in found.items():
            if score.startswith("csi_"):
                _each(events, [name, way], values, [score.removeprefix("csi_")])
            else:
                _each(samples[score], [name, way], values, [])


def _each(
    into: list[tuple[list[str], float]], before: list[str], values: Doubles, after: list[str]
) -> None:
    """One sample for each lead time that was scored."""
    for k, value in enumerate(values.tolist()):
        if value == value:
            into.append(([*before, str(k + 1), *after], value))


def _counter(name: str, text: str, labels: list[str], samples: list[tuple[list[str], Any]]) -> Any:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _gauge(name: str, text: str, labels: list[str], samples: list[tuple[list[str], Any]]) -> Any:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
