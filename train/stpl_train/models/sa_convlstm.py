"""SA-ConvLSTM (Lin et al., AAAI 2020), for which no official code exists (bibliography.md 1.6).

A ConvLSTM whose output passes a self-attention memory (SAM), per layer:

    q = Wq*h'   (k, v) = Wh*h'   (k_m, v_m) = Wm*m                    1x1, with bias
    Z = Wz * [softmax(q k) v; softmax(q k_m) v_m]                     1x1; all positions are tokens
    (i, g, o) = gates of [Z; h']      m' = (1 - s(i)) o m + s(i) o tanh(g)      h^ = s(o) o m'

h^ is the carried hidden state and the next layer's input, c' is carried as it is.

Choices where published re-implementations differ, as defaults: 5x5 gates in both places with
LayerNorm, forget bias 1 and a normed carried cell and memory, as in the CMS-LSTM code of a related
lab; attention of the hidden width; logits not divided by sqrt(d); m per layer. That is 7,951,696
parameters at 4 x 64 on a 16x16 map; the papers' 10.471M is not reproduced by any setting tried.
Keys cover the others: `scaled`, `memory = "zigzag"` (m passes up the layers and back, as one README
describes), `attention_kernel`, `attention_width`, `z_width`, `norm` and `encoder`.

Transplants of CMS-LSTM's blocks (its Table 3 names them, no wiring was published, so nothing here
claims those figures): CE before the gates; SE after SAM, on (h^, c'), returning the carried pair.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from pydantic import PositiveInt
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


class SAConvLSTMConfig(ModelConfig):
    """The recipe keys of `[model] name = "sa-convlstm"`."""

    hidden: PositiveInt = 64
    """Channels of every layer."""
    layers: PositiveInt = 4
    kernel: OddInt = 5
    """Side of the ConvLSTM's gate convolutions."""
    attention_kernel: OddInt = 5
    """Side of the memory's gate convolutions, which read Z and h'."""
    attention_width: PositiveInt | None = None
    """Channels of query, key and value; `hidden` where absent."""
    z_width: PositiveInt | None = None
    """Channels of Z; `hidden` where absent."""
    scaled: bool = False
    """Divide the attention logits by sqrt(attention_width)."""
    memory: Literal["layer", "zigzag"] = "layer"
    """`layer`: each layer keeps its own m. `zigzag`: m goes up the layers and back down."""
    encoder: bool = True
    """A 1x1 convolution with bias before the first layer."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "ln_chw"
    """Norm after each gate convolution and on the carried c and m."""
    forget_bias: float = 1.0
    context_block: bool = False
    """Transplant of CMS-LSTM's CE block before the gates."""
    se_scales: tuple[PositiveInt, ...] = ()
    """Transplant of CMS-LSTM's SE block after the memory: windows per side; empty for none."""
    block_norm: Norm = "ln_chw"
    """Norm inside the transplanted blocks."""


class AttentionMemory(nn.Module):
    """SAM: `(h', m) -> (h^, m')`, maps of `(B, D, h, w)`."""

    def __init__(self, config: SAConvLSTMConfig, height: int, width: int) -> None:
        """Make the projections and the gates."""
        super().__init__()
        d, k, norm = config.hidden, config.attention_kernel, config.norm
        self.attention_width = config.attention_width or d
        z_width = config.z_width or d
        self.project_h = nn.Conv2d(d, 3 * self.attention_width, 1)  # query, key, value
        self.project_m = nn.Conv2d(d, 2 * self.attention_width, 1)  # key, value
        self.mix = nn.Conv2d(2 * self.attention_width, z_width, 1)
        self.gates_z = ConvNorm(z_width, 3 * d, k, norm, height, width, bias=True)
        self.gates_h = ConvNorm(d, 3 * d, k, norm, height, width)
        self.norm_m = make_norm(norm, d, height, width)
        self.factor = 1 / math.sqrt(self.attention_width) if config.scaled else None
        self.size = (height, width)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Maps of `(B, A, h, w)` each -> the values mixed over all positions, same shape."""
        query, key, value = (x.flatten(2) for x in (query, key, value))  # (B, A, L) each
        logits = query.transpose(1, 2) @ key  # (B, L, L)
        if self.factor is not None:
            logits = logits * self.factor
        mixed = value @ torch.softmax(logits, dim=-1).transpose(1, 2)  # (B, A, L)
        return mixed.reshape(-1, self.attention_width, *self.size)  # (B, A, h, w)

    def forward(self, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Let h look at itself and at the memory, then update both."""
        query, key, value = self.project_h(h).chunk(3, dim=1)  # (B, A, h, w) each
        key_m, value_m = self.project_m(m).chunk(2, dim=1)  # (B, A, h, w) each
        seen = [self._attend(query, key, value), self._attend(query, key_m, value_m)]
        z = self.mix(torch.cat(seen, dim=1))  # (B, z_width, h, w)
        i, g, o = (self.gates_z(z) + self.gates_h(h)).chunk(3, dim=1)  # (B, D, h, w) each
        i = torch.sigmoid(i)
        m = cast("Tensor", self.norm_m((1 - i) * m + i * torch.tanh(g)))  # (B, D, h, w)
        return torch.sigmoid(o) * m, m


