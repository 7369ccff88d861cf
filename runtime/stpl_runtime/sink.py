"""Sinks of nowcasts. Read this file before `sinks/`.

A sink is one module under `sinks/`; its word in `SINKS` is what `--sink WORD:PATH` takes.
"""

from __future__ import annotations

from typing import Protocol

from stpl_runtime.nowcast import Nowcast

SINKS: dict[str, str] = {
    "npz": "stpl_runtime.sinks.npz:NpzSink",
    "png": "stpl_runtime.sinks.png:PngSink",
    "gif": "stpl_runtime.sinks.gif:GifSink",
}
"""One word -> where the sink class lives. The class is made with the path after the colon."""


class Sink(Protocol):
    """Writes nowcasts; each is on disk whole, or not there, when `write` returns."""

    def write(self, nowcast: Nowcast) -> None:
        """Write one nowcast.

        Raises:
            SinkError: it could not be written; nothing of it is left.
        """
        ...

    def close(self) -> None:
        """Finish what is open."""
        ...
