"""What to type in the place of a source's word that is not known: the fix of its message."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Mapping

_OTHERS: Mapping[str, str] = {
    "mjpeg": "mjpeg+http:{rest}",
    "mjpg": "mjpeg+http:{rest}",
    "hls": "hls+https:{rest}",
    "gcs": "gs:{rest}",
    "az": "abfs:{rest}",
    "abfss": "abfs:{rest}",
    "wasb": "abfs:{rest}",
    "wasbs": "abfs:{rest}",
    "s3a": "s3:{rest}",
    "s3n": "s3:{rest}",
    "minio": "s3:{rest} with --source-option endpoint=URL",
    "ws": "mqtt+ws:{rest}, if it speaks MQTT",
    "wss": "mqtt+wss:{rest}, if it speaks MQTT",
    "webcam": "camera:{rest}",
    "usb": "camera:{rest}",
    "v4l2": "camera:{rest}",
    "redpanda": "kafka:{rest}",
    "dir": "folder:{rest}",
    "directory": "folder:{rest}",
}
"""Schemes of other tools -> what is the same here."""
_FILE_SERVERS = (
    "ftp",
    "ftps",
    "sftp",
    "ssh",
    "scp",
    "smb",
    "cifs",
    "nfs",
    "hdfs",
    "webhdfs",
    "dav",
)
"""Schemes that serve files, and that no source takes: a folder does."""
_FFMPEG = ("srt", "rtp", "rtmps", "rtmpt", "mms", "mmsh", "rist")
"""Schemes that FFmpeg takes, and no source does: a pipe does."""


def suggested(scheme: str, rest: str, words: Iterable[str], addresses: Container[str]) -> str:
    """What to type in place of `SCHEME:REST`.

    Args:
        scheme: which is not among `words`.
        rest: what followed its colon.
        words: every source's.
        addresses: those that want `//` after them.
    """
    if scheme == "file":
        return f"/{rest.lstrip('/')}" if rest.startswith("/") else rest or "a path"
    if scheme in _OTHERS:
        return _OTHERS[scheme].format(rest=rest)
    if scheme in _FILE_SERVERS:
        return "mount it, or copy its files into a folder as they come, and give that folder"
    if scheme in _FFMPEG:
        return f"ffmpeg -i {scheme}:{rest} -c copy -f nut - | stpl-deploy stream BUNDLE -"
    near = _nearest(scheme, list(words))
    if near is not None:
        return f"{near}://{rest.lstrip('/')}" if near in addresses else f"{near}:{rest}"
    return "one of these; docs/live-sources.md says what each takes"


def _nearest(scheme: str, words: list[str]) -> str | None:
    """The word with the same letters in another order, else the most alike."""
    swapped = (word for word in words if sorted(word) == sorted(scheme))
    alike = difflib.get_close_matches(scheme, words, n=1, cutoff=0.5 if len(scheme) < 3 else 0.6)
    return next(swapped, alike[0] if alike else None)
