"""All that watches a stream, put together: scores, alarm, page and its server."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stpl_core.errors import MissingExtraError
from stpl_core.maps.overlay import read_overlay
from stpl_runtime.streaming.newest_file import Kept, NewestFile
from stpl_runtime.watching.background import Background
from stpl_runtime.watching.skill import WINDOW, LiveSkill, Verified

if TYPE_CHECKING:
    import socket

    from stpl_core.bundle import Manifest
    from stpl_runtime.page.hub import Hub
    from stpl_runtime.page.server import PageServer
    from stpl_runtime.streaming.stream import Stream

_PATIENCE_S = 0.5
"""What still waits to be scored when a person ends the stream has so long."""
_LONGEST_DRAIN_S = 600.0


@dataclass(frozen=True)
class WatchOptions:
    """What is asked for; see the options of `stpl-deploy serve`."""

    skill: bool = True
    thresholds: Sequence[float] | None = None
    window: int = WINDOW
    alarm: int | None = None
    flow: bool = False
    """Score what moves along the optical flow too."""
    page: bool = False
    host: str = "127.0.0.1"
    port: int = 8765
    token_file: Path | None = None
    stale_s: float | None = None
    max_age_s: float | None = None
    """Of the newest frame's data; 0: by the cadence; None: no limit."""
    overlays: Sequence[Path] = ()
    """GeoJSON files that the page's map shows."""
    waits: bool = False
    """The stream waits for those who watch: a replay, where no score may be left out."""


class Watch:
    """Give `watchers` to the stream, `attach` it, then use this as a context manager.

    The port is taken and the page's libraries are looked for when this is made: before a bundle is
    opened and an engine warms up.
    """

    def __init__(self, options: WatchOptions) -> None:
        """Take the port, where there is a page.

        Raises:
            StplError: no such host, a port in use, a bad token, an overlay that is none, or the
                extra `page` is missing.
        """
        self.options = options
        self.background = Background(waits=options.waits)
        self.watchers = [self.background] if options.skill or options.page else []
        self.skill: LiveSkill | None = None
        self.hub: Hub | None = None
        self.server: PageServer | None = None
        self.notes: list[str] = []
        """Lines for the person who starts it; complete once a stream is attached."""
        self._kept: list[NewestFile] = []
        self._socket: socket.socket | None = None
        if options.flow and importlib.util.find_spec("cv2") is None:
            raise MissingExtraError("opencv-python-headless", "evaluate")
        if options.page:
            from stpl_runtime.page import server

            server.check_installed()
            self._shapes = [one for path in options.overlays for one in read_overlay(path)]
            self._socket = server.listen(options.host, options.port)
            try:
                loopback = server.is_loopback(self._socket)
                self._access, self._given_by = server.page_access(loopback, options.token_file)
            except BaseException:
                self.close()
                raise

    def attach(
        self, streams: Sequence[Stream], manifest: Manifest, cadence_s: float | None
    ) -> None:
        """Watch these streams.

        Args:
            streams: made with `watchers`; not running yet.
            manifest: of their bundle.
            cadence_s: stated; None: it is to be learned.
        """
        if not self.watchers:
            return

        def verified(found: Verified) -> None:
            if self.hub is not None:
                self.hub.verified(found)

        self.skill = LiveSkill(
            manifest.codec,
            self.options.thresholds,
            window=self.options.window,
            alarm=self.options.alarm,
            flow=self.options.flow,
            log=lambda line: streams[0].log(line, "alarm"),
            listen=verified,
        )
        restored = self._open_kept(streams, self.skill)
        if self._socket is None:
            self.background.watchers = [self.skill, *self._kept]
            return
        from stpl_runtime.page.feeds import feeds_of
        from stpl_runtime.page.hub import Hub
        from stpl_runtime.page.server import PageServer
        from stpl_runtime.page.stream_view import look_of

        look = look_of(manifest, streams[0].nowcaster.horizon)
        self.hub = Hub(
            look,
            feeds_of(streams),
            self.skill,
            cadence_s=cadence_s,
            stale_s=self.options.stale_s,
            max_age_s=self.options.max_age_s,
            missed=lambda: self.background.missed,
            overlays=self._shapes,
        )
        for found in restored:
            self.hub.restore(found.nowcast, found.arrived_at)
        self.background.watchers = [self.hub, self.skill, *self._kept]
        self.server = PageServer(self.hub, self._socket, self._access)
        self.notes.append(self._where(self.server.url))

    def _open_kept(self, streams: Sequence[Stream], skill: LiveSkill) -> list[Kept]:
        """What is kept beside the state files, and what an earlier process left of it there."""
        found = []
        for stream in streams:
            if stream.state_file is None:
                continue
            kept = NewestFile(stream.state_file.path, stream.nowcaster, skill, stream.log)
            self._kept.append(kept)
            left = kept.restore() if stream.state_file.restored else None
            if left is not None:
                found.append(left)
        return found

    def __enter__(self) -> Watch:
        """Start watching, and the page."""
        if self.watchers:
            self.background.start()
        if self.server is not None:
            self.server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End the page, and score what waits."""
        if self.server is not None:
            self.server.stop()
        if self.watchers:
            self.background.close(_PATIENCE_S)
        for kept in self._kept:
            kept.close()

    def close(self) -> None:
        """Give the port back, where watching never began."""
        if self._socket is not None:
            self._socket.close()

    def ended(self, why: str) -> None:
        """The stream came to its end by itself: wait for the scores; the page may go on."""
        if self.watchers:
            self.background.drain(_LONGEST_DRAIN_S)
        if self.hub is not None:
            self.hub.ended = why

    def _where(self, url: str) -> str:
        """The line that says where the page is; a token of our own making is in its address."""
        if self._given_by == "made":
            return f"page: {url}?token={self._access.token}"
        return f"page: {url}" + (f" (token: {self._given_by})" if self._given_by else "")
