"""Objects of a bucket, by fsspec: s3://BUCKET/PREFIX, and gs:// and abfs:// with their libraries.

    s3://noaa-mrms-pds/CONUS/PrecipRate_00.00/%Y%m%d/     the prefix of today and of yesterday
    s3://my-radar/composites/                             one prefix, listed whole each time

Only keys that are new, or whose content changed, are read. At the start these are the newest
`backlog`. Keys and secrets come from the environment, as for every tool of that cloud.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stpl_core.errors import EnvironmentFault, FrameError, UsageError
from stpl_core.frames import Frame
from stpl_core.readers.libraries import reads_with
from stpl_runtime.ingest.decoding import Decoder, file_suffixes
from stpl_runtime.ingest.unread_files import Unread
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import Backoff, reason_of, without_credentials
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.timing import EPOCH, NameClock, time_from_text

OPTIONS = (
    "interval",
    "anonymous",
    "endpoint",
    "region",
    "backlog",
    "suffix",
    "max_mb",
    "resize",
)
_LEAST_S, _MOST_S, _USUAL_S = 2.0, 60.0, 10.0
"""Between two listings: a tenth of the cadence within these; the last where there is none."""
_BACKLOG = 32
_MAX_MB = 256.0
_CONNECT_S, _READ_S = 5, 20
_REFUSALS = 4
"""After so many objects that cannot be read, a listing's others wait for the next one."""
_PATIENCE_S = 60.0
"""How long one that cannot be read is tried, while others are read."""
_LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs"}
"""Scheme -> the library that fsspec wants for it."""


@dataclass(frozen=True)
class _Object:
    """What a listing says of an object."""

    key: str
    tag: str
    """Changes with the content."""
    size: int
    modified: datetime | None

    @property
    def name(self) -> str:
        """The last part of the key."""
        return PurePosixPath(self.key).name


def _open(scheme: str, rest: str, spec: SourceSpec) -> BucketSource:
    with reads_with("s3"):
        import fsspec
    path = rest.removeprefix("//")
    name = without_credentials(f"{scheme}://{path}")
    if not path.partition("/")[0]:
        example = f"{scheme}://BUCKET/PREFIX"
        raise UsageError(f"{name} names no bucket", expected=example, fix=example)
    options = Options(name, spec.options, OPTIONS)
    try:
        files = fsspec.filesystem(
            scheme, skip_instance_cache=True, use_listings_cache=False, **_how(scheme, options)
        )
    except ImportError as error:
        library = _LIBRARIES[scheme]
        fix = "pip install 'stpl-deploy[s3]'" if scheme == "s3" else f"pip install {library}"
        raise EnvironmentFault(
            f"{library} is not installed", expected=f"the library for {scheme}://", fix=fix
        ) from error
    files.retries = 1  # s3fs: we try again ourselves
    return BucketSource(files, path, name, options, spec)


def _how(scheme: str, options: Options) -> dict[str, Any]:
    """The arguments of the file system."""
    anonymous, endpoint = options.flag("anonymous"), options.text("endpoint")
    if scheme == "gs":
        where = {"endpoint_url": endpoint} if endpoint else {}
        return {**where, "token": "anon"} if anonymous else where
    if scheme == "abfs":
        return {"anon": anonymous}
    client = {"endpoint_url": endpoint, "region_name": options.text("region")}
    return {
        "anon": anonymous,
        "client_kwargs": {key: value for key, value in client.items() if value},
        "config_kwargs": {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _READ_S,
            "retries": {"max_attempts": 1},
        },
    }


open_s3, open_gs, open_abfs = (partial(_open, scheme) for scheme in _LIBRARIES)


