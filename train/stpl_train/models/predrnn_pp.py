"""PredRNN++ (Wang et al., ICML 2018): causal LSTM and gradient highway, after the released code.

bibliography.md 1.7. Equations (`*` convolution, `o` product, `s` sigmoid), for each layer:

    i = s(x_i + h_i + c_i)      f = s(x_f + h_f + c_f + forget_bias)      g = tanh(x_g + h_g + c_g)
    c' = f o c + i o g
    i2 = s(x_i2 + m_i + C_i)    f2 = s(x_f2 + m_f + C_f + forget_bias)    g2 = tanh(x_g2 + C_g)
    m' = f2 o tanh(m_m) + i2 o g2
    o = tanh(x_o + h_o + C_o + Wm*m')                     h' = o o tanh(W1x1*[c'; m'])

where x_, h_, c_, m_ and C_ are convolutions of x, h, c, m and c'. The memory m climbs the layers
within a step and enters the lowest one again at the next. Layer 1 reads the gradient highway:

    p = tanh(Wpx*h0 + Wpz*z)    u = s(Wux*h0 + Wuz*z)     z' = u o p + (1 - u) o z
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from stpl_train.forecaster import FrameShape, State
from stpl_train.models.layers import (
    ConvNorm,
    ModelConfig,
    Norm,
    OddInt,
    Patching,
    PatchOrder,
    zeros_state,
)


class PredRNNPPConfig(ModelConfig):
    """The recipe keys of `[model] name = "predrnn-pp"`."""

    hidden: tuple[PositiveInt, ...] = Field(default=(128, 64, 64, 64), min_length=2)
    """Hidden channels of each layer, bottom first; they may differ (OpenSTL: 128 in all four)."""
    kernel: OddInt = 5
    """Side of every convolution but the 1x1 ones."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "none"
    """Norm after each `kernel` x `kernel` convolution; the authors' TensorFlow code has `gn1`."""
    bias: bool = False
    """Biases in all convolutions, as in the authors' TensorFlow code."""
    forget_bias: float = 1.0
    """Added to both forget gates before the sigmoid."""
    equations: Literal["current", "openstl-2023-06"] = "current"
    """`openstl-2023-06`: c_i, c_f and c_g are read from m, as in OpenSTL up to December 2023.
    The weights in its model zoo were presumably trained that way."""
    init_range: NonNegativeFloat = 0.0
    """Above 0: `kernel` x `kernel` weights start uniform in +- this (TensorFlow code: 0.001)."""


