"""Whose bundles are opened, and how much a file may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stpl_core.errors import UsageError
from stpl_core.option import Option

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle


@dataclass(frozen=True)
class TrustOptions:
    """Whose bundles are opened, and how much a file may ask for."""

    trusted_keys: Annotated[
        Path | None,
        Option("Public key, or folder of them: open only what one of them signed."),
    ] = None
    min_version: Annotated[
        int, Option("With --trusted-keys: refuse a bundle of an older version.", least=0)
    ] = 0
    max_pixels: Annotated[
        int | None,
        Option("Most values in one frame of a file.", default="by the model's grid", least=1),
    ] = None


def open_trusted(path: Path, options: TrustOptions) -> Bundle:
    """Open a bundle as the options ask, and set what one frame may have by its grid.

    Raises:
        UsageError: no such keys, or a version without keys.
        BundleError, ChecksumError, SignatureError: see `open_bundle`.
    """
    from stpl_core.bundle import open_bundle
    from stpl_core.safety.budget import pixels_for, set_most_pixels
    from stpl_core.safety.signing import trusted_keys

    if options.min_version and options.trusted_keys is None:
        raise UsageError(
            f"--min-version {options.min_version} without --trusted-keys",
            expected="keys whose signatures state versions",
            fix="--trusted-keys KEYS",
        )
    trusted = None
    if options.trusted_keys is not None:
        trusted = trusted_keys(options.trusted_keys, options.min_version)
    bundle = open_bundle(path, trusted=trusted)
    channels, height, width = bundle.manifest.frame
    set_most_pixels(options.max_pixels or pixels_for(channels, height, width))
    return bundle
