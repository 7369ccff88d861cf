"""A picture in the terminal, by the protocol that the terminal knows."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast

if TYPE_CHECKING:
    from stpl_runtime.nowcast import Nowcast

Preview = Literal["auto", "kitty", "iterm", "sixel", "none"]
"""How a picture is shown in the terminal: a protocol, the one that it knows, or not at all."""

_CELL = 8
"""Width of a letter in pixels, where the terminal does not say: less than most have."""


class PictureProtocol(Protocol):
    """One way to write a picture; a module each in this folder."""

    def escaped(self, png: bytes, columns: int | None, width: int) -> str:
        """What is written to the terminal.

        Args:
            png: the picture, a PNG file.
            columns: of the terminal, where the picture is wider and has to shrink.
            width: of the terminal, in pixels.
        """


def show_nowcast(nowcast: Nowcast, preview: Preview) -> None:
    """Show past and forecast on stdout, where that is a terminal that can."""
    protocol = _protocol(preview)
    if protocol is None or nowcast.frames.ndim != 4:
        return
    from stpl_core.drawing.pictures import png_size
    from stpl_runtime.sinks.png import png_bytes_within

    columns, width = _terminal_size()
    png = png_bytes_within(nowcast, width)
    shrinks = png_size(png)[0] > width
    sys.stdout.write(protocol.escaped(png, columns if shrinks else None, width))
    sys.stdout.flush()


def _protocol(preview: Preview) -> PictureProtocol | None:
    if preview == "none" or not sys.stdout.isatty():
        return None
    if preview == "auto":
        import os

        from stpl_deploy.cli.terminal.asking import draws_sixels
        from stpl_deploy.cli.terminal.known import known_protocol, may_be_asked

        word = known_protocol(os.environ)
        if word is None and may_be_asked(os.environ) and draws_sixels():
            word = "sixel"
        if word is None:
            return None
    else:
        word = preview
    return cast("PictureProtocol", import_module(f"stpl_deploy.cli.terminal.{word}"))


def _terminal_size() -> tuple[int, int]:
    """Its columns, and its width in pixels."""
    import os

    columns, pixels = os.get_terminal_size(sys.stdout.fileno()).columns or 80, 0
    try:
        import fcntl
        import struct
        import termios

        told = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        pixels = struct.unpack("HHHH", told)[2]
    except (ImportError, OSError):  # no such call here: the usual size of letters has to do
        pass
    return columns, pixels or columns * _CELL
