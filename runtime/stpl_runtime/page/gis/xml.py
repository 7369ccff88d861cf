"""XML that is right whatever the texts hold: what is no markup yet is escaped."""

from __future__ import annotations

from html import escape

from stpl_runtime.page.gis.refusal import plain

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


class Xml(str):
    """A text that is markup already."""

    __slots__ = ()


def element(tag: str, *inside: str, **attributes: object) -> Xml:
    """An element.

    Args:
        tag: its name.
        inside: elements, and texts, which are escaped.
        attributes: `xlink__href` is xlink:href; one that is None is left out.
    """
    given = "".join(
        f' {name.replace("__", ":")}="{_escaped(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    body = "".join(one if isinstance(one, Xml) else _escaped(one) for one in inside)
    return Xml(f"<{tag}{given}>{body}</{tag}>")


def _escaped(text: str) -> str:
    return escape(plain(text), quote=True)
