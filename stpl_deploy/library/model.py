"""A model that is ready to forecast: a bundle with its engine."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stpl_core.bundle import AccuracyReport, Bundle
from stpl_core.errors import UsageError
from stpl_core.option import fill
from stpl_core.options import (
    EngineOptions,
    PredictOptions,
    RunLimits,
    SignatureOptions,
    StreamOptions,
)
from stpl_core.safety.open_signed import open_signed
from stpl_deploy.library.inputs import Frames, read_any
from stpl_deploy.library.live import LiveNowcasts
from stpl_deploy.library.numbers import sized
from stpl_runtime.engine import Session
from stpl_runtime.ingest.inputs import Context
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.make import (
    check_ensemble,
    make_baseline,
    make_nowcast,
    open_backend,
    plan_nowcast,
)
from stpl_runtime.proof.verify import verify_bundle
from stpl_runtime.sinks.cf import dataset_of

if TYPE_CHECKING:
    import xarray as xr

    from stpl_export.bench import BenchReport

PRETRAINED = "pretrained:"


def load(path: Path | str, engine: str = "auto", **options: Any) -> Model:
    """Open a bundle; use it in a `with` block, or close it.

    Args:
        path: a bundle's directory, or `pretrained:NAME` for a model that comes trained, which is
            exported once into the user's cache folder (this needs the extra `export`).
        engine: what runs it, a word of `stpl-deploy predict --engine`; `auto` takes what is
            fastest: a stream measures that once on a machine, all else takes what was measured.
        **options: of `EngineOptions` and `SignatureOptions` in `stpl_core.options`, by name:
            `threads`, `require_provider`, `trusted_keys`, `min_version`.

    Raises:
        BundleError: no bundle is there.
        MissingExtraError: `pretrained:NAME` without the extra.
        UsageError: an option that does not hold.
        SignatureError: with `trusted_keys`, a bundle that none of them signed as it is.
    """
    chosen = fill(_LoadOptions, {"engine": engine, **options}, "load")
    if str(path).startswith(PRETRAINED):
        from stpl_deploy.library.exporting import pretrained_bundle

        path = pretrained_bundle(str(path).removeprefix(PRETRAINED))
    return Model(open_signed(Path(path), chosen.signature), chosen.backend)


@dataclass(frozen=True)
class _LoadOptions:
    backend: EngineOptions = field(default_factory=EngineOptions)
    signature: SignatureOptions = field(default_factory=SignatureOptions)


class Model:
    """A bundle on an engine, which is started when it is first needed.

    Not thread-safe: one thread predicts. A stream has a thread and an engine of its own.
    """

    def __init__(self, bundle: Bundle, backend: EngineOptions | None = None) -> None:
        """Wrap an opened bundle; `load` opens one by its path."""
        self.bundle = bundle
        self._backend = backend or EngineOptions()
        self._stack = ExitStack()
        self._sessions: dict[bool, Session] = {}
        self._streams: weakref.WeakSet[LiveNowcasts] = weakref.WeakSet()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def predict(self, frames: Frames, **options: Any) -> xr.Dataset:
        """Forecast what follows the newest frames.

        Args:
            frames: a path (a folder of frames, an array file, what a reader reads); a dataset, as
                `open_frames` gives it or of CF; or an array `(T, C, H, W)`, or `(T, H, W)` for one
                channel. Physical units; at least T frames, of which the newest are taken.
            **options: of `stpl_core.options.PredictOptions`, by name: `horizon`, `grid`,
                `probabilities`, `members`, `seed` ...

        Returns:
            `nowcast` (time, [channel], y, x) in physical units, NaN where the newest frame had no
            data; with lead times, coordinates and grid mapping. Frames without times have the
            dimension `step`. With `probabilities`, `probability_of_exceedance` (threshold, time,
            [channel], y, x) too; with `members`, `members` (realization, time, [channel], y, x).

        Raises:
            FrameError: frames that do not fit.
            MissingExtraError: without the extra `frames`; `nowcast` needs none.
        """
        made = self.nowcast(frames, **options)
        if made.frames.ndim != 4:
            raise UsageError(
                f"{len(made.frames)} sequences",
                expected="one, for a dataset",
                fix="model.nowcast(frames).frames, which is (N, K, C, H, W)",
            )
        return dataset_of(made, "frames")

    def nowcast(self, frames: Frames, **options: Any) -> Nowcast:
        """Forecast as `predict` does, into plain arrays; of N sequences an axis more in front."""
        asked = fill(PredictOptions, sized(options), "predict")
        context, remark = read_any(self.bundle, frames, asked)
        if remark:
            warnings.warn(remark, stacklevel=2)
        return self.nowcast_of(context, asked)

    def nowcast_of(self, context: Context, asked: PredictOptions) -> Nowcast:
        """Forecast frames that were read already."""
        check_ensemble(self.bundle.manifest, asked)
        if asked.baseline is not None:
            return make_baseline(self.bundle, context, asked)
        plan_nowcast(
            self.bundle,
            self._backend,
            asked.horizon,
            asked.domain,
            context,
            chances=asked.needs_chances,
            members=asked.members,
        )
        return make_nowcast(
            self.bundle,
            self._session(asked.horizon, chances=asked.needs_chances),
            context,
            asked.horizon,
            asked.domain,
            chances=asked.probabilities,
            members=asked.members,
            seed=asked.seed,
        )

    def verify(self) -> AccuracyReport:
        """Check the bundle's closed loop on this machine; `passed` says how it went."""
        return verify_bundle(self.bundle, **vars(self._backend))

    def bench(self, rounds: int = 30) -> BenchReport:
        """Time the ways from a frame's arrival to its nowcast.

        Raises:
            MissingExtraError: without the extra `export`.
        """
        from stpl_deploy.extras import needs

        with needs("export"):
            from stpl_export.bench import bench_bundle, settled
        backend = settled(self.bundle, self._backend, lambda _: None)
        return bench_bundle(self.bundle, rounds=rounds, **vars(backend))

    def stream(
        self,
        source: str | Path | Iterable[str],
        sinks: str | Iterable[str] = (),
        **options: Any,
    ) -> LiveNowcasts:
        """Watch a source, in a thread of its own, and give a nowcast for each new frame.

        Args:
            source: what `stpl-deploy stream` takes: a folder, a video, a URL; several as
                `NAME=SOURCE`.
            sinks: what `--sink` takes, such as `nc:out`; the iterator comes on top.
            **options: of `stpl_core.options.StreamOptions` and `RunLimits`, by name: `policy`,
                `on_gap`, `cadence`, `max_nowcasts`, `idle_timeout` ... With `policy="pace"` a
                source of files waits, so that every frame gets its nowcast.

        Returns:
            An iterator of nowcasts; `stop()`, or the end of a `with` block, ends it.

        Raises:
            StplError: what cannot be opened.
        """
        limits = {name: options.pop(name) for name in vars(RunLimits()) if name in options}
        sources = [str(source)] if isinstance(source, (str, Path)) else [*map(str, source)]
        asked = fill(
            StreamOptions,
            {**vars(self._backend), "sources": sources, "sinks": sinks, **sized(options)},
            "stream",
        )
        live = LiveNowcasts(self.bundle, asked, fill(RunLimits, limits, "stream"))
        self._streams.add(live)
        self._threads.add(live.thread)
        return live

    def close(self) -> None:
        """Free what the engine holds, and end the streams that still run."""
        for live in list(self._streams):
            live.stop()
        for thread in list(self._threads):  # of a stream that nobody holds any more, still closing
            thread.join()
        self._sessions.clear()
        self._stack.close()

    def __enter__(self) -> Model:
        """The model itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `close`."""
        self.close()

    def _session(self, horizon: int | None, *, chances: bool) -> Session:
        """The session with the graphs for so many frames; kept until `close`."""
        own = horizon in (None, self.bundle.manifest.horizon) and not chances
        if own not in self._sessions:
            opened = open_backend(self.bundle, self._backend, horizon, chances=chances)
            self._sessions[own] = self._stack.enter_context(opened)
        return self._sessions[own]
