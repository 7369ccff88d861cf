"""PredRNN (Wang et al. 2017) and PredRNN-V2 (2021), after thuml/predrnn-pytorch.

See bibliography.md 1.2.

The ST-LSTM cell keeps a temporal memory c per layer and passes a spatial memory m up the layers
and back to the bottom one at the next frame. Convolutions have no bias, both forget gates have 1:

    i = s(i_x + i_h)    f = s(f_x + f_h + 1)    g = tanh(g_x + g_h)     c' = f o c + i o g
    j = s(j_x + j_m)    e = s(e_x + e_m + 1)    k = tanh(k_x + k_m)     m' = e o m + j o k
    o = s(o_x + o_h + Wo * [c'; m'])            h' = o o tanh(W1x1 * [c'; m'])

Transplants of CMS-LSTM's blocks (its Table 3 names them, no wiring and no code were published, so
nothing here claims those figures): with `context_block` a CE block takes the cell's input and
previous hidden state before the gates, with unequal widths at layer 0, which has no encoder; with
`se_scales` an SE block takes the new (h', c') and returns the carried pair. m is left alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
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
    zeros_state,
)


class PredRNNConfig(ModelConfig):
    """The recipe keys of `[model] name = "predrnn"`."""

    hidden: PositiveInt = 128
    """Channels of every layer: equal, since m enters each by an element product."""
    layers: PositiveInt = 4
    kernel: OddInt = 5
    """Side of the gate convolutions."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches."""
    patch_order: PatchOrder = "row-col-channel"
    norm: Norm = "none"
    """Norm after each of the four gate convolutions; off in every published setting."""
    forget_bias: float = 1.0
    """Added to both forget gates before their sigmoid."""
    context_block: bool = False
    """Transplant of CMS-LSTM's CE block before the gates."""
    se_scales: tuple[PositiveInt, ...] = ()
    """Transplant of CMS-LSTM's SE block after them: windows per side; empty for none."""
    block_norm: Norm = "ln_chw"
    """Norm inside the transplanted blocks."""


class PredRNNV2Config(PredRNNConfig):
    """The recipe keys of `[model] name = "predrnn-v2"`."""

    decouple_beta: NonNegativeFloat = 0.1
    """Weight of the decoupling loss: 0.1 for Moving MNIST, 0.01 for KTH."""


class CellOutput(NamedTuple):
    """New states of one layer and what each memory gained, `(B, D, h, w)` each."""

    h: Tensor
    c: Tensor
    m: Tensor
    gain_c: Tensor
    gain_m: Tensor


class STLSTMCell(nn.Module):
    """One layer: `(x, h, c, m) -> (h', c', m')`."""

    def __init__(self, inputs: int, config: PredRNNConfig, height: int, width: int) -> None:
        """Make the gate convolutions for an input of `inputs` channels."""
        super().__init__()
        d, k, size = config.hidden, config.kernel, (height, width)
        self.context = (
            ContextEmbedding(inputs, d, k, config.block_norm, *size)
            if config.context_block
            else None
        )
        self.conv_x = ConvNorm(inputs, 7 * d, k, config.norm, *size)
        self.conv_h = ConvNorm(d, 4 * d, k, config.norm, *size)
        self.conv_m = ConvNorm(d, 3 * d, k, config.norm, *size)
        self.conv_o = ConvNorm(2 * d, d, k, config.norm, *size)
        self.merge = nn.Conv2d(2 * d, d, 1, bias=False)
        self.expression = (
            SpatiotemporalExpression(d, config.se_scales, config.block_norm, *size)
            if config.se_scales
            else None
        )
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> CellOutput:
        """Advance the layer by one frame."""
        if self.context is not None:
            x, h = self.context(x, h)  # (B, inputs, h, w), (B, D, h, w)
        d = h.shape[1]
        # What is added is added at once: a graph has fewer, larger sums so.
        c_x, m_x, o_x = self.conv_x(x).split([3 * d, 3 * d, d], dim=1)
        c_h, o_h = self.conv_h(h).split([3 * d, d], dim=1)
        i, f, g = (c_x + c_h).chunk(3, dim=1)  # (B, D, h, w) each
        j, e, k = (m_x + self.conv_m(m)).chunk(3, dim=1)  # (B, D, h, w) each
        gain_c = torch.sigmoid(i) * torch.tanh(g)  # (B, D, h, w)
        gain_m = torch.sigmoid(j) * torch.tanh(k)  # (B, D, h, w)
        c = torch.sigmoid(f + self.forget_bias) * c + gain_c  # (B, D, h, w)
        m = torch.sigmoid(e + self.forget_bias) * m + gain_m  # (B, D, h, w)
        both = torch.cat([c, m], dim=1)  # (B, 2D, h, w)
        h = torch.sigmoid(o_x + o_h + self.conv_o(both)) * torch.tanh(self.merge(both))
        if self.expression is not None:
            h, c = self.expression(h, c)
        return CellOutput(h, c, m, gain_c, gain_m)


