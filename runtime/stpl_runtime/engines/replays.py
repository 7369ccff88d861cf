"""Any session, with the frames of a forecast from its step graph, called once for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Manifest
from stpl_core.codec import Array
from stpl_runtime.engine import ReportsFacts, Session, StateHandle, precision_of


class ReplayingSession:
    """Keeps `stpl_runtime.engine.Session`; the session inside needs the `step` graph alone."""

    def __init__(self, session: Session, manifest: Manifest, why: str = "asked for") -> None:
        """Wrap `session`, which is closed with this one.

        Args:
            session: with the `step` graph open.
            manifest: of its bundle.
            why: the reason, for reports.
        """
        self._session, self._manifest, self._why = session, manifest, why
        self.engine, self.provider = session.engine, session.provider
        self.precision = precision_of(session, manifest)

    def facts(self) -> Mapping[str, Any]:
        """Those of the session, and how a forecast is made."""
        found = self._session.facts() if isinstance(self._session, ReportsFacts) else {}
        return {**found, "forecast": f"by replays of the step ({self._why})"}

    def zero_state(self, batch: int = 1) -> StateHandle:
        """See `Session`."""
        return self._session.zero_state(batch)

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        """See `Session`."""
        return self._session.step(frame, state)

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        """See `Session`; `state` and the state after the newest frame stay as they are."""
        kept = self._session.state_arrays(state)  # a step may use its state up
        guess, now = self._session.step(frame, self._session.state_from_arrays(kept))
        after = self._session.state_arrays(now)
        frames = [guess]  # (B, C, H, W) each
        while len(frames) < self._manifest.horizon:
            guess, now = self._session.step(guess, now)
            frames.append(guess)
        return np.stack(frames, axis=1), self._session.state_from_arrays(after)  # (B, K, C, H, W)

    def rollout(self, frames: Array) -> Array:
        """See `Session`."""
        state = self._session.zero_state(len(frames))
        for t in range(frames.shape[1] - 1):
            _, state = self._session.step(np.ascontiguousarray(frames[:, t]), state)
        return self.forecast(np.ascontiguousarray(frames[:, -1]), state)[0]  # (B, K, C, H, W)

    def state_arrays(self, state: StateHandle) -> Mapping[str, NDArray[Any]]:
        """See `Session`."""
        return self._session.state_arrays(state)

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> StateHandle:
        """See `Session`."""
        return self._session.state_from_arrays(arrays)

    def close(self) -> None:
        """See `Session`."""
        self._session.close()
