"""Motion between two frames by Lucas and Kanade (1981), coarse to fine, and sampling along it.

At each scale s of a pyramid (16, 8, 4, 2 pixels) and twice at each, with b the old frame where the
motion so far points to, a the new one, g the mean of their gradients and <> a weighted sum around:

    v += (<g g'> + lambda I)^-1 <g (a - b)>

Increments are at most one pixel of the scale. Then v is averaged around, weighted by how much
structure there is, so that it spreads from where it is known to where nothing is. `finer` adds what
single pixels say, which holds for the next frame more than for later ones.

Windows are two passes of a box, by AveragePool: where half precision or int8 compute convolutions
in fewer bits (`stpl_export.precision`), the sums of squares stay in fp32. There are no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SCALES = (16, 8, 4, 2)
_LEAST_SIDE = 8
"""Pixels of the coarsest map's shorter side, at least."""
_WINDOW = {16: 5, 8: 5, 4: 7, 2: 9, 1: 9}
"""Side of the box at each scale: twice 5, 7, 9 has a standard deviation of 2, 2.8, 3.7 pixels."""
_DAMPING = {16: 0.002, 8: 0.002, 4: 0.004, 2: 0.008, 1: 0.008}
"""Structure at which the motion of a place counts half."""
_RIDGE = 1e-4
"""lambda"""
_ROUNDS = 2
_FASTEST = 16.0
"""Pixels of the frame in a step, along each axis."""
_MOST_READ = 3.0
"""Times its own area that a place stands for at most."""
_BESIDE = 3
"""Side of the box of patches over which the last round takes its sums."""

Box = Callable[[Tensor], Tensor]
"""A mean around each place."""


class PixelGrid(nn.Module):
    """The places of a map's pixels, and how a map is read beside them."""

    rows: Tensor
    columns: Tensor
    unit: Tensor

    def __init__(self, height: int, width: int) -> None:
        """Of a map of `height` x `width`."""
        super().__init__()
        self.height, self.width = height, width
        # As `grid_sample` counts: the centres of the edge pixels are at -1 and 1.
        unit = torch.tensor([2.0 / max(1, width - 1), 2.0 / max(1, height - 1)])
        columns = F.pad(torch.arange(width)[:, None] * unit[0] - 1, (0, 1))  # (W, 2)
        rows = F.pad(torch.arange(height)[:, None] * unit[1] - 1, (1, 0))  # (H, 2)
        self.register_buffer("rows", rows[:, None], persistent=False)  # (H, 1, 2)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("unit", unit, persistent=False)

    def places(self, shift: Tensor, apart: int = 1) -> Tensor:
        """Column and row, -1 to 1, to which `shift` `(B, 2, H, W)` points: `(B, H, W, 2)`.

        With `apart`, of every so many rows and columns only.
        """
        shift, rows, columns = shift[..., ::apart, ::apart], self.rows, self.columns
        return shift.permute(0, 2, 3, 1) * self.unit + columns[::apart] + rows[::apart]

    def sample(
        self, image: Tensor, shift: Tensor, outside: Literal["zeros", "border"], apart: int = 1
    ) -> Tensor:
        """Read `image(x + shift(x))` between its four nearest pixels.

        Args:
            image: `(B, C, H, W)`.
            shift: `(B, 2, H, W)`, pixels to the right and down.
            outside: what lies there: nothing, or the nearest pixel of the edge.
            apart: read there in every so many rows and columns only.
        """
        places = self.places(shift, apart)
        return F.grid_sample(image, places, padding_mode=outside, align_corners=True)

    def outside(self, shift: Tensor) -> Tensor:
        """By how many pixels the places that `shift` points to lie outside, `(B, 1, H, W)`."""
        beyond = ((self.places(shift).abs() - 1) / self.unit).clamp(min=0.0)  # (B, H, W, 2)
        return beyond.amax(-1)[:, None]


def window_mean(x: Tensor, side: int) -> Tensor:
    """Two box means of `side` over a map `(B, C, H, W)`; nothing lies outside."""
    return _box(_box(x, side), side)