class PredRNN(nn.Module):
    """A stack of ST-LSTM layers with a bias-free 1x1 decoder.

    State: `layer<l>.h`, `layer<l>.c` and the one `m`, each `(B, hidden, H/patch, W/patch)`.
    """

    Config = PredRNNConfig

    def __init__(self, frame_shape: FrameShape, config: PredRNNConfig) -> None:
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
        self.cells = nn.ModuleList(
            STLSTMCell(channels if n == 0 else d, config, *size) for n in range(config.layers)
        )
        self.decode = nn.Conv2d(d, channels, 1, bias=False)
        names = [f"layer{n}.{part}" for n in range(config.layers) for part in ("h", "c")]
        self.state_shapes: dict[str, tuple[int, ...]] = dict.fromkeys([*names, "m"], (d, *size))

    def initial_state(self, batch: int) -> State:
        """All-zero states for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        guess, new, _ = self._advance(frame, state)
        return guess, new

    def _advance(self, frame: Tensor, state: State) -> tuple[Tensor, State, list[CellOutput]]:
        x, m = self.patching.to_map(frame), state["m"]  # (B, C*p*p, h, w), (B, D, h, w)
        new: State = {}
        outputs: list[CellOutput] = []
        for n, cell in enumerate(self.cells):
            out = cell(x, state[f"layer{n}.h"], state[f"layer{n}.c"], m)
            new[f"layer{n}.h"], new[f"layer{n}.c"] = out.h, out.c
            x, m = out.h, out.m
            outputs.append(out)
        new["m"] = m
        return self.patching.to_frame(self.decode(x)), new, outputs


class PredRNNV2(PredRNN):
    """PredRNN whose training pulls apart what the two memories gain; inference is PredRNN's."""

    Config = PredRNNV2Config

    def __init__(self, frame_shape: FrameShape, config: PredRNNV2Config) -> None:
        """Build PredRNN and the 1x1 adapter, shared by all layers and used in training only."""
        super().__init__(frame_shape, config)
        self.adapter = nn.Conv2d(config.hidden, config.hidden, 1, bias=False)
        self.decouple_beta = config.decouple_beta

    def training_step(self, frame: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """`step`, plus beta * mean |cos(adapter(gain of c), adapter(gain of m))|.

        The cosine is over the flattened space, per channel; the mean over layers, batch and
        channels here, and over steps by the trainer.
        """
        guess, new, outputs = self._advance(frame, state)
        cosines = [self._cosine(out.gain_c, out.gain_m).abs().mean() for out in outputs]
        return guess, new, self.decouple_beta * torch.stack(cosines).mean()

    def _cosine(self, gain_c: Tensor, gain_m: Tensor) -> Tensor:
        # Normalised before the cosine, as upstream does: it keeps tiny gains off its epsilon.
        c, m = (F.normalize(self.adapter(gain).flatten(2), dim=2) for gain in (gain_c, gain_m))
        return F.cosine_similarity(c, m, dim=2)  # (B, D)
