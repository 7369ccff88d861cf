"""Pictures of a film: when each is shown, and which way up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class FilmClock:
    """Seconds from the first picture of a film on, by the times in its container."""

    def __init__(self, stream: Any) -> None:
        """Note the rate, for films whose pictures carry no time."""
        self.step_s = float(1 / stream.average_rate) if stream.average_rate else 1.0
        self.longest_s = 0.0
        """Longest time between two pictures so far."""
        self._start: float | None = None
        self._last_s = -self.step_s

    def seconds(self, picture: Any) -> float:
        """Of the next picture; always more than of the one before.

        A clock that goes back, as where recordings were put one after the other, goes on one step
        after the last picture.
        """
        due_s = self._last_s + self.step_s
        now = due_s + (self._start or 0.0) if picture.time is None else float(picture.time)
        if self._start is None:
            self._start = now
        if now - self._start <= self._last_s:
            self._start = now - due_s
        seconds = now - self._start
        if self._last_s >= 0:
            self.longest_s = max(self.longest_s, seconds - self._last_s)
        self._last_s = seconds
        return seconds


def upright(picture: Any, pixels: str) -> NDArray[Any]:
    """A decoded picture the way it is meant to be seen: turned and mirrored by its display matrix.

    Args:
        picture: `av.VideoFrame`.
        pixels: FFmpeg's name of a packed format, `gray` or `rgb24`.

    Returns:
        `(H, W)` or `(H, W, 3)` of 8 bits, or of 16 where grey has more than 8; see `fraction`.
    """
    if pixels == "gray" and picture.format.name.startswith("gray1"):  # gray10le ... gray16be
        pixels = "gray16le"
    stored: NDArray[Any] = picture.to_ndarray(format=pixels)
    matrix = next((bytes(s) for s in picture.side_data if s.type.name == "DISPLAYMATRIX"), None)
    if matrix is None or len(matrix) < 36:
        return stored
    # Shown x = a x + c y, shown y = b x + d y, with rows running down.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        stored, a, d = np.swapaxes(stored, 0, 1), c, b
    return np.ascontiguousarray(stored[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def fraction(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels of `upright` as a fraction of full scale."""
    return stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
