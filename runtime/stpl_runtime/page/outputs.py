"""The newest nowcast for programs: one file, in the format that is asked for."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import quote

from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sinks.file_format import file_formats, format_of
from stpl_runtime.sinks.summary import summary

FORMATS = {
    "json": "application/json",
    **{one.word: one.media_type for one in file_formats() if one.media_type},
}
"""Word of `?format=` -> its media type, which `Accept` may ask for."""
_ALIASES = {"netcdf": "nc", "netcdf4": "nc", "geotiff": "tif", "tiff": "tif"}
_MEDIA = {"application/x-netcdf": "nc", **{media: word for word, media in FORMATS.items()}}
_KEPT = 6


def chosen_format(asked: str | None, accept: str) -> str | None:
    """The word of a format, from `?format=` or else from the Accept header; None: neither fits."""
    if asked is not None:
        word = asked.lower().lstrip(".")
        word = _ALIASES.get(word, word)
        return word if word in FORMATS else None
    wishes = []
    for n, part in enumerate(accept.split(",")):
        media, *rest = (piece.strip().lower() for piece in part.split(";"))
        quality = next((_quality(piece) for piece in rest if piece.startswith("q=")), 1.0)
        wishes.append((-quality, n, media))
    for quality, _, media in sorted(wishes):
        if quality == 0:
            continue
        if media in ("", "*/*", "application/*", "text/html"):  # text/html: a browser
            return "json"
        if media == "image/*":
            return "png"
        if media in _MEDIA:
            return _MEDIA[media]
    return None


def _quality(piece: str) -> float:
    try:
        return min(1.0, max(0.0, float(piece[2:])))
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Output:
    """A file."""

    content: bytes
    media: str
    name: str
    tag: str
    """Differs for every content."""


class Outputs:
    """Makes each file once, however many ask; one at a time, as the NetCDF library needs it."""

    def __init__(self, run: str) -> None:
        """Args: run: goes into the tags, since another start counts anew."""
        self._run = run
        self._made: OrderedDict[tuple[int, str], tuple[Nowcast, Output]] = OrderedDict()
        self._lock = threading.Lock()

    def file(self, nowcast: Nowcast, word: str) -> Output:
        """A nowcast in the format `word`.

        Raises:
            MissingExtraError: a library is not installed.
        """
        with self._lock:
            known = self._made.get((id(nowcast), word))
            if known is not None and known[0] is nowcast:
                return known[1]
            output = Output(
                _content(nowcast, word),
                FORMATS[word],
                f"{nowcast.name}.{word}",
                self.tag(nowcast, word),
            )
            self._made[id(nowcast), word] = (nowcast, output)
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
            return output

    def tag(self, nowcast: Nowcast, word: str) -> str:
        """The tag that `file` would give."""
        stream = quote(nowcast.stream)  # headers hold no other letters
        return f'"{self._run}-{stream}-{nowcast.name}-{nowcast.latency_ms}-{word}"'


def _content(nowcast: Nowcast, word: str) -> bytes:
    if word == "json":
        return (json.dumps(summary(nowcast), allow_nan=False) + "\n").encode()
    return format_of(f".{word}").bytes_of(nowcast)
