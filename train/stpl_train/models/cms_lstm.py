"""CMS-LSTM (Chai et al., ICME 2022), after the released code where paper and code differ.

bibliography.md 1.5 lists the differences, and its section 2 explains why the code is followed. Each
cell embeds context (CE), runs a layer-normed ConvLSTM, then lets its new states attend to one
another at several scales (SE). The ablations are keys: `context = false` leaves CE out,
`scales = []` leaves SE out.

At 4 layers of 64, 3x3 gates and a 16x16 map of 16 channels it has 7,967,580 parameters.
"""

from __future__ import annotations

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from stpl_train.forecaster import FrameShape, State
from stpl_train.models.context_blocks import (
    ContextEmbedding,
    SpatiotemporalExpression,
    check_scales,
)
from stpl_train.models.layers import (
    ConvNorm,
    ModelConfig,
    Norm,
    OddInt,
    Patching,
    PatchOrder,
    make_norm,
    zeros_state,
)


class CMSLSTMConfig(ModelConfig):
    """The recipe keys of `[model] name = "cms-lstm"`."""

    hidden: PositiveInt = 64
    """Channels of every layer."""
    layers: PositiveInt = 4
    kernel: OddInt = 3
    """Side of the gate and CE convolutions: 3 in the released script, 5 in the paper."""
    context: bool = True
    """The CE block; false is the ablation without it."""
    half_steps: NonNegativeInt = 5
    """Half-steps of the CE block; odd ones update the input, even ones the hidden state."""
    attention_scale: float = 2.0
    scales: tuple[PositiveInt, ...] = Field(default=(1, 2, 4))
    """Windows per side in the stages of the SE block; empty is the ablation without it."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "ln_chw"
    forget_bias: float = 1.0


class CMSLSTMCell(nn.Module):
    """CE, then `c' = LN(f o c + i o g)`, `h' = o o tanh(c')`, then SE on (h', c')."""

    def __init__(self, config: CMSLSTMConfig, height: int, width: int) -> None:
        """Make the blocks that are asked for, and the gate convolutions `D -> 4D`."""
        super().__init__()
        d, norm, size = config.hidden, config.norm, (height, width)
        self.context = (
            ContextEmbedding(
                d, d, config.kernel, norm, *size, config.half_steps, config.attention_scale
            )
            if config.context
            else None
        )
        self.conv_x = ConvNorm(d, 4 * d, config.kernel, norm, *size)
        self.conv_h = ConvNorm(d, 4 * d, config.kernel, norm, *size)
        self.norm_c = make_norm(norm, d, *size)
        self.expression = (
            SpatiotemporalExpression(d, config.scales, norm, *size) if config.scales else None
        )
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the layer by one frame; the CE block's h reaches the gates only."""
        if self.context is not None:
            x, h = self.context(x, h)  # (B, D, h, w) each
        i, f, g, o = (self.conv_x(x) + self.conv_h(h)).chunk(4, dim=1)  # (B, D, h, w) each
        i, f, o = torch.sigmoid(i), torch.sigmoid(f + self.forget_bias), torch.sigmoid(o)
        c = self.norm_c(f * c + i * torch.tanh(g))  # (B, D, h, w)
        h = o * torch.tanh(c)  # (B, D, h, w)
        if self.expression is not None:
            h, c = self.expression(h, c)
        return h, c


class CMSLSTM(nn.Module):
    """1x1 encoder, a stack of CMS-LSTM cells, 1x1 decoder (both with bias, no activation).

    State: `layer<l>.h` and `layer<l>.c`, each `(B, hidden, H/patch, W/patch)`.
    """

    Config = CMSLSTMConfig

    def __init__(self, frame_shape: FrameShape, config: CMSLSTMConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W).

        Raises:
            RecipeError: the map cannot be split into the windows of the SE block.
        """
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        check_scales(self.patching, config.scales, "scales")
        size = (self.patching.map_height, self.patching.map_width)
        self.encode = nn.Conv2d(self.patching.map_channels, config.hidden, 1)
        self.cells = nn.ModuleList(CMSLSTMCell(config, *size) for _ in range(config.layers))
        self.decode = nn.Conv2d(config.hidden, self.patching.map_channels, 1)
        self.state_shapes: dict[str, tuple[int, ...]] = {
            f"layer{n}.{part}": (config.hidden, *size)
            for n in range(config.layers)
            for part in ("h", "c")
        }

    def initial_state(self, batch: int) -> State:
        """All-zero hidden and cell states for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        x = self.encode(self.patching.to_map(frame))  # (B, D, h, w)
        new: State = {}
        for n, cell in enumerate(self.cells):
            x, c = cell(x, state[f"layer{n}.h"], state[f"layer{n}.c"])  # (B, D, h, w)
            new[f"layer{n}.h"], new[f"layer{n}.c"] = x, c
        return self.patching.to_frame(self.decode(x)), new
