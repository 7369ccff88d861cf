"""One nowcast of what was read: the session that it needs, the plan of its memory, the making."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from stpl_core.baselines import flow, persistence
from stpl_core.bundle import Bundle, Manifest
from stpl_core.codec import Array
from stpl_core.errors import UsageError
from stpl_core.options import DomainOptions, EngineOptions, PredictOptions
from stpl_runtime.chances import Chances, exceedance_of
from stpl_runtime.engine import Session, open_session
from stpl_runtime.engines.auto.candidates import Asked
from stpl_runtime.engines.auto.choose import open_best
from stpl_runtime.engines.tiled import on_domain, wanted_size
from stpl_runtime.ensembles.members import ensembles
from stpl_runtime.forecast_memory import plan_memory
from stpl_runtime.ingest.inputs import Context
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.predict import (
    graphs_needed,
    made_by,
    predict_sequences,
    predict_with_chances,
)


@contextmanager
def open_backend(
    bundle: Bundle,
    backend: EngineOptions,
    horizon: int | None = None,
    *,
    chances: bool = False,
    say: Callable[[str], None] | None = None,
    measure: bool = False,
) -> Iterator[Session]:
    """A session with the graphs that a nowcast of `horizon` frames runs through.

    Args:
        bundle: an opened bundle.
        backend: what it is to run on.
        horizon: frames to predict; None takes the bundle's.
        chances: those of events are wanted too.
        say: given a line on what `--engine auto` takes.
        measure: let `--engine auto` time what this machine has, where it did not before.

    Raises:
        StplError: see `open_session`.
    """
    manifest = bundle.manifest
    steps = manifest.horizon if horizon is None else horizon
    graphs = graphs_needed(manifest, steps, chances=chances)
    if backend.engine == "auto":
        asked = Asked(graphs, backend.threads, backend.forecast, backend.allow)
        session = open_best(
            bundle, asked, say, measure=measure, require_provider=backend.require_provider
        )
    else:
        session = open_session(bundle, graphs, **vars(backend))
    try:
        yield session
    finally:
        session.close()


def plan_nowcast(
    bundle: Bundle,
    backend: EngineOptions,
    horizon: int | None,
    domain: DomainOptions,
    context: Context | None = None,
    streams: int = 1,
    *,
    batch: int = 1,
    chances: bool = False,
    members: int | None = None,
) -> str:
    """One line on the memory of nowcasts, before the engine is opened; empty where it is little.

    Args:
        bundle: an opened bundle.
        backend: what it is to run on.
        horizon: frames to predict; None takes the bundle's.
        domain: where frames are larger than the model's.
        context: what was read; None: one sequence at a time.
        streams: that share the engine.
        batch: of them, that run in one call.
        chances: those of events are wanted too.
        members: of an ensemble; None: none is wanted.

    Raises:
        EnvironmentFault: more is needed than there is; names the setting that fits.
    """
    return plan_memory(
        bundle,
        backend.engine,
        horizon,
        wanted_size(domain),
        domain.overlap,
        sequences=1 if context is None else len(context.frames),
        streams=streams,
        batch=batch,
        chances=chances,
        members=members or 0,
    )


def make_nowcast(
    bundle: Bundle,
    session: Session,
    context: Context,
    horizon: int | None = None,
    domain: DomainOptions | None = None,
    *,
    chances: bool = False,
    members: int | None = None,
    seed: int | None = None,
) -> Nowcast:
    """A nowcast of what was read; of several sequences one with an axis more in front.

    Args:
        bundle: an opened bundle.
        session: of it, with the graphs of `open_backend` open.
        context: what was read.
        horizon: frames to predict; None takes the bundle's.
        domain: where frames are larger than the model's.
        chances: those of events are wanted too.
        members: of an ensemble; None: none is wanted.
        seed: of its noise; None: 0.

    Raises:
        AccuracyError: the engine gave NaN or infinity.
        UsageError: an overlap that does not hold, or a model that gives no chances.
    """
    domain = domain or DomainOptions()
    size = wanted_size(domain) or bundle.manifest.domain
    bundle, session = on_domain(bundle, session, size, domain.overlap)
    manifest, one = bundle.manifest, len(context.frames) == 1
    steps = manifest.horizon if horizon is None else horizon
    made = made_by(bundle, session, "window")
    if not chances and members is None:
        frames = predict_sequences(bundle, session, context.as_seen(), steps)  # (N, K, C, H, W)
        return _nowcast(manifest, context, frames, made)
    frames, likely = predict_with_chances(bundle, session, context.as_seen(), steps)
    drawn: Array | None = None
    if members is not None:
        seed = seed or 0
        drawn = ensembles(manifest, context, frames, likely, members, seed)  # (N, M, K, ...)
        made |= {"ensemble": f"{members} members, seed {seed}"}
        drawn = drawn[0] if one else drawn
    given = replace(likely, values=likely.values[0]) if one else likely
    return replace(
        _nowcast(manifest, context, frames, made, given if chances else None), members=drawn
    )


def check_ensemble(manifest: Manifest, asked: PredictOptions) -> None:
    """Refuse an ensemble that cannot be drawn.

    Raises:
        UsageError: a model that gives no chances, or a seed of nothing.
    """
    if asked.members is not None and asked.baseline is None:
        exceedance_of(manifest, f"--members {asked.members}")
    if asked.members is None and asked.seed is not None:
        raise UsageError(
            f"--seed {asked.seed} without --members",
            expected="both, or neither: nothing else is drawn at random",
            fix=f"--members 20 --seed {asked.seed}",
        )


def make_baseline(bundle: Bundle, context: Context, asked: PredictOptions) -> Nowcast:
    """What `asked.baseline` forecasts of the same frames, in the place of the model.

    Args:
        bundle: an opened bundle, for its horizon and units.
        context: what was read.
        asked: which baseline, and how far.

    Returns:
        As `make_nowcast`, but not clipped to the codec's range: what was observed is moved as it
        is.

    Raises:
        MissingExtraError: `flow` without OpenCV.
        UsageError: chances, which only a model gives.
    """
    if asked.needs_chances:
        word = "--probabilities" if asked.probabilities else f"--members {asked.members}"
        raise UsageError(
            f"{word} with --baseline {asked.baseline}",
            expected="the model, which alone gives chances",
            fix="leave one out",
        )
    manifest, past = bundle.manifest, context.frames  # (N, T, C, H, W)
    steps = manifest.horizon if asked.horizon is None else asked.horizon
    if asked.baseline == "flow":
        frames = flow(past, steps, manifest.codec.units)  # (N, K, C, H, W)
    else:
        frames = np.array(persistence(past, steps))
    return _nowcast(manifest, context, frames, {"baseline": asked.baseline or ""})


def _nowcast(
    manifest: Manifest,
    context: Context,
    frames: Array,
    made: dict[str, str],
    likely: Chances | None = None,
) -> Nowcast:
    """Of frames `(N, K, C, H, W)` that were forecast."""
    one = len(context.frames) == 1
    return Nowcast(
        frames=frames[0] if one else frames,
        context=context.frames[0] if one else context.frames,
        units=manifest.codec.units,
        quantity=manifest.codec.quantity,
        low=manifest.codec.low,
        high=manifest.codec.high,
        issue_time=context.times[-1] if context.times else None,
        cadence_s=context.cadence_s,
        context_times=context.times,
        source_id=context.source_id,
        made_by=made,
        grid=context.grid,
        observed=context.observed,
        context_observed=context.context_observed,
        standard_name=context.standard_name,
        notes=context.notes,
        chances=likely,
    )