class CausalLSTMCell(nn.Module):
    """One layer: `(x, h, c, m) -> (h', c', m')`, maps of `(B, channels, h, w)`."""

    def __init__(
        self, inputs: int, memory: int, hidden: int, config: PredRNNPPConfig, patching: Patching
    ) -> None:
        """Make the convolutions for `inputs` channels of x and `memory` channels of m."""
        super().__init__()

        def conv(source: int, gates: int) -> ConvNorm:
            size = (patching.map_height, patching.map_width)
            return ConvNorm(
                source, gates * hidden, config.kernel, config.norm, *size, bias=config.bias
            )

        self.from_m = config.equations == "openstl-2023-06"
        self.conv_x = conv(inputs, 7)
        self.conv_h = conv(hidden, 4)
        self.conv_c = conv(memory if self.from_m else hidden, 3)
        self.conv_m = conv(memory, 3)
        self.conv_c_new = conv(hidden, 4)
        self.conv_m_new = conv(hidden, 1)
        self.merge = nn.Conv2d(2 * hidden, hidden, 1, bias=config.bias)
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the layer by one frame; m comes from the layer below."""
        xi, xf, xg, xi2, xf2, xg2, xo = self.conv_x(x).chunk(7, dim=1)  # (B, D, h, w) each
        hi, hf, hg, ho = self.conv_h(h).chunk(4, dim=1)
        ci, cf, cg = self.conv_c(m if self.from_m else c).chunk(3, dim=1)
        i, f = torch.sigmoid(xi + hi + ci), torch.sigmoid(xf + hf + cf + self.forget_bias)
        c = f * c + i * torch.tanh(xg + hg + cg)  # (B, D, h, w)

        mi, mf, mm = self.conv_m(m).chunk(3, dim=1)
        ci, cg, cf, co = self.conv_c_new(c).chunk(4, dim=1)
        i, f = torch.sigmoid(xi2 + mi + ci), torch.sigmoid(xf2 + mf + cf + self.forget_bias)
        m = f * torch.tanh(mm) + i * torch.tanh(xg2 + cg)  # (B, D, h, w)

        o = torch.tanh(xo + ho + co + self.conv_m_new(m))
        return o * torch.tanh(self.merge(torch.cat((c, m), dim=1))), c, m


class GradientHighway(nn.Module):
    """`(x, z) -> z'`: a short way through time, maps of `(B, D, h, w)`."""

    def __init__(self, hidden: int, config: PredRNNPPConfig, patching: Patching) -> None:
        """Make the two convolutions `D -> 2D`."""
        super().__init__()
        size = (patching.map_height, patching.map_width)
        shape = (hidden, 2 * hidden, config.kernel, config.norm, *size)
        self.conv_x = ConvNorm(*shape, bias=config.bias)
        self.conv_z = ConvNorm(*shape, bias=config.bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Advance the highway by one frame."""
        p, u = (self.conv_x(x) + self.conv_z(z)).chunk(2, dim=1)  # (B, D, h, w) each
        u = torch.sigmoid(u)
        return u * torch.tanh(p) + (1 - u) * z


class PredRNNPP(nn.Module):
    """A stack of causal LSTM layers, a gradient highway above the lowest, a 1x1 decoder.

    State: `layer<l>.h` and `layer<l>.c`, each `(B, hidden[l], H/patch, W/patch)`; `m`, as wide as
    the top layer, the memory that leaves it; `z`, as wide as layer 0, the highway.
    """

    Config = PredRNNPPConfig

    def __init__(self, frame_shape: FrameShape, config: PredRNNPPConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W)."""
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        hidden = config.hidden
        # Layer 1 reads the highway, which is as wide as layer 0; m of layer 0 comes from the top.
        inputs = (self.patching.map_channels, *hidden[:-1])
        memories = (hidden[-1], *hidden[:-1])
        self.cells = nn.ModuleList(
            CausalLSTMCell(*widths, config, self.patching)
            for widths in zip(inputs, memories, hidden, strict=True)
        )
        self.highway = GradientHighway(hidden[0], config, self.patching)
        self.decode = nn.Conv2d(hidden[-1], self.patching.map_channels, 1, bias=config.bias)
        if config.init_range > 0:
            self._start_uniform(config.init_range)
        size = (self.patching.map_height, self.patching.map_width)
        self.state_shapes: dict[str, tuple[int, ...]] = {
            f"layer{n}.{part}": (width, *size)
            for n, width in enumerate(hidden)
            for part in ("h", "c")
        }
        self.state_shapes |= {"m": (hidden[-1], *size), "z": (hidden[0], *size)}

    def _start_uniform(self, bound: float) -> None:
        for module in self.modules():
            if isinstance(module, ConvNorm):
                nn.init.uniform_(module.conv.weight, -bound, bound)

    def initial_state(self, batch: int) -> State:
        """All-zero states for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        x, m, z = self.patching.to_map(frame), state["m"], state["z"]  # (B, C*p*p, h, w), ...
        new: State = {}
        for n, cell in enumerate(self.cells):
            x, c, m = cell(x, state[f"layer{n}.h"], state[f"layer{n}.c"], m)  # (B, D, h, w)
            new[f"layer{n}.h"], new[f"layer{n}.c"] = x, c
            if n == 0:
                x = z = self.highway(x, z)  # (B, D, h, w)
        return self.patching.to_frame(self.decode(x)), new | {"m": m, "z": z}
