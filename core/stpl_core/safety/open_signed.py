"""Opening a bundle as its user asks: signed or not, by whom, and how old."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.errors import UsageError
from stpl_core.options import SignatureOptions, TrustOptions
from stpl_core.safety.budget import pixels_for, set_most_pixels
from stpl_core.safety.signing import trusted_keys
from stpl_core.safety.versions import remember_version, remembered_version


def open_signed(path: Path, options: SignatureOptions, *, checksums: bool = True) -> Bundle:
    """Open a bundle; with trusted keys only what they signed, and no version that was overtaken.

    Args:
        path: the bundle's directory.
        options: whose signatures count. Without a least version, the newest one that was opened at
            this place before is asked for; a least version is taken as it is, and remembered anew.
        checksums: see `open_bundle`.

    Raises:
        UsageError: no such keys, or a version without keys.
        BundleError, ChecksumError, SignatureError: see `open_bundle`.
    """
    if options.trusted_keys is None:
        if options.min_version is not None:
            raise UsageError(
                f"--min-version {options.min_version} without --trusted-keys",
                expected="keys whose signatures state versions",
                fix="--trusted-keys KEYS",
            )
        return open_bundle(path, checksums=checksums)
    trusted = trusted_keys(options.trusted_keys)
    before = remembered_version(path)
    if options.min_version is None:
        trusted = replace(trusted, min_version=before, remembered=True)
    else:
        trusted = replace(trusted, min_version=options.min_version)
    bundle = open_bundle(path, checksums=checksums, trusted=trusted)
    if bundle.version != before and bundle.version is not None:
        remember_version(path, bundle.version)
    return bundle


def open_trusted(path: Path, options: TrustOptions) -> Bundle:
    """Open a bundle as the options ask, and set what one frame may have by its grid.

    Raises:
        UsageError, BundleError, ChecksumError, SignatureError: see `open_signed`.
    """
    bundle = open_signed(path, options)
    channels, height, width = bundle.manifest.frame
    set_most_pixels(options.max_pixels or pixels_for(channels, height, width))
    return bundle
