"""Chances of events beside the frames of a nowcast, where the model gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stpl_core.bundle import Manifest, OutputSpec
from stpl_core.codec import Array
from stpl_core.errors import UsageError

CHANCE = "probability_of_exceedance"
"""Of the variable in files."""
_DIGITS = 4
"""Of a threshold: a recipe has its level less a rounding, so that the threshold itself counts."""


@dataclass(frozen=True)
class Chances:
    """How likely each pixel of each predicted frame is to be at or above each threshold."""

    thresholds: tuple[float, ...]
    """Q of them, rising, physical units."""
    values: Array
    """`(K, Q, C, H, W)` float32, 0 to 1; of N sequences an axis more in front."""


def exceedance_of(manifest: Manifest, asked: str = "--probabilities") -> OutputSpec:
    """The output that holds the chances.

    Args:
        manifest: of a bundle.
        asked: the option that needs them, for the message.

    Raises:
        UsageError: the model gives none.
    """
    for spec in manifest.outputs:
        if spec.kind == "exceedance":
            return spec
    raise UsageError(
        f"{asked}, and the model {manifest.model.name} of this bundle gives no chances",
        expected="a bundle of a model that does, such as advect, exported by this version",
        fix="stpl-deploy export pretrained:radar-nowcast --out rain.bundle",
    )


def thresholds_of(manifest: Manifest) -> tuple[float, ...]:
    """The levels of the chances in physical units."""
    levels = np.asarray(exceedance_of(manifest).levels, np.float32)
    found = manifest.codec.physical_from_model(levels)
    return tuple(float(f"{value:.{_DIGITS}g}") for value in found.tolist())
