"""MoDeRNN (Chai et al., ICASSP 2022), after the released code where paper and code differ.

bibliography.md 1.4 lists the differences, and its section 2 explains why the code is followed.
Each cell first lets input and hidden state look at one another (the Detail Context Block, five
half-steps with shared weights), then runs a layer-normed ConvLSTM; the normalised cell is carried.
"""

from __future__ import annotations

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from stpl_train.forecaster import FrameShape, State
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


class MoDeRNNConfig(ModelConfig):
    """The recipe keys of `[model] name = "modernn"`."""

    hidden: PositiveInt = 64
    """Channels of every layer."""
    layers: PositiveInt = 4
    kernel: OddInt = 3
    """Side of the gate convolutions: 3 in the released script, 5 in the paper."""
    half_steps: NonNegativeInt = 5
    """Half-steps of the context block; odd ones update the input, even ones the hidden state."""
    context_kernels: tuple[OddInt, ...] = Field(default=(3, 5, 7), min_length=1)
    """Sides of the parallel convolutions whose mean is the attention logit."""
    attention_scale: float = 2.0
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "ln_chw"
    forget_bias: float = 1.0


class DetailContextBlock(nn.Module):
    """`(x, h) -> (x, h)`, each scaled by attention computed from the other.

    odd n:  x <- scale s(mean_k LN(W_h^k * h)) o x
    even n: h <- scale s(mean_k LN(W_x^k * x)) o h
    """

    def __init__(self, config: MoDeRNNConfig, height: int, width: int) -> None:
        """Make one convolution per kernel and direction, each with its own norm."""
        super().__init__()

        def branches() -> nn.ModuleList:
            width_in = config.hidden
            return nn.ModuleList(
                ConvNorm(width_in, width_in, k, config.norm, height, width)
                for k in config.context_kernels
            )

        self.from_h = branches()  # reads h, scales x
        self.from_x = branches()  # reads x, scales h
        self.half_steps, self.scale = config.half_steps, config.attention_scale

    def _factor(self, branches: nn.ModuleList, source: Tensor) -> Tensor:
        logits = sum((branch(source) for branch in branches), start=torch.zeros(()))
        return self.scale * torch.sigmoid(logits / len(branches))  # (B, D, h, w)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Run the half-steps on maps of `(B, D, h, w)`."""
        for n in range(self.half_steps):
            if n % 2 == 0:
                x = self._factor(self.from_h, h) * x
            else:
                h = self._factor(self.from_x, x) * h
        return x, h


class MoDeRNNCell(nn.Module):
    """Context block, then `c' = LN(f o c + i o g)`, `h' = o o tanh(c')`."""

    def __init__(self, config: MoDeRNNConfig, height: int, width: int) -> None:
        """Make the block and the gate convolutions `D -> 4D`."""
        super().__init__()
        d = config.hidden
        self.context = DetailContextBlock(config, height, width)
        self.conv_x = ConvNorm(d, 4 * d, config.kernel, config.norm, height, width)
        self.conv_h = ConvNorm(d, 4 * d, config.kernel, config.norm, height, width)
        self.norm_c = make_norm(config.norm, d, height, width)
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the layer by one frame; the block's h reaches the gates only."""
        x, h = self.context(x, h)  # (B, D, h, w) each
        i, f, g, o = (self.conv_x(x) + self.conv_h(h)).chunk(4, dim=1)  # (B, D, h, w) each
        i, f, o = torch.sigmoid(i), torch.sigmoid(f + self.forget_bias), torch.sigmoid(o)
        c = self.norm_c(f * c + i * torch.tanh(g))  # (B, D, h, w)
        return o * torch.tanh(c), c


class MoDeRNN(nn.Module):
    """1x1 encoder, a stack of MoDeRNN cells, 1x1 decoder (both with bias, no activation).

    State: `layer<l>.h` and `layer<l>.c`, each `(B, hidden, H/patch, W/patch)`.
    """

    Config = MoDeRNNConfig

    def __init__(self, frame_shape: FrameShape, config: MoDeRNNConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W)."""
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        size = (self.patching.map_height, self.patching.map_width)
        self.encode = nn.Conv2d(self.patching.map_channels, config.hidden, 1)
        self.cells = nn.ModuleList(MoDeRNNCell(config, *size) for _ in range(config.layers))
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
