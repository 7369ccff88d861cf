"""Whether a bundle's reference fits its manifest: a stranger's may hold arrays of any form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Manifest

if TYPE_CHECKING:
    from stpl_runtime.proof.reference import Reference


def check_reference(reference: Reference, manifest: Manifest) -> None:
    """Hold every array against the manifest.

    Raises:
        ValueError: one has another shape or type, or values that are none.
    """
    count = len(reference.context) if reference.context.ndim else 0
    frame, horizon = manifest.frame, manifest.horizon
    if count < 1:
        raise ValueError("it holds no sequence")
    _check("context", reference.context, (count, manifest.context, *frame))
    _check("truth", reference.truth, (count, horizon, *frame))
    kept = frame
    if reference.pixels is not None:
        size = _places("pixels", reference.pixels, frame[1] * frame[2])
        kept = (frame[0], 1, size)
    _check("float32", reference.float32, (count, horizon, *kept))
    _check("float64", reference.float64, (count, horizon, *kept))
    _check("tolerance", reference.tolerance, (horizon,))
    if not (reference.tolerance > 0).all():
        raise ValueError("a tolerance is not above 0")
    if reference.observed is not None:
        seen = (count, manifest.context + horizon, *frame[1:])
        _check("observed", reference.observed, seen, kinds="b")
    for spec in manifest.state:
        state = reference.states[spec.name]
        whole = int(np.prod(spec.shape))
        shape = (1, *spec.shape)
        if state.places is not None:
            shape = (1, _places(f"state_places/{spec.name}", state.places, whole))
        _check(f"state/{spec.name}", state.values, shape)
        if not 0 < state.tolerance < np.inf:
            raise ValueError(f"state_tolerance/{spec.name} is not above 0")
    if reference.int8 is not None:
        early = reference.int8.early
        steps = early.shape[1] if early.ndim > 1 else 0
        _check("int8/early", early, (count, steps, *kept))
        _check("int8/early_psnr_db", reference.int8.early_psnr_db, (steps,), finite=False)
        _check("int8/min_psnr_db", reference.int8.min_psnr_db, (horizon,), finite=False)


def _check(
    name: str, array: NDArray[Any], shape: tuple[int, ...], *, kinds: str = "f", finite: bool = True
) -> None:
    if array.shape != shape or array.dtype.kind not in kinds:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {shape}")
    if finite and kinds == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are NaN or infinite")


def _places(name: str, places: NDArray[Any], most: int) -> int:
    """How many places there are, each in range."""
    if places.ndim != 1 or places.dtype.kind not in "iu" or not 0 < len(places) <= most:
        raise ValueError(f"{name} is {places.dtype} {places.shape}")
    if places.min() < 0 or places.max() >= most:
        raise ValueError(f"{name} leaves the frame")
    return len(places)
