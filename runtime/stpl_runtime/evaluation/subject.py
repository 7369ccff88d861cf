"""What `evaluate` judges, and on what: a run in PyTorch or a bundle on its engine; sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import MANIFEST, open_bundle
from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import EnvironmentFault, FrameError, UsageError
from stpl_core.frames import FrameShape, read_sequences
from stpl_core.grid import Grid
from stpl_core.npz_extras import read_beside
from stpl_core.scores.images import Mask

_BATCH = 8
"""Sequences that PyTorch runs at once."""


@dataclass(frozen=True)
class Backend:
    """What a bundle is to run on; see `stpl_runtime.engine.open_session`."""

    engine: str = "onnx"
    threads: int | None = None
    """Compute threads, of PyTorch too; None takes what this process may use."""
    forecast: str = "auto"
    require_provider: str | None = None


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
    """What is worth telling about them."""


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
    predict: Callable[[Array], Array]
    """`(N, T, C, H, W)` -> `(N, K, C, H, W)`, physical units."""
    own: Callable[[], Material]
    """The sequences that it carries along."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's `[data]`, resolved."""
    grids: tuple[Grid, ...] = ()
    """Of the training data, as the model saw them; empty where unknown."""


def open_judged(
    path: Path,
    *,
    backend: Backend = Backend(),
    horizon: int | None = None,
    testing: bool = False,
    domain: tuple[int, int] | None = None,
) -> Judged:
    """Open a run or a bundle.

    Args:
        path: its directory.
        backend: what a bundle runs on; a run always runs in PyTorch on the CPU.
        horizon: frames to predict; None: as it was trained.
        testing: without `horizon`, the recipe's `data.test_horizon`, where it has one.
        domain: (H, W) of larger frames, which a bundle covers in tiles, nothing cropped.

    Raises:
        UsageError: a domain or an engine for a run.
        EnvironmentFault: this machine cannot run the engine, or another provider runs it than is
            required.
        RunError: neither a run nor a bundle, or a broken run.
        BundleError: a broken bundle.
    """
    if (path / MANIFEST).is_file():
        return _bundle(path, backend, horizon, testing, domain)
    if domain is not None:
        raise UsageError(
            f"--grid for the run {path}",
            expected="a bundle, which covers larger frames in tiles",
            fix=f"stpl-deploy export {path} --out BUNDLE, then evaluate that",
        )
    judged = _run(path, backend.threads, horizon, testing)
    _check_torch(path, backend)
    return judged


def _check_torch(run: Path, backend: Backend) -> None:
    """Refuse what only a bundle can have."""
    wanted = backend.require_provider
    if wanted is not None and wanted.lower() not in "pytorch on the cpu":
        raise EnvironmentFault(
            f"the run {run} runs in PyTorch on the CPU",
            expected=f"{wanted}, which --require-provider asks for",
            fix=f"stpl-deploy export {run} --out BUNDLE, then evaluate that",
        )
    for option, value, usual in (
        ("--engine", backend.engine, "onnx"),
        ("--forecast", backend.forecast, "auto"),
    ):
        if value != usual:
            raise UsageError(
                f"{option} {value} for the run {run}",
                expected="a bundle, which runs on engines; a run is evaluated in PyTorch",
                fix=f"stpl-deploy export {run} --out BUNDLE, then evaluate that",
            )


def _asked(horizon: int | None, testing: bool, data: Mapping[str, Any], trained: int) -> int:
    return horizon or int((data.get("test_horizon") if testing else None) or trained)


def _bundle(
    path: Path,
    backend: Backend,
    horizon: int | None,
    testing: bool,
    domain: tuple[int, int] | None,
) -> Judged:
    from stpl_runtime.engine import open_session
    from stpl_runtime.engines.tiled import on_domain
    from stpl_runtime.nowcasting.predict import graphs_needed, predict_sequences
    from stpl_runtime.proof.reference import load_reference

    bundle = open_bundle(path)
    manifest = bundle.manifest
    data = manifest.recipe.get("data", {})
    asked = _asked(horizon, testing, data, manifest.horizon)
    session = open_session(
        bundle,
        graphs_needed(manifest, asked),
        engine=backend.engine,
        threads=backend.threads,
        forecast=backend.forecast,
        require_provider=backend.require_provider,
    )
    wide, session = on_domain(bundle, session, domain or manifest.domain)
    if domain is not None:
        data = {key: value for key, value in data.items() if key not in ("crop", "tiles")}

    def own() -> Material:
        reference = load_reference(bundle)
        frames = np.concatenate([reference.context, reference.truth], axis=1)
        return Material(
            f"the bundle's reference: {reference.data}",
            manifest.codec.physical_from_model(frames),
            None if reference.observed is None else _always(reference.observed),
        )

    return Judged(
        name=f"{manifest.model.name}, {manifest.model.parameters:,} parameters",
        how=f"{session.engine} on {session.provider}, {manifest.precision}",
        context=manifest.context,
        horizon=asked,
        frame=wide.manifest.frame,
        codec=manifest.codec,
        cadence_s=manifest.cadence_s,
        predict=lambda frames: predict_sequences(wide, session, frames, asked),
        own=own,
        data=data,
        grids=manifest.grids,
    )


def _run(path: Path, threads: int | None, horizon: int | None, testing: bool) -> Judged:
    import torch

    from stpl_core.machine import usable_cpus
    from stpl_train.run import VALIDATION, open_run
    from stpl_train.validation import forecasts

    run = open_run(path)
    data = run.recipe.data
    document = data.model_dump(exclude_none=True)
    asked = _asked(horizon, testing, document, data.horizon)
    model = run.model()
    torch.set_num_threads(threads or usable_cpus())

    def predict(frames: Array) -> Array:
        inside = data.codec.model_from_physical(frames)  # (N, T, C, H, W)
        # The values of the frames to come are not read, only their number.
        room = np.zeros((len(inside), asked, *inside.shape[2:]), np.float32)
        sequences = np.concatenate([inside, room], axis=1)
        return data.codec.physical_from_model(forecasts(model, sequences, data.context, _BATCH))

    def own() -> Material:
        frames = data.codec.physical_from_model(run.validation())
        observed, times = _beside(run.file(VALIDATION), frames)
        return Material("the run's validation sequences", frames, observed, times)

    parameters = sum(tensor.numel() for tensor in model.parameters())
    return Judged(
        name=f"{run.recipe.model.name}, {parameters:,} parameters",
        how="PyTorch, float32",
        context=data.context,
        horizon=asked,
        frame=run.frame_shape,
        codec=data.codec,
        cadence_s=data.cadence_s,
        predict=predict,
        own=own,
        data=document,
        grids=run.grids(),
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
        valid=None if seen is None else _always(cut(seen)),
        times=None if times is None else np.asarray(cut(times), "datetime64[ns]"),
    )


def _beside(path: Path, frames: Array) -> tuple[Mask | None, NDArray[np.datetime64] | None]:
    observed, times = read_beside(path, frames)
    return None if observed is None else _always(observed), times


def _always(observed: NDArray[np.generic]) -> Mask:
    """`(N, T + K, H, W)` -> `(N, H, W)`: observed in every frame."""
    return np.asarray(observed.astype(np.bool_).all(axis=1), np.bool_)
