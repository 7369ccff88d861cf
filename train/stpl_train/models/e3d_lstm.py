"""E3D-LSTM (Wang et al., ICLR 2019), after the paper where paper and released code differ.

See bibliography.md 1.9. A state has a depth of two frames. Each layer recalls from all of its own
past cell states by attention. Equations (`*` 3-D convolution, `o` product, `s` sigmoid):

    i = s(x_i + h_i)     r = s(x_r + h_r)     g = tanh(x_g + h_g)
    A = softmax(R K^T) K                      c' = LN(c + A) + i o g
    m' = s(x_f2 + m_f + forget_bias) o tanh(m_m) + s(x_i2 + m_i) o tanh(x_g2 + m_g)
    o = tanh(x_o + h_o + Wc*c' + Wm*m')       h' = s(o) o tanh(W1x1x1*[c'; m'])

R are the 2hw positions of r, K the 2hw positions of every past c, the zero state first; logits are
not scaled. The memory m is updated, as in the paper (the released code returns the old one, which
stays zero); tokens are positions (OpenSTL's mix channels and positions).

The kernels are 2 x k x k with one zero slice behind the depth, so for slices x0 and x1

    y0 = W0*x0 + W1*x1      y1 = W0*x1

exactly: two 2-D convolutions, a quarter less work than a padded 3-D one, and nodes for which every
engine has fast and low-precision kernels (3-D convolution often has neither).
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stpl_train.forecaster import FrameShape, State
from stpl_train.models.layers import (
    ChannelNorm,
    ModelConfig,
    Norm,
    OddInt,
    Patching,
    PatchOrder,
    zeros_state,
)

# Finite, so that nothing becomes NaN; exp(-1e30) is exactly 0.
_NEVER = -1e30


class E3DLSTMConfig(ModelConfig):
    """The recipe keys of `[model] name = "e3d-lstm"`."""

    hidden: tuple[PositiveInt, ...] = Field(default=(64, 64, 64, 64), min_length=1)
    """Hidden channels of each layer, bottom first."""
    kernel: OddInt = 5
    """Rows and columns of the convolutions; their depth is 2."""
    history: int = Field(default=19, ge=2)
    """Past cell states that a layer can recall, the zero state at the start among them. A recipe
    that does not state it gets `context + horizon - 1`: all of a sequence, as in the paper. Less is
    another model, whose oldest cell states go; training warns of it. More changes only the time.
    A stream without resets, or a forecast longer than trained, recalls the newest."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "gn1"
    """Norm of the gate convolutions and of the recall, over both slices of the depth."""
    bias: bool = True
    """Biases in all convolutions."""
    forget_bias: float = 1.0
    """Added to the forget gate of m before the sigmoid."""


