"""Messages that say where a frame is: notifications of the WIS 2 kind, and plain ones.

WIS 2 (and EUMETNET's Open Radar Data beside it) sends GeoJSON: `links` with the URL, whose `rel` is
`canonical` or `update`, `properties.datetime`, the time of the data, and sometimes
`properties.content`, the data itself. A plain one is `{"url": ..., "valid_time": ...}`.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from stpl_core.errors import FrameError
from stpl_core.readers.libraries import reads_with
from stpl_core.safety.budget import gunzipped
from stpl_runtime.links.reconnect import reason_of, without_credentials
from stpl_runtime.links.web import NoInnerAddress, decoded_body, no_cookies
from stpl_runtime.sources.queue_message import Message

_RETRIES = 2
_WHOLE_S = 60.0
"""For a whole file: other messages wait for it."""
_RELATIONS = ("canonical", "update", "enclosure", "item", "data")
"""In the order in which they are taken; else the first link."""


class Fetcher:
    """Gets what notifications are about."""

    def __init__(self, most_bytes: int, timeout_s: float, near: str = "") -> None:
        """Prepare.

        Args:
            most_bytes: of one file.
            timeout_s: for each answer.
            near: the host that the messages come from: where that lies in a private network, what
                they name may lie there too.

        Raises:
            MissingExtraError: httpx is not installed.
        """
        with reads_with("http"):
            import httpx
        self._most_bytes = most_bytes
        self._client = httpx.Client(
            timeout=timeout_s,
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
            cookies=no_cookies(),
            event_hooks={"request": [NoInnerAddress(near)]},
            transport=httpx.HTTPTransport(retries=_RETRIES),
        )

    def fetched(self, message: Message) -> Message:
        """The message with the file's content, name and time in the place of the notification.

        Raises:
            FrameError: it is no notification, or the file cannot be had.
        """
        try:
            document = json.loads(message.content)
            facts = dict(message.facts)
            properties = document.get("properties") or {}
            valid_time = document.get("valid_time") or properties.get("datetime")
            if valid_time:
                facts["valid_time"] = str(valid_time)
            content = _inline(properties.get("content"), self._most_bytes)
            url = _url(document)
        except (ValueError, AttributeError, TypeError, OSError, EOFError, RecursionError) as error:
            raise FrameError(
                f"a message that is no notification: {error or type(error).__name__}",
                expected="JSON with url, or with links",
                fix="leave out --source-option fetch=yes where messages are the frames",
            ) from error
        if url:
            facts["name"] = PurePosixPath(unquote(urlsplit(url).path)).name
        elif properties.get("data_id"):
            facts["name"] = str(properties["data_id"])
        if content is None:
            content = self._get(url)
        return replace(message, content=content, facts=facts)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _get(self, url: str) -> bytes:
        import httpx

        if urlsplit(url).scheme not in ("http", "https"):
            raise _unreachable(url or "no URL", "only http and https are fetched")
        try:
            return self._download(url)
        except httpx.HTTPError as error:
            reason = reason_of(error)
        raise _unreachable(url, reason)

    def _download(self, url: str) -> bytes:
        with self._client.stream("GET", url) as response:
            response.raise_for_status()
            content, until = bytearray(), time.monotonic() + _WHOLE_S
            for part in response.iter_raw():
                content += part
                if time.monotonic() > until:
                    raise _unreachable(url, f"it took more than {_WHOLE_S:g} s")
                if len(content) > self._most_bytes:
                    raise FrameError(
                        f"{without_credentials(url)} has more than {self._most_bytes:,} bytes",
                        expected="a frame",
                        fix="--source-option max_mb=MEGABYTES",
                    )
            encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if urlsplit(url).path.lower().endswith(".gz"):
            return bytes(content)
        try:
            return decoded_body(bytes(content), encoding, self._most_bytes)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise _unreachable(url, f"the encoding {encoding[:40]!r}: {error}") from error


def _unreachable(url: str, reason: str) -> FrameError:
    return FrameError(
        f"{without_credentials(url)} cannot be fetched: {without_credentials(reason)}",
        expected="the file that the message is about",
        fix="check the network, and that the file is still there",
    )


def _url(document: dict[str, Any]) -> str:
    plain = document.get("url") or document.get("href")
    if plain:
        return str(plain)
    links = [link for link in document.get("links") or [] if link.get("href")]
    if not links:
        return ""
    order = {relation: n for n, relation in enumerate(_RELATIONS)}
    return str(min(links, key=lambda link: order.get(link.get("rel"), len(order)))["href"])


def _inline(content: dict[str, Any] | None, most_bytes: int) -> bytes | None:
    """What `properties.content` of WIS 2 holds; None where there is none."""
    if not content or "value" not in content:
        return None
    encoding = content.get("encoding", "utf-8")
    if encoding == "base64":
        return base64.b64decode(content["value"], validate=True)
    if encoding == "gzip":
        return gunzipped(base64.b64decode(content["value"], validate=True), "a message", most_bytes)
    return str(content["value"]).encode()
