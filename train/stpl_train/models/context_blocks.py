"""The CE and SE blocks of CMS-LSTM (bibliography.md 1.5), as parts that other cells take too.

CE (Context Embedding) lets a cell's input and hidden state scale one another before the gates.
SE (Spatiotemporal Expression) lets the new hidden and cell states attend to one another in
windows of several sizes, and replaces both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stpl_core.errors import RecipeError
from stpl_train.models.layers import ConvNorm, Norm, Patching, make_norm


class ContextEmbedding(nn.Module):
    """`(x, h) -> (x, h)`, each scaled in turn by attention computed from the other.

    odd n:  x <- scale s(LN(W_Q * h)) o x
    even n: h <- scale s(LN(W_R * x)) o h

    The weights are shared over the half-steps; with h = 0 and a fresh norm it is the identity.
    """

    def __init__(
        self,
        x_width: int,
        h_width: int,
        kernel: int,
        norm: Norm,
        height: int,
        width: int,
        half_steps: int = 5,
        scale: float = 2.0,
    ) -> None:
        """Make one convolution each way; the two maps may have unequal channels."""
        super().__init__()
        self.from_h = ConvNorm(h_width, x_width, kernel, norm, height, width)  # reads h, scales x
        self.from_x = ConvNorm(x_width, h_width, kernel, norm, height, width)  # reads x, scales h
        self.half_steps, self.scale = half_steps, scale

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Run the half-steps on `(B, x_width, h, w)` and `(B, h_width, h, w)`."""
        for n in range(self.half_steps):
            if n % 2 == 0:
                x = self.scale * torch.sigmoid(self.from_h(h)) * x
            else:
                h = self.scale * torch.sigmoid(self.from_x(x)) * h
        return x, h


class WindowAttention(nn.Module):
    """Attention inside each of `scale` x `scale` windows of h and c laid side by side.

    The tokens of a window are its positions of h and of c together, L = 2 (h/r) (w/r); softmax
    over keys, no 1/sqrt(d); the input is added to the result.
    """

    def __init__(self, channels: int, scale: int, height: int, width: int) -> None:
        """Make the 1x1 query, key and value convolutions for maps of `(C, height, 2 width)`."""
        super().__init__()
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        # The released code makes this scalar and never uses it; kept so that counts and
        # checkpoints are the same as there.
        self.gamma = nn.Parameter(torch.zeros(1))
        self.channels, self.scale = channels, scale
        self.window = (height // scale, width // scale)

    def _tokens(self, pair: Tensor) -> Tensor:
        r, (a, b) = self.scale, self.window
        x = pair.reshape(-1, self.channels, r, a, 2, r, b)  # (B, D, r, a, h|c, r, b)
        x = x.permute(0, 2, 5, 4, 3, 6, 1)  # (B, r, r, h|c, a, b, D)
        return x.reshape(-1, r * r, 2 * a * b, self.channels)  # (B, windows, L, D)

    def _picture(self, tokens: Tensor) -> Tensor:
        r, (a, b) = self.scale, self.window
        x = tokens.reshape(-1, r, r, 2, a, b, self.channels)  # (B, r, r, h|c, a, b, D)
        x = x.permute(0, 6, 1, 4, 3, 2, 5)  # (B, D, r, a, h|c, r, b)
        return x.reshape(-1, self.channels, r * a, 2 * r * b)  # (B, D, h, 2w)

    def forward(self, pair: Tensor) -> Tensor:
        """`(B, D, h, 2w)` -> the same shape."""
        query, key = self._tokens(self.query(pair)), self._tokens(self.key(pair))
        logits = query @ key.transpose(-2, -1)  # (B, windows, L, L)
        mixed = torch.softmax(logits, dim=-1) @ self._tokens(self.value(pair))  # (B, windows, L, D)
        return self._picture(mixed) + pair


class SpatiotemporalExpression(nn.Module):
    """`(h, c) -> (h, c)`: attention at several scales, then a gated update of the cell.

    Z = [h c] side by side; A = LN(5x5 * [attention_r(Z) for r in scales]); z = 1x1 * [A_h; A_c]
    (i, g, o) = LN(5x5 * z) + LN(5x5 * h)
    c^ = LN((1 - s(i)) o c + s(i) o tanh(g));  h^ = s(o) o c^

    The 5x5 over Z crosses the seam between h and c, as in the released code.
    """

    KERNEL = 5

    def __init__(
        self, channels: int, scales: Sequence[int], norm: Norm, height: int, width: int
    ) -> None:
        """Make the block for h and c of `(channels, height, width)`."""
        super().__init__()
        k = self.KERNEL
        self.stages = nn.ModuleList(WindowAttention(channels, r, height, width) for r in scales)
        self.merge = nn.Sequential(
            nn.Conv2d(len(scales) * channels, channels, k, padding=k // 2),
            make_norm(norm, channels, height, 2 * width),
        )
        self.mix = nn.Conv2d(2 * channels, channels, 1)
        self.gates_z = ConvNorm(channels, 3 * channels, k, norm, height, width)
        self.gates_h = ConvNorm(channels, 3 * channels, k, norm, height, width)
        self.norm_c = make_norm(norm, channels, height, width)

    def forward(self, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Update maps of `(B, D, h, w)` each."""
        pair = torch.cat([h, c], dim=3)  # (B, D, h, 2w)
        found = torch.cat([stage(pair) for stage in self.stages], dim=1)  # (B, scales*D, h, 2w)
        a_h, a_c = self.merge(found).chunk(2, dim=3)  # (B, D, h, w) each
        z = self.mix(torch.cat([a_h, a_c], dim=1))  # (B, D, h, w)
        i, g, o = (self.gates_z(z) + self.gates_h(h)).chunk(3, dim=1)  # (B, D, h, w) each
        i = torch.sigmoid(i)
        c = cast("Tensor", self.norm_c((1 - i) * c + i * torch.tanh(g)))  # (B, D, h, w)
        return torch.sigmoid(o) * c, c


def check_scales(patching: Patching, scales: Sequence[int], key: str) -> None:
    """Refuse a map that the SE block cannot split into `scales` windows per side.

    Args:
        patching: the model's space-to-depth.
        scales: windows per side; empty means no SE block and fits every map.
        key: the recipe key of `scales`, for the message.

    Raises:
        RecipeError: the map is not square, or its side is not divisible by every scale.
    """
    if not scales:
        return
    rows, columns, patch = patching.map_height, patching.map_width, patching.patch
    step = math.lcm(*scales)
    if rows == columns and rows % step == 0:
        return
    height, width = rows * patch, columns * patch
    patches = [p for p in range(1, 17) if height == width and height % (p * step) == 0]
    side = max(1, round(max(height, width) / (patch * step))) * patch * step
    sizes = ", ".join(f"{n}x{n}" for n in (side - patch * step, side, side + patch * step) if n > 0)
    raise RecipeError(
        f"frames of {height}x{width} in patches of {patch} make a map of {rows}x{columns}, "
        f"which model.{key} = {list(scales)} cannot split",
        expected=f"a square map whose side is divisible by {step}"
        + (f": model.patch of {patches}, or" if patches else ":")
        + f" frames of {sizes}",
        fix=f"--set model.patch={patches[-1]}" if patches else f"--set model.{key}=[]",
    )
