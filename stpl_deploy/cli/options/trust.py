"""Whose bundles are opened, and how much a file may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stpl_core.option import Option
from stpl_core.options import SignatureOptions

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle


@dataclass(frozen=True)
class TrustOptions(SignatureOptions):
    """Whose bundles are opened, and how much a file may ask for."""

    max_pixels: Annotated[
        int | None,
        Option("Most values in one frame of a file.", default="by the model's grid", least=1),
    ] = None


def open_trusted(path: Path, options: TrustOptions) -> Bundle:
    """Open a bundle as the options ask, and set what one frame may have by its grid.

    Raises:
        UsageError, BundleError, ChecksumError, SignatureError: see `open_signed`.
    """
    from stpl_core.safety.budget import pixels_for, set_most_pixels
    from stpl_core.safety.open_signed import open_signed

    bundle = open_signed(path, options)
    channels, height, width = bundle.manifest.frame
    set_most_pixels(options.max_pixels or pixels_for(channels, height, width))
    return bundle
