"""How an archive is read, fitted and cut. A recipe's `[data]` with an archive is this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from stpl_core.codec import FrameCodec
from stpl_core.reader import ReadOptions
from stpl_core.readers.fit import Fit
from stpl_core.windows.placing import Layout

Share = Annotated[float, Field(ge=0, lt=1)]


class ArchiveSettings(BaseModel):
    """Files of any format that a reader knows (docs/data.md), and the windows in them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["archive"] = "archive"
    path: Path | tuple[Path, ...]
    """A file, a folder, or what `stpl-deploy data convert` wrote; or several of them, of any grid,
    one after the other: the split in time takes them in this order."""
    reader: str | None = None
    """Word of the reader; None finds it."""
    variable: str | None = None
    """Which one, where a file holds several."""
    units: str | None = None
    """Unit of the values, where the files state none or a wrong one."""
    nan: Literal["no-data", "no-echo"] = "no-data"
    """What a missing value is: not observed, or observed and nothing there."""
    select: dict[str, str] = {}
    """Dimension and the label (or several, with commas) to read along it: `{level = "850"}`."""
    time_format: str | None = None
    """Pattern of the time in the files' names."""
    layout: str | None = None
    """The axes of arrays, such as `NTHW`; None: what follows from the shape."""
    bad_pixels: Share = 0.01
    """Share of a file's pixels whose value may be impossible; they become no data."""
    frame: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """(C, H, W); smaller than the data's after the crop: area means. None takes the data's."""
    tiles: bool = False
    """Where the data's frames are larger, cut them into tiles of `frame`'s size in place of area
    means. Tiles that are half unobserved are left out."""
    resize: Literal["area", "bilinear"] = "area"
    """How frames of another size become `frame`: area means, which never make them finer, or
    between the four nearest pixels, as the papers' code resizes pictures."""
    least_echo: Share = 0.0
    """Tiles in which a smaller share of the pixels holds anything are not trained on."""
    crop: tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] | None = None
    """Top, left, height and width in pixels of the data."""
    context: PositiveInt = 10
    horizon: PositiveInt = 10
    test_horizon: PositiveInt | None = None
    """K where the model is evaluated on the test part or on other data; None: `horizon`."""
    every: PositiveInt = 1
    """Thinning: a window takes every n-th frame."""
    stride: PositiveInt = 1
    """Frames of the data between the starts of neighbouring windows."""
    split: Literal["published", "time"] | None = None
    """`published`: as it came with the data; `time`: training, validation and test are three blocks
    of time; None: published where there is one."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_fraction: Share = 0.1
    """The last part of the data; training never reads it."""
    cadence_s: PositiveFloat | None = None
    """Seconds between the frames of a window; None takes the data's; another is refused."""
    cadences: Literal["same", "any"] = "same"
    """`any`: the archives may differ in the time between their frames, for models that forecast by
    frames and are trained at many speeds; validation and test are of the last one's."""
    expects: str = ""
    """What data this is for, in words: for whoever does not have it yet."""
    fetch: str = ""
    """The public set that has it: `stpl-deploy data fetch`."""
    codec: FrameCodec = FrameCodec()

    @model_validator(mode="after")
    def _holds(self) -> ArchiveSettings:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction must leave frames for training")
        if self.tiles and self.resize == "bilinear":
            raise ValueError('tiles are cut, not resized: leave out resize = "bilinear"')
        if self.tiles and self.frame is None:
            raise ValueError("tiles need a frame, such as [1, 128, 128]")
        if not self.paths:
            raise ValueError("path names no archive")
        return self

    @classmethod
    def of_recipe(cls, data: Mapping[str, Any]) -> ArchiveSettings | None:
        """Those of a recipe's `[data]`, as a manifest keeps it; None where it is no archive."""
        if data.get("source") != "archive":
            return None
        return cls.model_validate({key: data[key] for key in cls.model_fields if key in data})

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every archive."""
        return (self.path,) if isinstance(self.path, Path) else self.path

    @property
    def where(self) -> str:
        """The archives in words."""
        return " and ".join(map(str, self.paths))

    @property
    def reading(self) -> ReadOptions:
        """How files are read."""
        return ReadOptions(
            variable=self.variable,
            time_format=self.time_format,
            units=self.units,
            nan=self.nan,
            select=tuple(self.select.items()),
            bad_pixels=self.bad_pixels,
            layout=self.layout,
        )

    @property
    def window_layout(self) -> Layout:
        """Of the windows."""
        return Layout(self.context + self.horizon, self.every, self.stride)

    @property
    def fit(self) -> Fit:
        """From the data's frames to those that windows or tiles are cut from."""
        size = None if self.frame is None or self.tiles else self.frame[1:]
        return Fit(self.crop, size, self.resize == "bilinear", self.codec.zr)
