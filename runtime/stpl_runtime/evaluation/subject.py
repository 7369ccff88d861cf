"""What `evaluate` judges, and on what: a forecast function, such as a bundle's; sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle
from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.frames import FrameShape, read_sequences
from stpl_core.grid import Grid
from stpl_core.npz_extras import read_beside
from stpl_core.scores.images import Mask
from stpl_runtime.chances import Chances
from stpl_runtime.engine import Session, open_session, precision_of


@dataclass(frozen=True)
class Backend:
    """What a bundle is to run on; see `stpl_runtime.engine.open_session`."""

    engine: str = "onnx"
    threads: int | None = None
    """Compute threads; None takes what this process may use."""
    forecast: str = "auto"
    allow: str | None = None
    require_provider: str | None = None


@dataclass(frozen=True)
class Surroundings:
    """The whole fields that the frames of sequences were cropped from."""

    past: Callable[[slice], Array]
    """Which sequences -> `(n, T, C, H', W')`, physical units."""
    crop: tuple[slice, slice]
    """Rows and columns of the frames in them."""

    def forecast(self, rows: slice, way: Callable[[Array], Array]) -> Array:
        """`(n, K, C, H, W)`: made of the whole fields, then cropped."""
        down, across = self.crop
        return way(self.past(rows))[..., down, across]


@dataclass(frozen=True)
class Material:
    """Sequences with their truth."""

    about: str
    """Where they came from."""
    frames: Array
    """`(N, T + K, C, H, W)`, physical units."""
    valid: Mask | None = None
    """`(N, H, W)`, True where every frame was observed; None: all were."""
    times: NDArray[np.datetime64] | None = None
    """`(N, T + K)`; None where time has no meaning."""
    remarks: tuple[str, ...] = ()
    """Notes for the person who reads the report."""
    protocol: str = "sequences as they are: nothing comes in over an edge"
    """What the model and the baselines see, and what is scored, in words."""
    field: tuple[int, int] | None = None
    """(H, W) of the frames where they are fields that the model has to cover in tiles."""
    surroundings: Surroundings | None = None
    """What lies around the frames, for baselines; None: nothing that is known."""
    grids: tuple[Grid, ...] = ()
    """Of each sequence; empty where none is known."""
    longer: NDArray[np.int64] | None = None
    """`(N,)`, the number of the longer sequence that each was cut from; None: of its own."""


def on_whole_fields(
    material: Material, context: int, way: Callable[[Array], Array]
) -> Callable[[slice], Array]:
    """A baseline that sees the whole fields where they are known, cropped to the model's pixels.

    Args:
        material: the sequences.
        context: T.
        way: `(n, T, C, H, W)` -> `(n, K, C, H, W)`.
    """
    around = material.surroundings
    if around is None:
        return lambda rows: way(material.frames[rows, :context])
    return lambda rows: around.forecast(rows, way)


@dataclass(frozen=True)
class Judged:
    """A forecaster with what it reads and predicts."""

    name: str
    how: str
    """What runs it."""
    context: int
    horizon: int
    frame: FrameShape
    codec: FrameCodec
    cadence_s: float | None
    forecast: Callable[[Array], Array]
    """`(N, T, C, H, W)` -> `(N, K, C, H, W)`, physical units."""
    own: Callable[[], Material]
    """The sequences that it carries along."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's `[data]`, resolved."""
    grids: tuple[Grid, ...] = ()
    """Of the training data, as the model saw them; empty where unknown."""
    whole_domain: bool = False
    """It covers larger frames in tiles: all of them, as they are."""
    tiling: str = ""
    """How it covers them, in words."""
    cover: Callable[[tuple[int, int]], Judged] | None = None
    """The same forecaster on fields of (H, W), which it covers in tiles."""
    likely: Callable[[Array], tuple[Array, Chances]] | None = None
    """As `forecast`, with the chances of events `(N, K, Q, C, H, W)`; None: it gives none."""

    def covering(self, field: tuple[int, int]) -> Judged:
        """The same forecaster on fields of (H, W), in tiles as `predict` has them."""
        if self.frame[1:] == field:
            return self
        if self.cover is not None:
            return self.cover(field)
        return in_tiles(self, field)


