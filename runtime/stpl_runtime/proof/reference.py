"""What PyTorch gave for a few real sequences: lets any device prove itself without PyTorch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import REFERENCE, Bundle, Manifest
from stpl_core.codec import Array
from stpl_core.errors import BundleError, StplError
from stpl_core.readers.npz import open_npz
from stpl_core.safety.printable import printable

Double = NDArray[np.float64]
Places = NDArray[np.int32]


@dataclass(frozen=True)
class ReferenceState:
    """One state tensor after the context of the first sequence."""

    values: Double
    """`(1, *shape)`, PyTorch in float64; `(1, P)` where only some are kept."""
    tolerance: float
    """Greatest difference that an fp32 engine may show."""
    places: Places | None = None
    """`(P,)`: which values of the flat state are kept; None: all."""

    def kept(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of a state `(1, *shape)`, what is kept here."""
        return values if self.places is None else values.reshape(1, -1)[:, self.places]


@dataclass(frozen=True)
class ReferenceOutput:
    """What is given beside the frames of the first sequence, at every lead time."""

    values: Double
    """`(K, P)`, PyTorch in float64."""
    tolerance: Double
    """`(K,)`: greatest difference that an fp32 engine may show."""
    places: Places
    """`(P,)`: which values of the flat output are kept."""


@dataclass(frozen=True)
class Int8Reference:
    """What the quantised graph of an int8 bundle gives when it is computed node by node."""

    min_psnr_db: Double
    """`(K,)`: least PSNR between an engine and PyTorch at each lead time."""
    early: Array
    """`(N, n, C, H, W)`: guesses after the first n frames of the context, or `(N, n, C, 1, P)`."""
    early_psnr_db: Double
    """`(n,)`: least PSNR between an engine's guesses and those."""


@dataclass(frozen=True)
class Reference:
    """Sequences in model units with PyTorch's closed-loop outputs."""

    data: str
    """Where the sequences came from; `synthetic` where moving digits stood in."""
    context: Array
    """`(N, T, C, H, W)`"""
    truth: Array
    """`(N, K, C, H, W)`"""
    float32: Array
    """`(N, K, C, H, W)`, PyTorch in float32; `(N, K, C, 1, P)` where only some pixels are kept."""
    float64: Double
    """PyTorch in float64, likewise."""
    tolerance: Double
    """`(K,)`: greatest difference from float64 that an fp32 engine may show at each lead time."""
    states: dict[str, ReferenceState]
    observed: NDArray[np.bool_] | None = None
    """`(N, T + K, H, W)`, False where a pixel was not observed; None: all were."""
    int8: Int8Reference | None = None
    pixels: Places | None = None
    """`(P,)`: row * W + column of the pixels whose outputs are kept, of large frames; None: all.
    What is read, `context` and `truth`, is whole."""
    outputs: Mapping[str, ReferenceOutput] = field(default_factory=dict)
    """What is given beside the frames, by the names of the manifest's `outputs`; empty in bundles
    that were made before it was kept."""

    def kept(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Of `(..., H, W)` the pixels that outputs are kept of, `(..., 1, P)`; or all as it is."""
        if self.pixels is None:
            return frames
        return frames.reshape(*frames.shape[:-2], 1, -1)[..., self.pixels]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name -> array, as `reference.npz` holds them."""
        plain = {
            "data": np.asarray(self.data),
            "context": self.context,
            "truth": self.truth,
            "float32": self.float32,
            "float64": self.float64,
            "tolerance": self.tolerance,
        }
        if self.observed is not None:
            plain["observed"] = self.observed
        if self.pixels is not None:
            plain["pixels"] = self.pixels
        for name, state in self.states.items():
            plain[f"state/{name}"] = state.values
            plain[f"state_tolerance/{name}"] = np.asarray(state.tolerance)
            if state.places is not None:
                plain[f"state_places/{name}"] = state.places
        for name, output in self.outputs.items():
            plain |= {f"output/{name}/{key}": value for key, value in vars(output).items()}
        if self.int8 is not None:
            plain |= {f"int8/{name}": value for name, value in vars(self.int8).items()}
        return plain


def load_reference(bundle: Bundle) -> Reference:
    """Read a bundle's `reference.npz`.

    Raises:
        BundleError: it is missing or not of this form.
    """
    path = bundle.file(REFERENCE)
    try:
        with open_npz(io.BytesIO(bundle.content(REFERENCE))) as archive:

            def some(name: str) -> NDArray[Any] | None:
                return archive[name] if name in archive.files else None

            states = {
                spec.name: ReferenceState(
                    archive[f"state/{spec.name}"],
                    float(archive[f"state_tolerance/{spec.name}"]),
                    some(f"state_places/{spec.name}"),
                )
                for spec in bundle.manifest.state
            }
            reference = Reference(
                data=str(archive["data"]),
                context=archive["context"],
                truth=archive["truth"],
                float32=archive["float32"],
                float64=archive["float64"],
                tolerance=archive["tolerance"],
                states=states,
                observed=some("observed"),
                pixels=some("pixels"),
                outputs={
                    spec.name: ReferenceOutput(
                        **{
                            key: archive[f"output/{spec.name}/{key}"]
                            for key in ("values", "tolerance", "places")
                        }
                    )
                    for spec in bundle.manifest.outputs
                },
                int8=Int8Reference(
                    min_psnr_db=archive["int8/min_psnr_db"],
                    early=archive["int8/early"],
                    early_psnr_db=archive["int8/early_psnr_db"],
                )
                if bundle.manifest.precision == "int8"
                else None,
            )
            check_reference(reference, bundle.manifest)
            return reference
    except StplError:
        raise
    except Exception as error:  # what a parser meets in damaged bytes has no common base
        raise BundleError(
            f"{path} cannot be read: {printable(error)}",
            expected="the sequences that export wrote",
            fix="export the run again",
        ) from error


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
    shapes = {spec.name: spec.shape for spec in manifest.state}
    for name, output in reference.outputs.items():
        size = _places(f"output/{name}/places", output.places, int(np.prod(shapes[name])))
        _check(f"output/{name}/values", output.values, (horizon, size))
        _check(f"output/{name}/tolerance", output.tolerance, (horizon,))
        if not (output.tolerance > 0).all():
            raise ValueError(f"output/{name}/tolerance is not above 0")
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