class DepthConv(nn.Module):
    """A 2 x k x k convolution and its norm: `(B, 2, inputs, h, w)` -> `(B, 2, outputs, h, w)`."""

    def __init__(
        self, inputs: int, outputs: int, norm: Norm, config: E3DLSTMConfig, patching: Patching
    ) -> None:
        """Make the weights of the slice itself and of the slice behind it."""
        super().__init__()
        k = config.kernel
        self.here = nn.Conv2d(inputs, outputs, k, padding=k // 2, bias=config.bias)
        self.behind = nn.Conv2d(inputs, outputs, k, padding=k // 2, bias=False)
        self.shape = (2, outputs, patching.map_height, patching.map_width)
        self.norm = _norm(norm, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve both slices."""
        inputs, (_, outputs, h, w) = x.shape[2], self.shape
        second = x.reshape(-1, 2 * inputs, h, w)[:, inputs:]  # (B, inputs, h, w)
        y = self.here(x.reshape(-1, inputs, h, w))  # (2B, outputs, h, w)
        y0, y1 = y.reshape(-1, 2 * outputs, h, w).chunk(2, dim=1)  # (B, outputs, h, w) each
        both = torch.cat((y0 + self.behind(second), y1), dim=1)  # (B, 2*outputs, h, w)
        out: Tensor = self.norm(both.reshape(-1, *self.shape))  # (B, 2, outputs, h, w)
        return out


def _norm(kind: Norm, shape: tuple[int, int, int, int]) -> nn.Module:
    if kind == "ln_chw":
        return nn.LayerNorm(shape)
    return ChannelNorm(*shape) if kind == "gn1" else nn.Identity()


class E3DLSTMCell(nn.Module):
    """One layer: `(x, h, c, m, history) -> (h', c', m', history')`, maps `(B, 2, D, h, w)`."""

    def __init__(
        self, inputs: int, memory: int, hidden: int, config: E3DLSTMConfig, patching: Patching
    ) -> None:
        """Make the convolutions for `inputs` channels of x and `memory` channels of m."""
        super().__init__()

        def conv(source: int, gates: int, norm: Norm) -> DepthConv:
            return DepthConv(source, gates * hidden, norm, config, patching)

        self.conv_x = conv(inputs, 7, config.norm)
        self.conv_h = conv(hidden, 4, config.norm)
        self.conv_m = conv(memory, 4, config.norm)
        self.conv_c_new = conv(hidden, 1, "none")
        self.conv_m_new = conv(hidden, 1, "none")
        self.merge = nn.Conv2d(2 * hidden, hidden, 1, bias=config.bias)
        self.shape = (2, hidden, patching.map_height, patching.map_width)
        self.norm_c = _norm(config.norm, self.shape)
        self.forget_bias = config.forget_bias
        self.capacity = config.history

    def _tokens(self, maps: Tensor) -> Tensor:
        """`(B, 2, D, h, w)` -> one token per position, `(B, P, D)` with P = 2hw."""
        depth, hidden, h, w = self.shape
        return maps.permute(0, 1, 3, 4, 2).reshape(-1, depth * h * w, hidden)

    def _recall(self, r: Tensor, keys: Tensor, unfilled: Tensor) -> Tensor:
        """Attend from r `(B, 2, D, h, w)` to keys `(B, N*P, D)`; returns maps like r.

        `unfilled` `(B, 1, N, 1)` is 0 for a slot in use and very negative for an empty one.
        """
        depth, hidden, h, w = self.shape
        positions = depth * h * w
        logits = self._tokens(r) @ keys.transpose(1, 2)  # (B, P, N*P)
        slots = logits.reshape(-1, positions, self.capacity, positions) + unfilled
        weights = slots.reshape(-1, positions, self.capacity * positions).softmax(dim=-1)
        recalled = weights @ keys  # (B, P, D)
        return recalled.reshape(-1, depth, h, w, hidden).permute(0, 1, 4, 2, 3)

    def forward(
        self, x: Tensor, h: Tensor, c: Tensor, m: Tensor, history: Tensor, unfilled: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Advance the layer by one frame; m comes from the layer below."""
        depth, hidden, height, width = self.shape
        xi, xg, xr, xo, xi2, xg2, xf2 = self.conv_x(x).chunk(7, dim=2)  # (B, 2, D, h, w) each
        hi, hg, hr, ho = self.conv_h(h).chunk(4, dim=2)
        mi, mf, mg, mm = self.conv_m(m).chunk(4, dim=2)

        keys = torch.cat((history, self._tokens(c)), dim=1)  # (B, N*P, D), newest last
        recalled = self._recall(torch.sigmoid(xr + hr), keys, unfilled)  # (B, 2, D, h, w)
        c = self.norm_c(c + recalled) + torch.sigmoid(xi + hi) * torch.tanh(xg + hg)

        i, f = torch.sigmoid(xi2 + mi), torch.sigmoid(xf2 + mf + self.forget_bias)
        m = f * torch.tanh(mm) + i * torch.tanh(xg2 + mg)  # (B, 2, D, h, w)

        o = torch.tanh(xo + ho + self.conv_c_new(c) + self.conv_m_new(m))
        both = torch.cat((c, m), dim=2).reshape(-1, 2 * hidden, height, width)  # (2B, 2D, h, w)
        mixed = self.merge(both).reshape(-1, *self.shape)  # (B, 2, D, h, w)
        h = torch.sigmoid(o) * torch.tanh(mixed)
        return h, c, m, keys[:, depth * height * width :]


class E3DLSTM(nn.Module):
    """A stack of E3D-LSTM layers; a 2x1x1 convolution decodes the two slices into one frame.

    State, maps `(B, 2, hidden[l], H/patch, W/patch)`: `x_prev`, the patched frame before this one;
    `layer<l>.h`, `layer<l>.c`; `layer<l>.history`, the `history - 1` cell states before c as
    tokens `(B, (history - 1)*2hw, hidden[l])`, newest last; `m`, which leaves the top layer; and
    `count` `(B, 1)`, the filled slots of the histories.
    """

    Config = E3DLSTMConfig
    ages: Tensor

    def __init__(self, frame_shape: FrameShape, config: E3DLSTMConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W)."""
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        hidden, channels = config.hidden, self.patching.map_channels
        inputs, memories = (channels, *hidden[:-1]), (hidden[-1], *hidden[:-1])
        self.cells = nn.ModuleList(
            E3DLSTMCell(*widths, config, self.patching)
            for widths in zip(inputs, memories, hidden, strict=True)
        )
        self.decode = nn.Conv2d(2 * hidden[-1], channels, 1, bias=config.bias)
        # How many filled slots a slot needs to be filled itself, less one; the last slot is c.
        ages = torch.arange(config.history - 2, -2, -1, dtype=torch.get_default_dtype())
        self.register_buffer("ages", ages, persistent=False)  # (N,)
        self.capacity = config.history
        self.state_shapes = self._shapes(hidden)

    def _shapes(self, hidden: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        h, w = self.patching.map_height, self.patching.map_width
        shapes: dict[str, tuple[int, ...]] = {"x_prev": (self.patching.map_channels, h, w)}
        for n, width in enumerate(hidden):
            shapes[f"layer{n}.h"] = shapes[f"layer{n}.c"] = (2, width, h, w)
            shapes[f"layer{n}.history"] = ((self.capacity - 1) * 2 * h * w, width)
        return shapes | {"m": (2, hidden[-1], h, w), "count": (1,)}

    def initial_state(self, batch: int) -> State:
        """All-zero states for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        h, w = self.patching.map_height, self.patching.map_width
        x_now, m, count = self.patching.to_map(frame), state["m"], state["count"]
        filled = torch.clamp(count - self.ages, min=0, max=1)  # (B, N), 1 where filled
        unfilled = ((1 - filled) * _NEVER).reshape(-1, 1, self.capacity, 1)  # (B, 1, N, 1)
        new: State = {"x_prev": x_now}
        x = torch.cat((state["x_prev"], x_now), dim=1)  # (B, 2*C*p*p, h, w)
        x = x.reshape(-1, 2, self.patching.map_channels, h, w)  # (B, 2, C*p*p, h, w)
        for n, cell in enumerate(self.cells):
            old = (state[f"layer{n}.h"], state[f"layer{n}.c"], m, state[f"layer{n}.history"])
            x, c, m, history = cell(x, *old, unfilled)  # (B, 2, D, h, w), ...
            new |= {f"layer{n}.h": x, f"layer{n}.c": c, f"layer{n}.history": history}
        new |= {"m": m, "count": torch.clamp(count + 1, max=self.capacity - 1)}
        top = x.reshape(-1, self.decode.in_channels, h, w)  # (B, 2D, h, w)
        return self.patching.to_frame(self.decode(top)), new
