"""The inline images of iTerm2, which WezTerm and mintty know too: a PNG in base64."""

from __future__ import annotations

from base64 import b64encode


def escaped(png: bytes, columns: int | None, width: int) -> str:
    """What is written to the terminal; see `PictureProtocol`."""
    keys = f"inline=1;size={len(png)};preserveAspectRatio=1"
    if columns:
        keys += ";width=100%"
    return f"\x1b]1337;File={keys}:{b64encode(png).decode()}\x07\n"
