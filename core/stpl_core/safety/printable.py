"""Names and texts of strangers, as they may reach a terminal, a log or a page."""

from __future__ import annotations

_MOST = 300


def printable(text: object, most: int = _MOST) -> str:
    r"""The text in one line, without what a terminal obeys, and not endlessly long.

    Escape sequences could recolour, clear or fake lines; they are written as `\x1b` is here. Marks
    that turn the direction of writing are among them. Bytes of a file name that are no UTF-8 are
    written as `\xff` is.
    """
    plain = "".join(letter if letter.isprintable() else _escaped(letter) for letter in str(text))
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte of a name: os.fsdecode
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
