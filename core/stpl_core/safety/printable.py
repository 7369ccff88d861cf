"""Names and texts of strangers, as they may reach a terminal, a log or a page."""

from __future__ import annotations

_MOST = 300


def printable(text: object, most: int = _MOST) -> str:
    r"""The text in one line, without what a terminal obeys, and not endlessly long.

    Escape sequences could recolour, clear or fake lines; they are written as `\x1b` is here. Marks
    that turn the direction of writing are among them.
    """
    plain = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text).encode("utf-8", "backslashreplace").decode()
    )
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
