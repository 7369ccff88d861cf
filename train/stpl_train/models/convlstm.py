"""ConvLSTM, after Shi et al. 2015 in the form of OpenSTL (bibliography.md 1.1).

Equations (`*` convolution, `o` product, `s` sigmoid), for each layer:

    i = s(Wxi*x + Whi*h)    f = s(Wxf*x + Whf*h + forget_bias)    g = tanh(Wxg*x + Whg*h)
    c' = f o c + i o g      o = s(Wxo*x + Who*h)                  h' = o o tanh(c')

No biases, no peepholes, none of OpenSTL's unused weights. `forget_bias = 0` is OpenSTL's own.

`equations = "openstl-2023-06"` is what OpenSTL computed until December 2023 (its issue 68):
h' = o o g, so that the cell never reaches the output. Weights published in June 2023 were
presumably trained with it.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
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


class ConvLSTMConfig(ModelConfig):
    """The recipe keys of `[model] name = "convlstm"`."""

    hidden: tuple[PositiveInt, ...] = Field(default=(128, 128, 128, 128), min_length=1)
    """Hidden channels of each layer, bottom first."""
    kernel: OddInt = 5
    """Side of the gate convolutions."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "none"
    """Norm after each gate convolution."""
    forget_bias: float = 1.0
    """Added to the forget gate before its sigmoid."""
    equations: Literal["current", "openstl-2023-06"] = "current"
    """The older ones are for OpenSTL's weights of June 2023 only."""


class ConvLSTMCell(nn.Module):
    """One layer: `(x, h, c) -> (h', c')`, maps of `(B, channels, h, w)`."""

    def __init__(
        self, inputs: int, hidden: int, config: ConvLSTMConfig, patching: Patching
    ) -> None:
        """Make the gate convolutions `inputs -> 4 hidden` and `hidden -> 4 hidden`."""
        super().__init__()
        size = (patching.map_height, patching.map_width)
        self.conv_x = ConvNorm(inputs, 4 * hidden, config.kernel, config.norm, *size)
        self.conv_h = ConvNorm(hidden, 4 * hidden, config.kernel, config.norm, *size)
        self.forget_bias = config.forget_bias
        self.output_reads_cell = config.equations == "current"

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the layer by one frame."""
        gates = self.conv_x(x) + self.conv_h(h)  # (B, 4D, h, w)
        i, f, g, o = gates.chunk(4, dim=1)  # (B, D, h, w) each
        i, f, o = torch.sigmoid(i), torch.sigmoid(f + self.forget_bias), torch.sigmoid(o)
        g = torch.tanh(g)  # (B, D, h, w)
        c = f * c + i * g  # (B, D, h, w)
        return o * (torch.tanh(c) if self.output_reads_cell else g), c


class ConvLSTM(nn.Module):
    """A stack of ConvLSTM layers with a bias-free 1x1 decoder.

    State: `layer<l>.h` and `layer<l>.c`, each `(B, hidden[l], H/patch, W/patch)`.
    """

    Config = ConvLSTMConfig

    def __init__(self, frame_shape: FrameShape, config: ConvLSTMConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W)."""
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        widths = (self.patching.map_channels, *config.hidden)
        self.cells = nn.ModuleList(
            ConvLSTMCell(widths[n], widths[n + 1], config, self.patching)
            for n in range(len(config.hidden))
        )
        self.decode = nn.Conv2d(widths[-1], self.patching.map_channels, 1, bias=False)
        size = (self.patching.map_height, self.patching.map_width)
        self.state_shapes: dict[str, tuple[int, ...]] = {
            f"layer{n}.{part}": (width, *size)
            for n, width in enumerate(config.hidden)
            for part in ("h", "c")
        }

    def initial_state(self, batch: int) -> State:
        """All-zero hidden and cell states for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        x = self.patching.to_map(frame)  # (B, C*p*p, h, w)
        new: State = {}
        for n, cell in enumerate(self.cells):
            x, c = cell(x, state[f"layer{n}.h"], state[f"layer{n}.c"])  # (B, D, h, w)
            new[f"layer{n}.h"], new[f"layer{n}.c"] = x, c
        return self.patching.to_frame(self.decode(x)), new