def in_tiles(
    judged: Judged, field: tuple[int, int], of_tiles: Callable[[Array], Array] | None = None
) -> Judged:
    """A forecaster on larger fields: of each tile by itself, blended as in a nowcast.

    Args:
        judged: on frames of its own size.
        field: (H, W).
        of_tiles: as `judged.forecast`, but gives model units that are not clipped yet: a nowcast is
            clipped when its tiles are joined. None takes what `judged` gives.
    """
    from stpl_runtime.engines.tiled import Tiling, default_overlap

    tile = judged.frame[1:]
    tiling = Tiling(field, tile, default_overlap(tile, judged.horizon))
    codec = judged.codec

    def clipped(tiles: Array) -> Array:
        return codec.model_from_physical(judged.forecast(tiles))

    inside = of_tiles or clipped

    def forecast(frames: Array) -> Array:
        count, context = frames.shape[:2]
        tiles = tiling.split(frames.reshape(-1, *frames.shape[2:]))  # (N T n, C, h, w)
        tiles = tiles.reshape(count, context, tiling.count, *tiles.shape[1:])
        tiles = np.moveaxis(tiles, 2, 1).reshape(-1, context, *tiles.shape[3:])  # (N n, T, C, h, w)
        return codec.physical_from_model(tiling.join(inside(tiles)))

    return replace(
        judged,
        frame=(judged.frame[0], *field),
        forecast=forecast,
        whole_domain=True,
        tiling=tiling_text(field, tile, judged.horizon),
        cover=None,
        likely=None,
    )


def tiling_text(field: tuple[int, int], tile: tuple[int, int], horizon: int) -> str:
    """How a model covers a field, in words."""
    from stpl_runtime.engines.tiled import Tiling, default_overlap

    overlap = default_overlap(tile, horizon)
    count = Tiling(field, tile, overlap).count
    return f"the model in {count} tiles of {tile[0]}x{tile[1]} that share {overlap} pixels"


def asked_horizon(horizon: int | None, testing: bool, data: Mapping[str, Any], trained: int) -> int:
    """Frames to predict.

    Args:
        horizon: what the user says; goes first.
        testing: then the recipe's `data.test_horizon`, where it has one.
        data: the recipe's `[data]`.
        trained: K of the training; goes last.
    """
    return horizon or int((data.get("test_horizon") if testing else None) or trained)


def judged_bundle(
    bundle: Bundle,
    *,
    backend: Backend,
    horizon: int | None,
    testing: bool,
    domain: tuple[int, int] | None,
) -> Judged:
    """A bundle to be judged, on its engine.

    Args:
        bundle: an opened bundle.
        backend: what it runs on.
        horizon: frames to predict; None: as it was trained.
        testing: without `horizon`, the recipe's `data.test_horizon`, where it has one.
        domain: (H, W) of larger frames, which it covers in tiles, nothing cropped.

    Raises:
        EnvironmentFault: this machine cannot run the engine, or another provider runs it than is
            required.
        BundleError: a broken bundle.
    """
    from stpl_runtime.engines.tiled import on_domain
    from stpl_runtime.nowcasting.predict import graphs_needed

    manifest = bundle.manifest
    tile, data = manifest.frame[1:], manifest.recipe.get("data", {})
    asked = asked_horizon(horizon, testing, data, manifest.horizon)
    session = open_session(
        bundle,
        graphs_needed(manifest, asked, chances=bool(manifest.outputs)),
        engine=backend.engine,
        threads=backend.threads,
        forecast=backend.forecast,
        allow=backend.allow,
        require_provider=backend.require_provider,
    )

    def on(size: tuple[int, int], data: Mapping[str, Any], covers: bool) -> Judged:
        wide, opened = on_domain(bundle, session, size)
        forecast, likely = _forecasts_of(wide, opened, asked)
        return Judged(
            name=f"{manifest.model.name}, {manifest.model.parameters:,} parameters",
            how=f"{session.engine} on {session.provider}, {precision_of(session, manifest)}",
            context=manifest.context,
            horizon=asked,
            frame=wide.manifest.frame,
            codec=manifest.codec,
            cadence_s=manifest.cadence_s,
            forecast=forecast,
            likely=likely,
            own=lambda: _reference(bundle),
            data=data,
            grids=manifest.grids,
            whole_domain=covers,
            tiling=tiling_text(size, tile, manifest.horizon) if size != tile else "",
            cover=lambda field: on(field, data, True),
        )

    return on(domain or manifest.domain, _uncropped(data, domain), domain is not None)


