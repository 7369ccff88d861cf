"""A run as what `evaluate` judges: its forecasts in PyTorch, its validation sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, UsageError
from stpl_core.machine import usable_cpus
from stpl_core.npz_extras import read_beside
from stpl_runtime.evaluation.subject import (
    Backend,
    Judged,
    Material,
    always_seen,
    asked_horizon,
    in_tiles,
)
from stpl_train.run import VALIDATION, Run, open_run
from stpl_train.validation import forecasts

_BATCH = 8
"""Sequences that PyTorch runs at once."""


def judged_run(
    path: Path,
    *,
    backend: Backend,
    horizon: int | None,
    testing: bool,
    domain: tuple[int, int] | None,
) -> Judged:
    """Open a run to be judged, in PyTorch on the CPU.

    Args:
        path: its directory.
        backend: its threads; the rest is for bundles.
        horizon: frames to predict; None: as it was trained.
        testing: without `horizon`, the recipe's `data.test_horizon`, where it has one.
        domain: for bundles.

    Raises:
        UsageError: a domain or an engine.
        EnvironmentFault: another provider is required.
        RunError: no run, or a broken one.
    """
    if domain is not None:
        raise _no_domain(path)
    run = open_run(path)
    data = run.recipe.data
    document = data.model_dump(exclude_none=True)
    asked = asked_horizon(horizon, testing, document, data.horizon)
    model = run.model()
    torch.set_num_threads(backend.threads or usable_cpus())
    _check_torch(path, backend)

    def unclipped(frames: Array) -> Array:
        inside = data.codec.model_from_physical(frames)  # (N, T, C, H, W)
        # The values of the frames to come are not read, only their number.
        room = np.zeros((len(inside), asked, *inside.shape[2:]), np.float32)
        sequences = np.concatenate([inside, room], axis=1)
        return forecasts(model, sequences, data.context, _BATCH, clip=False)

    def forecast(frames: Array) -> Array:
        return data.codec.physical_from_model(unclipped(frames))

    parameters = sum(tensor.numel() for tensor in model.parameters())
    judged = Judged(
        name=f"{run.recipe.model.name}, {parameters:,} parameters",
        how="PyTorch, float32",
        context=data.context,
        horizon=asked,
        frame=run.frame_shape,
        codec=data.codec,
        cadence_s=data.cadence_s,
        forecast=forecast,
        own=lambda: _validation(run),
        data=document,
        grids=run.grids(),
    )
    return replace(judged, cover=lambda field: in_tiles(judged, field, unclipped))


def _no_domain(run: Path) -> UsageError:
    return UsageError(
        f"--grid for the run {run}",
        expected="a bundle, which covers larger frames in tiles",
        fix=f"stpl-deploy export {run} --out BUNDLE, then evaluate that",
    )


def _validation(run: Run) -> Material:
    """The sequences that the training kept out."""
    frames = run.recipe.data.codec.physical_from_model(run.validation())
    observed, times = read_beside(run.file(VALIDATION), frames)
    return Material("the run's validation sequences", frames, always_seen(observed), times)


def _check_torch(run: Path, backend: Backend) -> None:
    """Refuse what only a bundle can have."""
    required = backend.require_provider
    if required is not None and required.lower() not in "pytorch on the cpu":
        raise EnvironmentFault(
            f"the run {run} runs in PyTorch on the CPU",
            expected=f"{required}, which --require-provider asks for",
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
