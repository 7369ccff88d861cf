"""The frame codec: physical values <-> what the model sees. Stored in every manifest.

Training, predict and stream use this one object, so a model never sees other units than it was
trained on. From physical to model, in this order; from model to physical, the way back:

    no data         a pixel that is NaN takes the value `no_data`, or with `marks_no_data`, past all
                    that follows, NO_DATA
    clip            to [low, high]
    conversion      dBZ to rain rate or the other way round, by Z = a R^b
    kind            linear: as it is; db: 10 log10 above `threshold`, else `zero_value`;
                    log: ln(x + offset)
    scale           [low, high] becomes [0, 1]
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, model_validator

from stpl_core.errors import FrameError
from stpl_core.rain import MARSHALL_PALMER, Floats, dbz_from_rate, rate_from_dbz

Array = NDArray[np.float32]

NO_DATA = -1.0
"""What the model is given, with `marks_no_data`, where a pixel was not observed."""

_ROUNDING = 1e-4
"""What float32 in [0, 1] may lose, times ten or more: a value at the threshold stays rain."""

_SLACK = 1e-3
"""Part of the range by which values may leave it: resampling and float16, whose step below 1 is
0.0005, overshoot the ends by that much; values in another unit leave the range by far more."""


class FrameCodec(BaseModel):
    """A map of the physical range [low, high] to [0, 1], and back with clipping."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    quantity: str = "grey level"
    """What a pixel is, in words."""
    units: str = "1"
    """Physical unit in CF notation; "1" is a fraction of full scale."""
    low: float = 0.0
    """Physical value that the model sees as 0."""
    high: float = 1.0
    """Physical value that the model sees as 1."""
    kind: Literal["linear", "db", "log"] = "linear"
    """What is done to the (converted) values before they are scaled."""
    conversion: Literal["none", "dbz-to-rate", "rate-to-dbz"] = "none"
    """What the values are turned into first: from dBZ to mm h-1, or from mm h-1 to dBZ."""
    zr: tuple[PositiveFloat, PositiveFloat] = MARSHALL_PALMER
    """a and b of Z = a R^b, for `conversion` and for area means of reflectivity."""
    threshold: PositiveFloat = 0.1
    """`db`: less than this, in converted units, is no rain."""
    zero_value: float | None = None
    """`db`: dB that stand for no rain; None: 5 dB below the threshold."""
    offset: PositiveFloat = 0.01
    """`log`: added before the logarithm."""
    clip: bool = False
    """Take values outside [low, high] as the nearest end; False refuses them in `check`."""
    no_rain: float | None = None
    """Physical value of nothing there, which the model's 0 maps back to exactly; None: `low`."""
    no_data: float | None = None
    """Physical value that the model is given where a pixel was not observed; None: `no_rain`."""
    marks_no_data: bool = False
    """Give the model NO_DATA there, in place of a value: for models that know the difference, as
    `advect` does."""

    @model_validator(mode="after")
    def _holds(self) -> FrameCodec:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        if self.marks_no_data and self.no_data is not None:
            raise ValueError(f"no_data {self.no_data} is not used with marks_no_data")
        if self.no_rain is not None and self.no_rain > self.low:
            raise ValueError(f"no_rain {self.no_rain} must not be above low {self.low}")
        expected = {"dbz-to-rate": "dBZ", "rate-to-dbz": "mm h-1"}.get(self.conversion, self.units)
        if self.units != expected:
            raise ValueError(f"conversion {self.conversion} needs units {expected}")
        inside = {"dbz-to-rate": "mm h-1", "rate-to-dbz": "dBZ"}.get(self.conversion, self.units)
        if self.kind == "db" and inside == "dBZ":
            raise ValueError('dBZ are decibels already: kind "linear", or conversion "dbz-to-rate"')
        if self.conversion == "rate-to-dbz" and self.low <= 0:
            raise ValueError("rate-to-dbz needs low above 0, such as 0.1, and no_rain = 0")
        low, high = self._converted(np.asarray([self.low, self.high], np.float64)).tolist()
        if self.kind == "log" and low + self.offset <= 0:
            raise ValueError(f"log needs low + offset above 0, found {low + self.offset:g}")
        if self.kind == "db" and not low <= self.threshold < high:
            raise ValueError(
                f"threshold {self.threshold:g} must be in [{low:g}, {high:g}), the converted range"
            )
        bottom, top = self._ends
        if not bottom < top or (self.kind == "db" and bottom >= self._threshold_db):
            raise ValueError(f"zero_value {bottom:g} dB must be below the threshold's")
        return self

    @property
    def no_rain_value(self) -> float:
        """Physical value of nothing there: what the model's 0 maps back to."""
        return self.low if self.no_rain is None else self.no_rain

    @property
    def no_data_value(self) -> float:
        """Physical value that stands for a pixel that was not observed."""
        return self.no_rain_value if self.no_data is None else self.no_data

    def range_text(self) -> str:
        """The range in words, such as `[0, 60] mm h-1`; the unit "1" is left out."""
        unit = "" if self.units == "1" else f" {self.units}"
        return f"[{self.low:g}, {self.high:g}]{unit}"

    def model_from_physical(self, physical: Array) -> Array:
        """Map physical values of any shape to model units, float32; NaN as the codec says."""
        missing = np.isnan(physical)
        if not missing.any():
            return self._scaled(physical)
        scaled = self._scaled(np.where(missing, np.float32(self.no_data_value), physical))
        return np.where(missing, np.float32(NO_DATA), scaled) if self.marks_no_data else scaled

    def _scaled(self, physical: Array) -> Array:
        if self._plain:
            if self.clip or self.no_rain is not None:
                physical = np.clip(physical, np.float32(self.low), np.float32(self.high))
            return ((physical - np.float32(self.low)) / np.float32(self.high - self.low)).astype(
                np.float32
            )
        bottom, top = self._ends
        clipped = np.clip(physical.astype(np.float64), self.low, self.high)
        scaled = (self._forward(self._converted(clipped)) - bottom) / (top - bottom)
        return scaled.astype(np.float32)

    def physical_from_model(self, values: Array) -> Array:
        """Map model units of any shape to physical values, float32, clipped to [low, high].

        What the model sees as nothing becomes exactly `no_rain_value`, which may lie below `low`.
        """
        held = np.clip(values, 0.0, 1.0)
        if self._plain:
            span = np.float32(self.high - self.low)
            physical = (held * span + np.float32(self.low)).astype(np.float32)
            empty = held <= 0
        else:
            bottom, top = self._ends
            inner = held.astype(np.float64) * (top - bottom) + bottom
            empty = held <= 0
            if self.kind == "db":
                empty = inner < self._threshold_db - _ROUNDING * (top - bottom)
                inner = np.maximum(inner, self._threshold_db)
            wide = np.clip(self._unconverted(self._backward(inner)), self.low, self.high)
            physical = wide.astype(np.float32)
        return np.asarray(np.where(empty, np.float32(self.no_rain_value), physical), np.float32)

    def check(self, physical: Array, where: str, observed: NDArray[np.bool_] | None = None) -> None:
        """Raise FrameError where values are not finite or leave [low, high].

        Args:
            physical: values of any shape.
            where: what to call them in the message, such as a file name.
            observed: broadcast against `physical`; False where NaN stands for no data.
        """
        if physical.size == 0:
            raise FrameError(f"{where} holds no values", expected="frames", fix="write it again")
        if observed is not None:
            physical = np.where(observed, physical, np.float32(self.no_rain_value))
        finite = np.isfinite(physical)
        if not finite.all():
            raise FrameError(
                f"{where} has {int((~finite).sum())} values that are NaN or infinite",
                expected=f"finite {self.quantity} in {self.range_text()}",
                fix="mask or fill them first",
            )
        if self.clip:
            return
        slack = _SLACK * (self.high - self.low)
        inside = physical != np.float32(self.no_rain_value)
        least = float(np.min(physical, where=inside, initial=self.low))
        most = float(np.max(physical, where=inside, initial=self.low))
        if least < self.low - slack or most > self.high + slack:
            fraction = (self.low, self.high, self.units) == (0.0, 1.0, "1")
            bytes_likely = fraction and least >= 0 and 1 < most <= 255
            raise FrameError(
                f"{where} has values from {float(physical.min()):g} to {float(physical.max()):g}",
                expected=f"{self.quantity} in {self.range_text()}",
                fix="divide by 255"
                if bytes_likely
                else f"convert the frames to {self.range_text()} first",
            )

    @property
    def _plain(self) -> bool:
        return self.kind == "linear" and self.conversion == "none"

    @property
    def _threshold_db(self) -> float:
        return float(10.0 * np.log10(self.threshold))

    @property
    def _zero_db(self) -> float:
        return self._threshold_db - 5.0 if self.zero_value is None else self.zero_value

    @property
    def _ends(self) -> tuple[float, float]:
        """What the model's 0 and 1 are before scaling."""
        ends = self._forward(self._converted(np.asarray([self.low, self.high], np.float64)))
        if self.kind == "db":
            return self._zero_db, float(ends[1])
        return float(ends[0]), float(ends[1])

    def _converted(self, physical: Floats) -> Floats:
        if self.conversion == "dbz-to-rate":
            return rate_from_dbz(physical, self.zr)
        return dbz_from_rate(physical, self.zr) if self.conversion == "rate-to-dbz" else physical

    def _unconverted(self, values: Floats) -> Floats:
        if self.conversion == "dbz-to-rate":
            return dbz_from_rate(np.maximum(values, 0.0), self.zr)
        return rate_from_dbz(values, self.zr) if self.conversion == "rate-to-dbz" else values

    def _forward(self, values: Floats) -> Floats:
        if self.kind == "log":
            return np.asarray(np.log(values + self.offset), np.float64)
        if self.kind == "db":
            decibels = 10.0 * np.log10(np.maximum(values, self.threshold))
            # float32 of the threshold itself may lie just below it.
            return np.where(values < self.threshold * (1 - 1e-6), self._zero_db, decibels)
        return values

    def _backward(self, values: Floats) -> Floats:
        if self.kind == "log":
            return np.asarray(np.exp(values) - self.offset, np.float64)
        return np.asarray(10.0 ** (values / 10.0)) if self.kind == "db" else values