class BucketSource:
    """Keeps `stpl_runtime.source.Source`; objects wait in the bucket."""

    waits = True

    def __init__(
        self, files: Any, path: str, name: str, options: Options, spec: SourceSpec
    ) -> None:
        """Prepare; nothing is asked for yet.

        Args:
            files: the fsspec file system.
            path: bucket and prefix, maybe with %Y%m%d%H.
            name: without credentials.
            options: of the source.
            spec: the frames that are expected.
        """
        self.name, self.health = name, Health()
        self._files, self._path = files, path
        every = min(max((spec.cadence_s or 10 * _USUAL_S) / 10, _LEAST_S), _MOST_S)
        self._interval_s = options.number("interval", every, least=0.01)
        self._backlog = int(options.number("backlog", _BACKLOG))
        self._most_bytes = options.number("max_mb", _MAX_MB) * 1e6
        suffix = options.text("suffix").lower()
        self._suffixes = (suffix,) if suffix else file_suffixes()
        self.unread_files = Unread(self._suffixes)
        self._decoder = Decoder(spec, options.resize("none"))
        self._order = NameClock(spec.time_format)
        self._known: set[tuple[str, str]] | None = None
        self._refused: dict[tuple[str, str], float] = {}
        """What could not be read -> since when, by time.monotonic(); asked for last comes last."""
        self._read_at = float("-inf")
        self._patience_s = _PATIENCE_S

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield what is new until `stop`; see the protocol."""
        backoff = Backoff()
        while not stop.is_set():
            failure = yield from self._turn(stop)
            if failure is None:
                self.health.up()
                backoff.reset()
                stop.wait(self._interval_s * random.uniform(0.9, 1.1))  # noqa: S311
            else:
                self.health.down(failure)
                backoff.wait(stop)

    def _turn(self, stop: threading.Event) -> Generator[Arrival, None, str | None]:
        """List once and read what is new; returns why that failed."""
        try:
            listed = self._listed()
        except Exception as error:  # each cloud's library has errors of its own
            return _reason(error)
        seen = {(found.key, found.tag) for found in listed}
        if self._known is None:
            older = listed[: max(len(listed) - self._backlog, 0)]
            self._known = {(found.key, found.tag) for found in older}
        self._known &= seen
        self._refused = {one: since for one, since in self._refused.items() if one in seen}
        began, refusals = time.monotonic(), list[str]()
        turn = {one: n for n, one in enumerate(self._refused)}  # after the others, and in turn
        for found in sorted(listed, key=lambda one: turn.get((one.key, one.tag), -1)):
            if stop.is_set() or len(refusals) >= _REFUSALS:
                break
            if (found.key, found.tag) in self._known:
                continue
            try:
                items = self._items(found, self._content(found))
                self._read_at = time.monotonic()
                self.health.up()
            except FileNotFoundError:
                continue  # deleted since
            except Exception as error:  # as above
                refusals.append(_reason(error))
                if self._may_come(found):
                    continue
                items = [BadFrame(found.name, f"cannot be read: {refusals[-1]}")]
            self._known.add((found.key, found.tag))
            yield from map(Arrival.now, items)
        excused = all(self._read_at >= since for since in self._refused.values())
        return refusals[0] if refusals and self._read_at < began and not excused else None

    def _may_come(self, found: _Object) -> bool:
        """Whether an object that could not be read is tried again: it may be the bucket's fault.

        It is not where another one was read since, and so is none for a while.
        """
        one = found.key, found.tag
        since = self._refused[one] = self._refused.pop(one, time.monotonic())  # its place: the last
        return self._read_at < since or time.monotonic() - since < self._patience_s

    def _content(self, found: _Object) -> bytes | None:
        """Its bytes; None where there are too many."""
        if found.size > self._most_bytes:
            return None
        return bytes(self._files.cat_file(found.key))

    def _items(self, found: _Object, content: bytes | None) -> list[Frame] | list[BadFrame]:
        if content is None:
            most = f"at most {self._most_bytes / 1e6:g} MB; try: --source-option max_mb=..."
            return [BadFrame(found.name, f"{found.size} bytes; expected {most}")]
        try:
            return self._decoder.from_bytes(content, found.name, found.modified)
        except FrameError as error:
            return [BadFrame(found.name, str(error))]

    def _listed(self) -> list[_Object]:
        """The objects that may hold frames, oldest first."""
        objects, others = [], []
        for prefix in self._prefixes(datetime.now(timezone.utc)):
            folder, _, rest = prefix.rpartition("/")
            found = self._files.find(folder or prefix, detail=True, prefix=rest if folder else "")
            for key, facts in found.items():
                if self._reads(key):
                    objects.append(_object(key, facts))
                elif not key.endswith("/") and not _is_hidden(key):
                    others.append((key, False))
        self.unread_files.listed(others)
        return sorted(objects, key=self._place)

    def _prefixes(self, now: datetime) -> list[str]:
        """The prefixes of this day (or hour) and of the one before."""
        if "%" not in self._path:
            return [self._path]
        step = timedelta(hours=1) if re.search("%[HIM]", self._path) else timedelta(days=1)
        return list(dict.fromkeys(at.strftime(self._path) for at in (now - step, now)))

    def _reads(self, key: str) -> bool:
        return key.lower().endswith(self._suffixes) and not _is_hidden(key)

    def _place(self, found: _Object) -> tuple[datetime, str]:
        try:
            return self._order.time(Path(found.key), found.modified or EPOCH), found.key
        except UsageError:
            return found.modified or EPOCH, found.key


def _is_hidden(key: str) -> bool:
    return PurePosixPath(key).name.startswith(".")


def _object(key: str, facts: Mapping[str, Any]) -> _Object:
    modified = next(
        (facts[k] for k in ("LastModified", "last_modified", "updated", "mtime") if k in facts),
        None,
    )
    if isinstance(modified, str):
        modified = time_from_text(modified)
    tags = (facts.get(k) for k in ("ETag", "etag", "content_md5", "md5Hash"))
    size = int(facts.get("size") or 0)
    tag = next((str(tag) for tag in tags if tag), f"{size} {modified}")
    return _Object(key, tag, size, modified if isinstance(modified, datetime) else None)


def _reason(error: Exception) -> str:
    text = reason_of(error)
    if "locate credentials" in text:
        text += "; set them as that cloud's tools want them, or --source-option anonymous=yes"
    return text
