"""The frame codec: physical values <-> what the model sees. Stored in every manifest.

Training, predict and stream use this one object, so a model never sees other units than it was
trained on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from stpl_deploy.errors import FrameError

Array = NDArray[np.float32]


class FrameCodec(BaseModel):
    """A linear map of the physical range [low, high] to [0, 1], and back with clipping."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    quantity: str = "grey level"
    """What a pixel is, in words."""
    units: str = "1"
    """Physical unit in CF notation; "1" is a fraction of full scale."""
    low: float = 0.0
    """Physical value that the model sees as 0."""
    high: float = 1.0
    """Physical value that the model sees as 1."""

    @model_validator(mode="after")
    def _ordered(self) -> FrameCodec:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        return self

    def model_from_physical(self, physical: Array) -> Array:
        """Map physical values of any shape to model units, float32."""
        return ((physical - np.float32(self.low)) / np.float32(self.high - self.low)).astype(
            np.float32
        )

    def physical_from_model(self, values: Array) -> Array:
        """Map model units of any shape to physical values, float32, clipped to [low, high]."""
        span = np.float32(self.high - self.low)
        physical = np.clip(values, 0.0, 1.0) * span + np.float32(self.low)
        return physical.astype(np.float32)

    def check(self, physical: Array, where: str) -> None:
        """Raise FrameError where values are not finite or leave [low, high].

        Args:
            physical: values of any shape.
            where: what to call them in the message, such as a file name.
        """
        if physical.size == 0:
            raise FrameError(f"{where} holds no values", expected="frames", fix="write it again")
        finite = np.isfinite(physical)
        if not finite.all():
            raise FrameError(
                f"{where} has {int((~finite).sum())} values that are NaN or infinite",
                expected=f"finite {self.quantity} in [{self.low:g}, {self.high:g}] {self.units}",
                fix="mask or fill them before",
            )
        slack = 1e-3 * (self.high - self.low)
        least, most = float(physical.min()), float(physical.max())
        if least < self.low - slack or most > self.high + slack:
            raise FrameError(
                f"{where} has values from {least:g} to {most:g}",
                expected=f"{self.quantity} in [{self.low:g}, {self.high:g}] {self.units}",
                fix=f"convert the frames to [{self.low:g}, {self.high:g}] {self.units} first",
            )