def _forecasts_of(
    bundle: Bundle, session: Session, horizon: int
) -> tuple[Callable[[Array], Array], Callable[[Array], tuple[Array, Chances]] | None]:
    """`Judged.forecast` and `Judged.likely` of a bundle, on its own frames or on a domain."""
    from stpl_runtime.nowcasting.predict import predict_sequences, predict_with_chances

    if not bundle.manifest.outputs:
        return lambda frames: predict_sequences(bundle, session, frames, horizon), None

    def likely(frames: Array) -> tuple[Array, Chances]:
        return predict_with_chances(bundle, session, frames, horizon)

    return lambda frames: likely(frames)[0], likely  # by the step graph, which alone is open


def _uncropped(data: Mapping[str, Any], domain: tuple[int, int] | None) -> Mapping[str, Any]:
    """The recipe's `[data]`; of a domain that was asked for, nothing is cropped."""
    if domain is None:
        return data
    return {key: value for key, value in data.items() if key not in ("crop", "tiles")}


def _reference(bundle: Bundle) -> Material:
    """The sequences that the bundle proves itself with."""
    from stpl_runtime.proof.reference import load_reference

    reference = load_reference(bundle)
    frames = np.concatenate([reference.context, reference.truth], axis=1)
    return Material(
        f"the bundle's reference: {reference.data}",
        bundle.manifest.codec.physical_from_model(frames),
        always_seen(reference.observed),
    )


def read_material(path: Path, judged: Judged) -> Material:
    """Read the user's sequences; longer ones are cut, so that each frame is forecast once at most.

    Args:
        path: .npy or .npz as `stpl_core.frames.read_sequences` takes them. An .npz may also have
            `observed`, `(N, S, H, W)`, False where a pixel was not observed, and `time`, `(N, S)`.
        judged: says what frames are expected.

    Raises:
        FrameError: they cannot be read, do not fit, or are too few.
    """
    frames = read_sequences(path, judged.frame, judged.codec)  # (N, S, C, H, W)
    length = judged.context + judged.horizon
    if frames.shape[1] < length:
        raise FrameError(
            f"{path} has {frames.shape[1]} frames in a row",
            expected=f"at least {length}: {judged.context} to read, {judged.horizon} to compare",
            fix="give longer sequences",
        )
    every = range(0, frames.shape[1] - length + 1, judged.horizon)
    seen, times = read_beside(path, frames)

    def cut(values: NDArray[np.generic]) -> NDArray[np.generic]:
        """`(N, S, ...)` -> `(N windows, T + K, ...)`."""
        return np.concatenate([values[:, start : start + length] for start in every])

    return Material(
        about=str(path),
        frames=np.asarray(cut(frames), np.float32),
        valid=None if seen is None else always_seen(cut(seen)),
        times=None if times is None else np.asarray(cut(times), "datetime64[ns]"),
        longer=np.tile(np.arange(len(frames)), len(every)),
    )


def always_seen(observed: NDArray[np.generic] | None) -> Mask | None:
    """`(N, T + K, H, W)` -> `(N, H, W)`: observed in every frame; None stays None."""
    return None if observed is None else np.asarray(observed.astype(np.bool_).all(axis=1), np.bool_)
