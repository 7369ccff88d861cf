"""Small modules that several models share: space-to-depth, norms, convolutions."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from stpl_core.errors import RecipeError
from stpl_train.forecaster import FrameShape

PatchOrder = Literal["row-col-channel", "channel-col-row", "channel-row-col"]
"""Channel order after space-to-depth (bibliography.md 1.0); it matters for foreign weights only.

`row-col-channel`: PredRNN, OpenSTL and ONNX SpaceToDepth. `channel-col-row`: MoDeRNN, CMS-LSTM.
`channel-row-col`: torch PixelUnshuffle.
"""

Norm = Literal["ln_chw", "gn1", "none"]
"""`ln_chw`: LayerNorm over [C, H, W] with an affine per element (fixes the grid).
`gn1`: the same statistics with an affine per channel. `none`: no norm."""


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, found {value}")
    return value


OddInt = Annotated[PositiveInt, AfterValidator(_odd)]


class ModelConfig(BaseModel):
    """Base of the models' recipe keys: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Axes of a patched frame (b, c, h, row, w, col), in the order in which they make the channel.
_AXES: dict[PatchOrder, tuple[int, int, int]] = {
    "row-col-channel": (3, 5, 1),
    "channel-col-row": (1, 5, 3),
    "channel-row-col": (1, 3, 5),
}


class PatchError(RecipeError):
    """A patch that does not divide the frame."""

    def __init__(self, found: str, *, expected: str, fix: str, patch: int) -> None:
        """As any error; and the patch."""
        super().__init__(found, expected=expected, fix=fix)
        self.patch = patch


class Patching(nn.Module):
    """Space-to-depth and back: `(B, C, H, W)` <-> `(B, C*p*p, H/p, W/p)`. No parameters."""

    def __init__(self, frame_shape: FrameShape, patch: int, order: PatchOrder) -> None:
        """Raise RecipeError where the patch does not divide the frame."""
        super().__init__()
        channels, height, width = frame_shape
        if height % patch or width % patch:
            divisors = [p for p in range(1, 17) if height % p == 0 and width % p == 0]
            near = min(divisors, key=lambda p: abs(p - patch))
            raise PatchError(
                f"model.patch = {patch} does not divide the frame of {height}x{width}",
                expected=f"one of {divisors}",
                fix=f"--set model.patch={near}",
                patch=patch,
            )
        self.patch, self.order = patch, order
        self.channels = channels
        self.map_channels = channels * patch * patch
        self.map_height, self.map_width = height // patch, width // patch

    def to_map(self, frame: Tensor) -> Tensor:
        """Fold a frame `(B, C, H, W)` into a map `(B, C*p*p, H/p, W/p)`."""
        if self.patch == 1:
            return frame
        p, h, w = self.patch, self.map_height, self.map_width
        x = frame.reshape(-1, self.channels, h, p, w, p)  # (B, C, h, row, w, col)
        x = x.permute(0, *_AXES[self.order], 2, 4)  # (B, <channel axes>, h, w)
        return x.reshape(-1, self.map_channels, h, w)  # (B, C*p*p, h, w)

    def to_frame(self, feature_map: Tensor) -> Tensor:
        """Unfold a map `(B, C*p*p, H/p, W/p)` into a frame `(B, C, H, W)`."""
        if self.patch == 1:
            return feature_map
        p, h, w = self.patch, self.map_height, self.map_width
        axes = _AXES[self.order]
        size = {1: self.channels, 3: p, 5: p}
        x = feature_map.reshape(-1, *(size[a] for a in axes), h, w)  # (B, <channel axes>, h, w)
        source = {axis: i + 1 for i, axis in enumerate(axes)}  # where each axis lies now
        x = x.permute(0, source[1], 4, source[3], 5, source[5])  # (B, C, h, row, w, col)
        return x.reshape(-1, self.channels, h * p, w * p)  # (B, C, H, W)


class ChannelNorm(nn.Module):
    """`gn1`: mean and variance over everything but the batch, affine per channel.

    The numbers of `nn.GroupNorm(1, C)`. That class exports with a Shape node and copies of its
    weights; this one is a single LayerNormalization between two static reshapes.
    """

    def __init__(self, *shape: int) -> None:
        """Make the norm of `(B, *shape)`, `shape` ending in (channels, height, width)."""
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.ones(shape[-3], 1, 1))
        self.bias = nn.Parameter(torch.zeros(shape[-3], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, *shape)` -> the same shape."""
        elements = math.prod(self.shape)
        flat = F.layer_norm(x.reshape(-1, elements), (elements,))  # (B, elements)
        return flat.reshape(-1, *self.shape) * self.weight + self.bias


def make_norm(kind: Norm, channels: int, height: int, width: int) -> nn.Module:
    """Return the norm of a `(B, channels, height, width)` map; epsilon is 1e-5 throughout."""
    if kind == "ln_chw":
        return nn.LayerNorm([channels, height, width])
    if kind == "gn1":
        return ChannelNorm(channels, height, width)
    return nn.Identity()


class ConvNorm(nn.Module):
    """A "same" convolution, without bias unless asked for, followed by its own norm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: Norm,
        height: int,
        width: int,
        bias: bool = False,
    ) -> None:
        """Make the convolution `inputs -> outputs` with `kernel` x `kernel` weights."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.norm = make_norm(norm, outputs, height, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, h, w)` -> `(B, outputs, h, w)`."""
        out: Tensor = self.norm(self.conv(x))
        return out


def zeros_state(
    module: nn.Module, shapes: dict[str, tuple[int, ...]], batch: int
) -> dict[str, Tensor]:
    """All-zero state tensors `(batch, *shape)` like the module's parameters in dtype and device."""
    like = next(module.parameters())
    return {
        name: torch.zeros(batch, *shape, dtype=like.dtype, device=like.device)
        for name, shape in shapes.items()
    }
