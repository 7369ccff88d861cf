"""What PyTorch gave for a few real sequences: lets any device prove itself without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_deploy.bundle import REFERENCE, Bundle
from stpl_deploy.codec import Array
from stpl_deploy.errors import BundleError

Double = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceState:
    """One state tensor after the context of the first sequence."""

    values: Double
    """`(1, *shape)`, PyTorch in float64."""
    tolerance: float
    """Greatest difference that an fp32 engine may show."""


@dataclass(frozen=True)
class Int8Reference:
    """What the quantised graph of an int8 bundle gives when it is computed node by node."""

    min_psnr_db: Double
    """`(K,)`: least PSNR between an engine and PyTorch at each lead time."""
    early: Array
    """`(N, n, C, H, W)`: guesses after the first n frames of the context."""
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
    """`(N, K, C, H, W)`, PyTorch in float32."""
    float64: Double
    """`(N, K, C, H, W)`, PyTorch in float64."""
    tolerance: Double
    """`(K,)`: greatest difference from float64 that an fp32 engine may show at each lead time."""
    states: dict[str, ReferenceState]
    observed: NDArray[np.bool_] | None = None
    """`(N, T + K, H, W)`, False where a pixel was not observed; None: all were."""
    int8: Int8Reference | None = None

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
        for name, state in self.states.items():
            plain[f"state/{name}"] = state.values
            plain[f"state_tolerance/{name}"] = np.asarray(state.tolerance)
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
        with np.load(path, allow_pickle=False) as archive:
            states = {
                spec.name: ReferenceState(
                    archive[f"state/{spec.name}"],
                    float(archive[f"state_tolerance/{spec.name}"]),
                )
                for spec in bundle.manifest.state
            }
            return Reference(
                data=str(archive["data"]),
                context=archive["context"],
                truth=archive["truth"],
                float32=archive["float32"],
                float64=archive["float64"],
                tolerance=archive["tolerance"],
                states=states,
                observed=archive["observed"] if "observed" in archive.files else None,
                int8=Int8Reference(
                    min_psnr_db=archive["int8/min_psnr_db"],
                    early=archive["int8/early"],
                    early_psnr_db=archive["int8/early_psnr_db"],
                )
                if bundle.manifest.precision == "int8"
                else None,
            )
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise BundleError(
            f"{path} cannot be read: {error}",
            expected="the sequences that export wrote",
            fix="export the run again",
        ) from error