def _box(x: Tensor, side: int) -> Tensor:
    """The mean over a box of `side` around."""
    x = F.avg_pool2d(x, (1, side), 1, (0, side // 2))
    return F.avg_pool2d(x, (side, 1), 1, (side // 2, 0))


def resized(motion: Tensor, height: int, width: int) -> Tensor:
    """Bring a map to another grid over the same frame; its values stay."""
    if motion.shape[2:] == (height, width):
        return motion
    return F.interpolate(motion, (height, width), mode="bilinear", align_corners=False)


def _smooth(x: Tensor) -> Tensor:
    """Weights 1/4, 1/2, 1/4 along both axes: two means of two pixels."""
    x = F.pad(x, (1, 1, 1, 1), "replicate")
    return F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, 1)


def _gradients(x: Tensor) -> Tensor:
    """Central differences, `(B, C, H, W)` -> `(B, 2 C, H, W)`: to the right, then down."""
    x = F.pad(x, (1, 1, 1, 1), "replicate")
    right = x[:, :, 1:-1, 2:] - x[:, :, 1:-1, :-2]
    return 0.5 * torch.cat([right, x[:, :, 2:, 1:-1] - x[:, :, :-2, 1:-1]], dim=1)


def area_read(shift: Tensor) -> Tensor:
    """How much of a map one place of it stands for when it is read at x + shift(x).

    It is the Jacobian determinant: below 1 where motion draws apart, above 1 where it draws
    together, and 0 where it folds.

    Args:
        shift: `(B, 2, h, w)`, in places of the map, to the right and down.

    Returns:
        `(B, 1, h, w)`, 0 to `_MOST_READ`.
    """
    x_x, y_x, x_y, y_y = _gradients(shift).split(1, dim=1)  # (B, 1, h, w) each
    read: Tensor = (1 + x_x) * (1 + y_y) - x_y * y_x
    return read.clamp(0.0, _MOST_READ)


class LucasKanade(nn.Module):
    """Where each patch of a frame came from: `new(x) = old(x + v)`."""

    def __init__(self, height: int, width: int, patch: int) -> None:
        """For frames of `height` x `width`, which `patch` divides; the motion has one per patch."""
        super().__init__()
        fits = [s for s in _SCALES if s * _LEAST_SIDE <= min(height, width)]
        self.scales = tuple(fits) or (1,)
        unit = math.lcm(self.scales[0], patch)
        self.size = (height, width)
        self.padded = (-(-height // unit) * unit, -(-width // unit) * unit)
        self.map = (height // patch, width // patch)
        self.padded_map = (self.padded[0] // patch, self.padded[1] // patch)
        self.grids = nn.ModuleList(
            PixelGrid(self.padded[0] // s, self.padded[1] // s) for s in self.scales
        )

    def forward(self, new: Tensor, old: Tensor, start: Tensor) -> Tensor:
        """Estimate the motion, without a gradient.

        Args:
            new: `(B, C, H, W)`.
            old: as `new`, one step earlier.
            start: `(B, 2, H / patch, W / patch)`, where to begin.

        Returns:
            As `start`, in pixels of the frame, to the right and down.
        """
        both = torch.cat([new, old], dim=1).detach()  # (B, 2 C, H, W)
        v, pyramid = self._edge(start.detach(), self.padded_map), self._pyramid(both)
        for grid, scale in zip(self.grids, self.scales, strict=True):
            assert isinstance(grid, PixelGrid)
            v = resized(v, grid.height, grid.width) / scale
            v = _refined(grid, scale, pyramid[scale], v) * scale
        v = resized(v, *self.padded_map)
        return v[..., : self.map[0], : self.map[1]]

    def _edge(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Repeat the last row and column up to `size`."""
        below, right = size[0] - x.shape[2], size[1] - x.shape[3]
        return F.pad(x, (0, right, 0, below), "replicate") if below or right else x

    def _pyramid(self, frame: Tensor) -> dict[int, Tensor]:
        """Scale -> the frame by means over so many pixels, smoothed."""
        frame, made, scale = self._edge(frame, self.padded), {}, 1
        while True:
            if scale in self.scales:
                made[scale] = _smooth(frame)
            if scale == self.scales[0]:
                return made
            frame, scale = F.avg_pool2d(frame, 2), 2 * scale


def _slopes_beside(both: Tensor) -> tuple[Tensor, Tensor]:
    """A new and an old frame `(B, 2 C, h, w)` with their gradients.

    Returns:
        New `(B, 3 C, h, w)`; old with ones after them, `(B, 3 C + 1, h, w)`, which fall to 0 over
        the pixel outside: what lies there has no part.
    """
    channels = both.shape[1] // 2
    slopes = _gradients(both)  # (B, 4 C, h, w)
    new, old = both.split(channels, dim=1)
    new_x, old_x, new_y, old_y = slopes.split(channels, dim=1)
    ones = torch.ones_like(both[:, :1])
    return torch.cat([new, new_x, new_y], dim=1), torch.cat([old, old_x, old_y, ones], dim=1)


def _products(grid: PixelGrid, new: Tensor, old: Tensor, v: Tensor) -> Tensor:
    """Of gradients and change along the motion `v` `(B, 2, h, w)`: `(B, 5, h, w)`."""
    channels = new.shape[1] // 3
    *there, inside = grid.sample(old, v, "zeros").split([channels] * 3 + [1], dim=1)
    value, slope_x, slope_y = (new * inside).split(channels, dim=1)
    gx, gy, change = 0.5 * (there[1] + slope_x), 0.5 * (there[2] + slope_y), value - there[0]
    products = torch.stack([gx * gx, gx * gy, gy * gy, gx * change, gy * change], dim=1)
    return products.sum(2) if channels > 1 else products.flatten(1, 2)


def _solved(sums: Tensor) -> tuple[Tensor, Tensor]:
    """The step `(B, 2, h, w)` that sums of products ask for, and how much structure they show."""
    xx, xy, yy, xt, yt = sums.split(1, dim=1)  # (B, 1, h, w) each
    structure = xx + yy
    xx, yy = xx + _RIDGE, yy + _RIDGE
    step = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], dim=1) / (xx * yy - xy * xy)
    return step.clamp(-1.0, 1.0), structure


def _spread(v: Tensor, structure: Tensor, damping: float, box: Box) -> Tensor:
    """The mean around of a motion, by how much structure there is."""
    weight = structure / (structure + damping) + 1e-3
    around = box(torch.cat([v * weight, weight], dim=1))  # (B, 3, h, w)
    return around[:, :2] / around[:, 2:]


def _refined(grid: PixelGrid, scale: int, both: Tensor, v: Tensor) -> Tensor:
    """Improve the motion `v` `(B, 2, h, w)`, in pixels of its scale.

    Args:
        grid: of the map.
        scale: of the pyramid.
        both: the new and the old frame, `(B, 2 C, h, w)`.
        v: the motion so far.
    """
    new, old = _slopes_beside(both)
    structure = v[:, :1]

    def box(x: Tensor) -> Tensor:
        return window_mean(x, _WINDOW[scale])

    for _ in range(_ROUNDS):
        step, structure = _solved(box(_products(grid, new, old, v)))
        v = v + step
    v = v.clamp(-_FASTEST / scale, _FASTEST / scale)
    return _spread(v, structure, _DAMPING[scale], box)


def finer(grid: PixelGrid, patch: int, new: Tensor, old: Tensor, v: Tensor) -> Tensor:
    """What the pixels say beyond a smooth motion, without a gradient: one more round at full size.

    Its sums are taken over patches and those beside them.

    Args:
        grid: of the frame.
        patch: side of the patches.
        new: `(B, C, H, W)`.
        old: as `new`, one step earlier.
        v: the motion so far, `(B, 2, H / patch, W / patch)`, pixels of the frame.

    Returns:
        As `v`.
    """
    frames = _slopes_beside(torch.cat([new, old], dim=1).detach())
    v = v.detach()
    products = _products(grid, *frames, resized(v, *new.shape[2:]))  # (B, 5, H, W)
    step, structure = _solved(_box(F.avg_pool2d(products, patch), _BESIDE))
    return v + _spread(step, structure, _DAMPING[1], lambda x: _box(x, _BESIDE))