class SAConvLSTMCell(nn.Module):
    """One layer: `(x, h, c, m) -> (h^, c', m')`."""

    def __init__(self, inputs: int, config: SAConvLSTMConfig, height: int, width: int) -> None:
        """Make the gates, the memory and the transplants that are asked for."""
        super().__init__()
        d, k, norm, size = config.hidden, config.kernel, config.norm, (height, width)
        self.context = (
            ContextEmbedding(inputs, d, k, config.block_norm, *size)
            if config.context_block
            else None
        )
        self.conv_x = ConvNorm(inputs, 4 * d, k, norm, *size, bias=True)
        self.conv_h = ConvNorm(d, 4 * d, k, norm, *size)
        self.norm_c = make_norm(norm, d, *size)
        self.memory = AttentionMemory(config, *size)
        self.expression = (
            SpatiotemporalExpression(d, config.se_scales, config.block_norm, *size)
            if config.se_scales
            else None
        )
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the layer by one frame."""
        if self.context is not None:
            x, h = self.context(x, h)  # (B, inputs, h, w), (B, D, h, w)
        i, f, g, o = (self.conv_x(x) + self.conv_h(h)).chunk(4, dim=1)  # (B, D, h, w) each
        i, f, o = torch.sigmoid(i), torch.sigmoid(f + self.forget_bias), torch.sigmoid(o)
        c = self.norm_c(f * c + i * torch.tanh(g))  # (B, D, h, w)
        h, m = self.memory(o * torch.tanh(c), m)  # (B, D, h, w) each
        if self.expression is not None:
            h, c = self.expression(h, c)
        return h, c, m


class SAConvLSTM(nn.Module):
    """1x1 encoder, a stack of SA-ConvLSTM cells, 1x1 decoder (both with bias).

    State: `layer<l>.h`, `layer<l>.c` and `layer<l>.m`, or one `m` where it zigzags, each
    `(B, hidden, H/patch, W/patch)`.
    """

    Config = SAConvLSTMConfig

    def __init__(self, frame_shape: FrameShape, config: SAConvLSTMConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W).

        Raises:
            RecipeError: the map cannot be split into the windows of `se_scales`.
        """
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        check_scales(self.patching, config.se_scales, "se_scales")
        size = (self.patching.map_height, self.patching.map_width)
        d, channels = config.hidden, self.patching.map_channels
        self.encode = nn.Conv2d(channels, d, 1) if config.encoder else None
        first = d if config.encoder else channels
        self.cells = nn.ModuleList(
            SAConvLSTMCell(first if n == 0 else d, config, *size) for n in range(config.layers)
        )
        self.decode = nn.Conv2d(d, channels, 1)
        self.zigzag = config.memory == "zigzag"
        parts = ("h", "c") if self.zigzag else ("h", "c", "m")
        names = [f"layer{n}.{part}" for n in range(config.layers) for part in parts]
        names += ["m"] if self.zigzag else []
        self.state_shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (d, *size))

    def initial_state(self, batch: int) -> State:
        """All-zero states for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        x = self.patching.to_map(frame)  # (B, C*p*p, h, w)
        if self.encode is not None:
            x = self.encode(x)  # (B, D, h, w)
        new: State = {}
        m = state.get("m")
        for n, cell in enumerate(self.cells):
            # A zigzag memory is the one that the layer below has just left.
            m = m if self.zigzag else state[f"layer{n}.m"]  # (B, D, h, w)
            x, c, m = cell(x, state[f"layer{n}.h"], state[f"layer{n}.c"], m)  # (B, D, h, w) each
            new[f"layer{n}.h"], new[f"layer{n}.c"] = x, c
            new["m" if self.zigzag else f"layer{n}.m"] = m
        guess = self.patching.to_frame(self.decode(x))  # (B, C, H, W)
        return guess, {name: new[name] for name in self.state_shapes}  # always in this order
