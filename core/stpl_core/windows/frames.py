"""The frames of one archive on the model's grid, in physical or in model units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import Mask
from stpl_core.readers.converted import files_of, grid_of, quantity_of
from stpl_core.readers.fit import Fit
from stpl_core.readers.model_input import ModelInput, model_input

if TYPE_CHECKING:
    import xarray as xr

Values = Literal["physical", "model"]
"""Physical units, NaN where nothing was observed; or what the model is given there."""

_IN_MEMORY = 2**31
"""Bytes of fitted frames that are kept; larger archives are read window by window."""
_BLOCK_VALUES = 2**24
"""Values that the check at opening reads at a time."""

_ALL = slice(None)


class ArchiveFrames:
    """The frames of an archive on the model's grid."""

    def __init__(
        self, dataset: xr.Dataset, fit: Fit, codec: FrameCodec, where: str, keep: Values
    ) -> None:
        """Read and check every frame once.

        Args:
            dataset: opened.
            fit: to the model's grid.
            codec: the model's.
            where: what to call it.
            keep: the values that are wanted: each frame is turned into them once, where memory
                holds them all.

        Raises:
            FrameError: values that the codec does not take, by file; or sizes that do not fit.
        """
        self.dataset, self._fit, self._codec, self._where = dataset, fit, codec, where
        self._quantity, self._own_grid = quantity_of(dataset), grid_of(dataset)
        self._files = files_of(dataset)
        self.grid: Grid = fit.grid(self._own_grid, where)
        """Of the fitted frames."""
        count, channels = dataset["frames"].shape[:2]
        self.frame = (int(channels), self.grid.height, self.grid.width)
        """(C, H, W)"""
        self.usable: NDArray[np.bool_] = np.ones(count, bool)
        """`(T,)`, False where a frame is no data all over."""
        self.range: tuple[float | None, float | None] = (None, None)
        """Least and greatest observed value, physical, on the model's grid."""
        self._keeps = keep
        self._kept: tuple[Array, Mask] | None = None
        if count * int(np.prod(self.frame)) * 5 <= _IN_MEMORY:
            mask = np.empty((count, *self.frame[1:]), bool)
            self._kept = np.empty((count, *self.frame), np.float32), mask
        self._open()

    @property
    def where(self) -> str:
        """What to call it."""
        return self._where

    @property
    def stored_size(self) -> tuple[int, int]:
        """(H, W) of the data."""
        return self._own_grid.height, self._own_grid.width

    @property
    def cut_size(self) -> tuple[int, int]:
        """(H, W) after the crop, before they are averaged."""
        return self.stored_size if self._fit.crop is None else self._fit.crop[2:]

    def read(
        self, rows: slice, values: Values, area: tuple[slice, slice] = (_ALL, _ALL)
    ) -> tuple[Array, Mask]:
        """Some frames, or the same part of each.

        Args:
            rows: which frames.
            values: which values of them.
            area: rows and columns of pixels.

        Returns:
            `(n, C, h, w)`, and where pixels were observed, `(n, h, w)`.
        """
        if self._kept is not None and values in ("model", self._keeps):
            frames, observed = self._kept[0][rows], self._kept[1][rows]
            done = values == self._keeps
        else:
            fitted = self._fitted(rows)
            frames, observed, done = fitted.frames, fitted.observed, values == "physical"
        frames, observed = frames[(..., *area)], observed[(..., *area)]
        return frames if done else self._codec.model_from_physical(frames), observed

    def file(self, row: int) -> str:
        """Where a frame came from, with its time."""
        time = np.datetime_as_string(self.dataset["time"].values[row], unit="s")
        return f"{self._files[row]} ({time}Z)"

    def _fitted(self, rows: slice) -> ModelInput:
        part = self.dataset.isel(time=rows)
        return model_input(
            part["frames"].values,
            part["state"].values,
            self._quantity,
            self._own_grid,
            self._codec,
            self._fit,
            self._where,
        )

    def _open(self) -> None:
        count = len(self.usable)
        block = max(1, _BLOCK_VALUES // int(np.prod(self.dataset["frames"].shape[1:])))
        for start in range(0, count, block):
            rows = slice(start, min(start + block, count))
            part = self._fitted(rows)
            self._check(rows, part)
            if self._kept is not None:
                in_model = self._keeps == "model"
                frames = self._codec.model_from_physical(part.frames) if in_model else part.frames
                self._kept[0][rows], self._kept[1][rows] = frames, part.observed

    def _check(self, rows: slice, part: ModelInput) -> None:
        self._widen(part)
        for n, row in enumerate(range(rows.start, rows.stop)):
            self.usable[row] = part.observed[n].any()
            try:
                part.check(n, self.file(row))
            except FrameError as error:
                raise FrameError(
                    error.found,
                    expected=error.expected,
                    fix="another data.codec.low and high, or --set data.codec.clip=true",
                ) from error

    def _widen(self, part: ModelInput) -> None:
        """Take a block's values into the range."""
        if np.isfinite(part.frames).any():
            least, most = float(np.nanmin(part.frames)), float(np.nanmax(part.frames))
            low, high = self.range
            self.range = (
                least if low is None else min(low, least),
                most if high is None else max(high, most),
            )
