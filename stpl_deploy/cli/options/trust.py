"""Whose bundles are opened, and how much a file may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stpl_core.options import TrustOptions as TrustOptions

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle


def open_trusted(path: Path, options: TrustOptions) -> Bundle:
    """See `stpl_core.safety.open_signed`, which is imported when a bundle is opened."""
    from stpl_core.safety import open_signed

    return open_signed.open_trusted(path, options)
