"""What was understood of data, in one line: from training, `data inspect` and `predict`."""

from __future__ import annotations

from dataclasses import dataclass

from stpl_core.codec import FrameCodec
from stpl_core.frames import FrameShape

_LITTLE = 0.25
"""Of the codec's range: what reaches no further is probably stored in fewer bits than its type."""


@dataclass(frozen=True)
class Understood:
    """Facts that a wrong reading would show in."""

    sequences: int
    frames: int
    """Of all sequences together."""
    shape: FrameShape
    """(C, H, W)"""
    low: float | None
    """Least and greatest value; None where no pixel has one."""
    high: float | None
    quantity: str
    units: str
    """CF; "1" is a fraction of full scale."""
    cadence_s: float | None

    def line(self) -> str:
        """As `10 sequences, 200 frames, 1 channel, 64x64, grey level 0 to 1 (fraction), ...`."""
        channels, height, width = self.shape
        units = "of full scale" if self.units == "1" else self.units
        values = (
            f"no value of {self.quantity}"
            if self.low is None or self.high is None
            else f"{self.quantity} {self.low:.4g} to {self.high:.4g} {units}"
        )
        cadence = "no cadence" if self.cadence_s is None else f"every {self.cadence_s:g} s"
        return ", ".join(
            [
                _count(self.sequences, "sequence"),
                _count(self.frames, "frame"),
                _count(channels, "channel"),
                f"{height}x{width}",
                values,
                cadence,
            ]
        )

    def range_remark(self, codec: FrameCodec) -> str:
        """That values use a small part of a fraction's range, with the setting that fits."""
        fraction = (codec.low, codec.high, codec.units) == (0.0, 1.0, "1")
        if not fraction or self.high is None or not 0 < self.high <= _LITTLE:
            return ""
        fits = 1.0
        while fits / 2 >= self.high:
            fits /= 2
        return (
            f"the values reach {self.high:.3g} of full scale, and train at {self.high:.0%} of the "
            f"range; for data of fewer bits, such as 12 in 16: --set data.codec.high={fits:g}"
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
