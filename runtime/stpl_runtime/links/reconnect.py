"""Trying again: jittered exponential back-off, and a connection that is made anew when it ends."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from stpl_core.safety.printable import printable
from stpl_runtime.links.health import LONGEST_REASON, Health

FIRST_S, MOST_S = 0.1, 1.5
"""The first wait and the longest: a source that is back is found within two seconds."""

T = TypeVar("T")


class Backoff:
    """Waits that double, each between half and all of its length; `reset` starts small again."""

    def __init__(self, first_s: float = FIRST_S, most_s: float = MOST_S) -> None:
        """Set the first and the longest wait, seconds."""
        self._first_s, self._most_s, self._next_s = first_s, most_s, first_s

    def reset(self) -> None:
        """It went well."""
        self._next_s = self._first_s

    def wait(self, stop: threading.Event) -> None:
        """Wait, or until `stop` is set."""
        stop.wait(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret
        self._next_s = min(2.0 * self._next_s, self._most_s)


def reconnecting(
    connect: Callable[[], Iterator[T]],
    stop: threading.Event,
    health: Health,
    failures: tuple[type[BaseException], ...],
    *,
    backoff: Backoff | None = None,
    between: Sequence[T] = (),
) -> Iterator[T]:
    """Yield what a connection yields, and connect again whenever it fails or ends, until `stop`.

    For a live source the end of iteration is a disconnect (no library reports it as an error).

    Args:
        connect: connects and yields; what it holds is closed by its own `finally`.
        stop: ends everything; `connect`'s iterator must return soon after it is set.
        health: given every change. It is up with the first item of a connection, or earlier
            where `connect` itself calls `health.up()`; after that, `connect` may know better.
        failures: what a broken connection raises; anything else goes through.
        backoff: None takes the usual one.
        between: yielded after each failure, before the wait, for who must not be kept waiting.
    """
    backoff = backoff or Backoff()
    while not stop.is_set():
        reason = "the connection ended"
        try:
            for number, item in enumerate(connect()):
                if not number:
                    health.up()
                backoff.reset()
                yield item
                if stop.is_set():
                    return
        except failures as error:
            reason = reason_of(error)
        if stop.is_set():
            return
        health.down(reason)
        yield from between
        backoff.wait(stop)


# Up to the last @: passwords have @ and / in them too.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/\s@:]*:\S*|[^/\s]+)@")
_STREAM_KEY = re.compile(r"(?i)(\brtmp[a-z]*://[^/\s]+/[^/\s]+/)[^\s?]+")
"""Who knows the last part of an RTMP address may publish there."""
_SECRET = re.compile(
    r"(?i)(?:(?:token|key|secret|pass|password|passwd|pwd|signature|sig|auth|credential"
    r"|appid|jwt|psw|sas|session|sessionid|bearer)s?|\b(?:code|pin|pw|sid))\Z"
)
"""The end of a name whose value nobody else may read."""
_VALUE_END = re.compile(r"[&\s]|\Z")
_LONGEST_NAME = 32
_LONGEST = 4000
"""Of a text that is looked through: patterns take the square of what others make long."""


def reason_of(error: BaseException) -> str:
    """The first line of an error, or its type where it has none; without credentials, printable."""
    text = str(error).strip()
    line = without_credentials(text.splitlines()[0] if text else type(error).__name__)
    return printable(line, LONGEST_REASON)


def without_credentials(text: str) -> str:
    """`text` with `user:password@` of its URLs, and secrets in their queries, left out."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    return _without_values(_STREAM_KEY.sub(r"\1***", _CREDENTIALS.sub("***@", text)))


def _without_values(text: str) -> str:
    """`text` with what follows `token=` and the like left out, each sign looked at once."""
    kept, at = [], 0
    for equals in re.finditer("=", text):
        start = equals.end()
        if start <= at or not _SECRET.search(text[max(0, start - 1 - _LONGEST_NAME) : start - 1]):
            continue
        found = _VALUE_END.search(text, start)
        end = len(text) if found is None else found.start()
        if end > start:
            kept.append(f"{text[at:start]}***")
            at = end
    return "".join([*kept, text[at:]])
