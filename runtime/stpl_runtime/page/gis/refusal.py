"""A request that is refused, in a sentence."""

from __future__ import annotations

_MOST = 80


class RefusedError(Exception):
    """A request that cannot be answered.

    It is no `StplError`: a stranger's request is answered and forgotten.
    """

    def __init__(self, text: str, code: str = "", status: int = 400) -> None:
        """State why.

        Args:
            text: what was found and what was expected.
            code: that WMS has for it; empty where it has none.
            status: of the HTTP answer, where the standard leaves it to us.
        """
        super().__init__(text)
        self.text, self.code, self.status = plain(text), code, status


def plain(text: str) -> str:
    """A text in one line, without letters that a document cannot hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def quoted(given: str) -> str:
    """What a stranger sent, cut to a bearable length."""
    return repr(given if len(given) <= _MOST else f"{given[:_MOST]}...")
