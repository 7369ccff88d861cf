"""PredRNN with the zigzag memory M alone: the ablation of the paper's Eq. 3 (bibliography.md 1.3).

No code was published. The frame enters layer 1 only; h and m go up the layers within a frame and
from the top layer to the bottom one at the next frame, so two tensors are the whole state:

    i = s(Wxi*x [l=1] + Whi*h + Wmi o m + bi)       f likewise (+ forget_bias)
    g = tanh(Wxg*x [l=1] + Whg*h + bg)              m' = f o m + i o g
    o = s(Wxo*x [l=1] + Who*h + Wmo o m' + bo)      h' = o o tanh(m')

Width and kernel are unpublished for this row; 4 x 128 and 5x5 are assumed. `forget_bias` is not in
Eq. 3: it only shifts where `bf` starts, and is 1 as in the same authors' PredRNN code.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
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


class PredRNNZigzagConfig(ModelConfig):
    """The recipe keys of `[model] name = "predrnn-zigzag"`."""

    hidden: PositiveInt = 128
    """Channels of every layer: equal, since m enters each by an element product."""
    layers: PositiveInt = 4
    kernel: OddInt = 5
    """Side of the gate convolutions."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "none"
    """Norm after each gate convolution."""
    peepholes: bool = True
    """The products Wm o m, one weight per element of the map; they fix the grid."""
    bias: bool = True
    """Biases of the four gates."""
    forget_bias: float = 1.0
    """Added to the forget gate before its sigmoid."""


class ZigzagCell(nn.Module):
    """One layer: `(x or None, h, m) -> (h', m')`, maps of `(B, D, h, w)`."""

    def __init__(
        self, inputs: int | None, config: PredRNNZigzagConfig, height: int, width: int
    ) -> None:
        """Make the gates; `inputs` is the frame's channels at layer 1 and None above it."""
        super().__init__()
        d, k, size = config.hidden, config.kernel, (height, width)
        self.conv_x = ConvNorm(inputs, 4 * d, k, config.norm, *size) if inputs else None
        self.conv_h = ConvNorm(d, 4 * d, k, config.norm, *size, bias=config.bias)
        # Of i, f and o; zero, so that training starts without them.
        self.peepholes = nn.ParameterList(
            torch.zeros(d, *size) for _ in range(3 if config.peepholes else 0)
        )
        self.forget_bias = config.forget_bias

    def _peep(self, gate: int, m: Tensor) -> Tensor | float:
        return self.peepholes[gate] * m if len(self.peepholes) else 0.0  # (B, D, h, w)

    def forward(self, x: Tensor | None, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the layer by one frame."""
        gates = self.conv_h(h)  # (B, 4D, h, w)
        if self.conv_x is not None:
            gates = gates + self.conv_x(x)  # (B, 4D, h, w)
        i, f, g, o = gates.chunk(4, dim=1)  # (B, D, h, w) each
        i = torch.sigmoid(i + self._peep(0, m))  # (B, D, h, w)
        f = torch.sigmoid(f + self._peep(1, m) + self.forget_bias)  # (B, D, h, w)
        m = f * m + i * torch.tanh(g)  # (B, D, h, w)
        return torch.sigmoid(o + self._peep(2, m)) * torch.tanh(m), m


class PredRNNZigzag(nn.Module):
    """A stack of zigzag cells with a bias-free 1x1 decoder.

    State: `h` and `m` of the top layer, each `(B, hidden, H/patch, W/patch)`.
    """

    Config = PredRNNZigzagConfig

    def __init__(self, frame_shape: FrameShape, config: PredRNNZigzagConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W)."""
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        size = (self.patching.map_height, self.patching.map_width)
        channels = self.patching.map_channels
        self.cells = nn.ModuleList(
            ZigzagCell(channels if n == 0 else None, config, *size) for n in range(config.layers)
        )
        self.decode = nn.Conv2d(config.hidden, channels, 1, bias=False)
        shape = (config.hidden, *size)
        self.state_shapes: dict[str, tuple[int, ...]] = {"h": shape, "m": shape}

    def initial_state(self, batch: int) -> State:
        """All-zero h and m for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        x: Tensor | None = self.patching.to_map(frame)  # (B, C*p*p, h, w)
        h, m = state["h"], state["m"]
        for cell in self.cells:
            h, m = cell(x, h, m)  # (B, D, h, w) each
            x = None  # the frame enters the first layer only
        return self.patching.to_frame(self.decode(h)), {"h": h, "m": m}
