"""What a page shows at once after a restart: the newest nowcast and the skill, beside a state file.

The state file has what the next nowcast needs; this one, `FILE.newest`, has what people and
programs look at until then. It is written by those who watch, every few seconds at most, and a
file that cannot be used or written costs what it holds, and nothing else.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.errors import StplError
from stpl_core.files import atomic_file
from stpl_core.frames import Frame
from stpl_core.readers.npz import open_npz
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.window import Verdict
from stpl_runtime.streaming.nowcast_file import Arrays, nowcast_facts, nowcast_from
from stpl_runtime.timing import time_from_text, utc_now, utc_text

if TYPE_CHECKING:
    from stpl_runtime.nowcasting.nowcaster import Nowcaster
    from stpl_runtime.watching.skill import LiveSkill

VERSION = 1
_EVERY_S = 5.0
"""Between two writes: a camera's nowcasts come many times a second."""


@dataclass(frozen=True)
class Kept:
    """What was found."""

    nowcast: Nowcast
    arrived_at: datetime
    """When its newest frame came, UTC."""


class NewestFile:
    """One stream's file; a watcher (`stpl_runtime.watching.watcher`) that writes it."""

    def __init__(
        self, state_file: Path, nowcaster: Nowcaster, skill: LiveSkill, log: Callable[[str], None]
    ) -> None:
        """Look at nothing yet; see `restore`.

        Args:
            state_file: beside which it lies.
            nowcaster: whose nowcasts they are.
            skill: kept and restored too.
            log: given a line when it cannot be written.
        """
        self.path = state_file.with_name(f"{state_file.name}.newest")
        self._nowcaster, self._skill, self._log = nowcaster, skill, log
        self._newest: Nowcast | None = None
        self._arrived_at = utc_now()
        self._written, self._is_dirty, self._failed = float("-inf"), False, False

    def restore(self) -> Kept | None:
        """What an earlier process left, with its skill back in its place; None: nothing fits."""
        try:
            with open_npz(self.path) as archive:
                arrays = {name: archive[name] for name in archive.files}
            meta = json.loads(bytes(arrays.pop("meta")))
            nowcaster = self._nowcaster
            if meta["version"] != VERSION or meta["nowcast"]["stream"] != nowcaster.stream:
                return None
            if meta["nowcast"]["made_by"].get("bundle") != nowcaster.made_by["bundle"]:
                return None
            found = nowcast_from(meta["nowcast"], arrays, nowcaster.manifest, nowcaster.horizon)
            kept = Kept(found, time_from_text(meta["arrived_at"]))
            self._skill.restore(found, arrays)
        except Exception:  # damaged bytes raise whatever they like: what they held is lost
            return None
        self._newest, self._arrived_at = found, kept.arrived_at
        return kept

    def frame(self, frame: Frame, verdict: Verdict, stream: str) -> None:
        """See `Watcher`: the skill may have changed."""
        if stream != self._nowcaster.stream or verdict != "used":
            return
        self._arrived_at = utc_now()
        self._is_dirty = self._newest is not None
        self._save(when_due=True)

    def nowcast(self, nowcast: Nowcast) -> None:
        """See `Watcher`."""
        if nowcast.stream != self._nowcaster.stream:
            return
        self._newest, self._is_dirty = nowcast, True
        self._save(when_due=True)

    def problem(self, line: str) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Write what was not written yet."""
        self._save(when_due=False)

    def _save(self, *, when_due: bool) -> None:
        now = time.monotonic()
        if not self._is_dirty or (when_due and now - self._written < _EVERY_S):
            return
        assert self._newest is not None, "only then it is dirty"
        self._written, self._is_dirty = now, False
        try:
            content = self._content(self._newest)
            with atomic_file(self.path, sync=False, private=True) as file:
                file.write(content.getbuffer())
        except (OSError, StplError) as error:
            if not self._failed:
                self._failed = True
                reason = getattr(error, "strerror", None) or error
                self._log(f"{self.path} cannot be written: {reason}")

    def _content(self, newest: Nowcast) -> io.BytesIO:
        arrays: Arrays = self._skill.kept(newest.stream)
        meta: dict[str, Any] = {
            "version": VERSION,
            "arrived_at": utc_text(self._arrived_at),
            "nowcast": nowcast_facts(newest, arrays),
        }
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # names are ours
        return buffer
