"""Playlists of HLS (RFC 8216): what they name, and when it was filmed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urljoin, urlsplit

from stpl_core.errors import FrameError
from stpl_runtime.timing import time_from_text

MOST_BYTES = 4 * 2**20
_NUMBER = re.compile(r"\d+(\.\d+)?")
_ATTRIBUTE = re.compile(r'(?<![A-Z0-9-])([A-Z0-9-]+)=("[^"]*"|[^,]*)')
_LONGEST_S = 3600.0
"""Of a segment at most; the usual ones have 2 to 10 s."""
_YEARS = range(1900, 3000)
"""Of a stated time: no list of segments counts on from it beyond what a date can be."""
_USUAL_S = 10.0


@dataclass(frozen=True)
class Segment:
    """A few seconds of film."""

    url: str
    offset: int
    """Where it begins in what lies there, in bytes."""
    start: datetime
    """When its first picture was taken: as the playlist says, else as if the newest segment had
    ended when the playlist was fetched."""


@dataclass(frozen=True)
class Variant:
    """One of several forms of the same film."""

    url: str
    bandwidth: int
    width: int
    height: int
    """0 where they are not stated."""


@dataclass(frozen=True)
class Playlist:
    """What one file says."""

    segments: tuple[Segment, ...] = ()
    variants: tuple[Variant, ...] = ()
    target_s: float = _USUAL_S
    """The longest segment."""
    dated: bool = False
    """Whether it says when it was filmed (EXT-X-PROGRAM-DATE-TIME)."""
    ended: bool = False
    """Nothing will be added."""
    encrypted: bool = False

    def variant_for(self, height: int, width: int) -> Variant:
        """The smallest that has so many pixels; where none has, or none says so, the best."""
        fits = [one for one in self.variants if one.width >= width and one.height >= height]
        if fits:
            return min(fits, key=lambda one: (one.width * one.height, one.bandwidth))
        return max(self.variants, key=lambda one: (one.width * one.height, one.bandwidth))


def is_playlist(url: str, content_type: str = "") -> bool:
    """Whether an HLS playlist lies behind a URL, by the end of its path or the Content-Type."""
    kind = content_type.partition(";")[0].strip().lower()
    return urlsplit(url).path.lower().endswith((".m3u8", ".m3u")) or kind.endswith("mpegurl")


def read_playlist(content: bytes, url: str, fetched: datetime) -> Playlist:
    """What a playlist says.

    Args:
        content: of the file.
        url: it came from: what it names is relative to that.
        fetched: when.

    Raises:
        FrameError: it is no playlist.
    """
    if not content.lstrip(b"\xef\xbb\xbf").startswith(b"#EXTM3U"):
        raise FrameError(
            "it is no playlist", expected="#EXTM3U as its first line", fix="open it in a browser"
        )
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    target = next((line for line in lines if line.startswith("#EXT-X-TARGETDURATION:")), "")
    parts = list(_parts(lines, url))
    total_s = sum(part.seconds for part in parts)
    dated = any(part.stated for part in parts)
    return Playlist(
        segments=tuple(_dated(parts, fetched - timedelta(seconds=total_s))),
        variants=tuple(_variants(lines, url)),
        target_s=_seconds(target.partition(":")[2]) or _USUAL_S,
        dated=dated,
        ended="#EXT-X-ENDLIST" in lines,
        encrypted=any(
            line.startswith("#EXT-X-KEY:") and "METHOD=NONE" not in line for line in lines
        ),
    )


@dataclass
class _Part:
    url: str
    offset: int
    seconds: float
    stated: datetime | None


def _parts(lines: list[str], url: str) -> Iterator[_Part]:
    """The segments in order; what stands before a URL is about it."""
    seconds, stated, offset, ends = 0.0, None, 0, dict[str, int]()
    length = None
    given: int | None = None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "#EXTINF":
            seconds = _seconds(value)
        elif name == "#EXT-X-PROGRAM-DATE-TIME":
            stated = _time(value)
        elif name == "#EXT-X-BYTERANGE":
            count, _, begin = value.partition("@")
            length = int(count) if count.isdecimal() else None
            given = int(begin) if begin.isdecimal() else None
        elif name == "#EXT-X-STREAM-INF":
            return  # its URLs are playlists
        elif line and not line.startswith("#"):
            where = urljoin(url, line)
            if length is not None:
                offset = ends.get(where, 0) if given is None else given
                ends[where] = offset + length
            yield _Part(where, offset, seconds, stated)
            seconds, stated, offset, length, given = 0.0, None, 0, None, None


def _dated(parts: list[_Part], first: datetime) -> Iterator[Segment]:
    """Each with its time; what is stated of one counts on to those after it and back before it."""
    known = next((n for n, part in enumerate(parts) if part.stated), None)
    at = first
    if known is not None:
        before_s = sum(part.seconds for part in parts[:known])
        at = (parts[known].stated or first) - timedelta(seconds=before_s)
    for part in parts:
        at = part.stated or at
        yield Segment(part.url, part.offset, at)
        at += timedelta(seconds=part.seconds)


def _variants(lines: list[str], url: str) -> Iterator[Variant]:
    waiting: dict[str, str] | None = None
    for line in lines:
        if line.startswith("#EXT-X-STREAM-INF:"):
            waiting = dict(_ATTRIBUTE.findall(line.partition(":")[2]))
        elif line and not line.startswith("#") and waiting is not None:
            width, _, height = waiting.get("RESOLUTION", "").lower().partition("x")
            bandwidth = waiting.get("BANDWIDTH", "")
            yield Variant(urljoin(url, line), _count(bandwidth), _count(width), _count(height))
            waiting = None


def _seconds(text: str) -> float:
    found = _NUMBER.match(text.strip())
    return min(float(found.group()), _LONGEST_S) if found else 0.0


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 12 else 0


def _time(text: str) -> datetime | None:
    try:
        found = time_from_text(text)
    except ValueError:
        return None
    return found if found.year in _YEARS else None
