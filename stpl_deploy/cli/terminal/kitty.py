"""The graphics protocol of kitty: a PNG in base64, in pieces of at most 4096 letters."""

from __future__ import annotations

from base64 import b64encode

_PIECE = 4096


def escaped(png: bytes, columns: int | None, width: int) -> str:
    """What is written to the terminal; see `PictureProtocol`."""
    text = b64encode(png).decode()
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    # a=T: show it at once; f=100: a PNG; q=2: no answer, which the shell would take for typed.
    keys = "a=T,f=100,q=2," + (f"c={columns}," if columns else "")
    written = []
    for n, piece in enumerate(pieces):
        more = int(n + 1 < len(pieces))
        written.append(f"\x1b_G{keys if n == 0 else ''}m={more};{piece}\x1b\\")
    return "".join(written) + "\n"
