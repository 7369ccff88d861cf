"""MIM (Wang et al., CVPR 2019): memory in memory, after the released code (bibliography.md 1.8).

Layer 0 is an ST-LSTM. A layer l above it is a MIM block, whose forget path is a recurrent cell of
its own (MIM-S, with the inner cell S) that reads differences from a second column (MIM-N):

    d = h0_t - h0_{t-1} for l = 1, the MIM-N output of l - 1 above; zero in the first step
    D = MIM-N(d)                                                zero in the first step
    T, S' = MIM-S(D, c, S)        c' = T + i o g                h' = o o tanh(W1x1*[c'; m'])

Both inner cells are ConvLSTMs with peepholes, which tie the model to one frame size.

S is zero at the start of each sequence, as in the authors' TensorFlow code; OpenSTL keeps it from
one batch to the next, which makes its results depend on what was run before.
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


class MIMConfig(ModelConfig):
    """The recipe keys of `[model] name = "mim"`."""

    hidden: PositiveInt = 64
    """Channels of every layer; the memory m ties them together (OpenSTL: 128)."""
    layers: int = Field(default=4, ge=2)
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
    """Added to every forget gate before the sigmoid."""
    first_layer: Literal["full", "light"] = "full"
    """`full`: PredRNN's ST-LSTM, as in OpenSTL. `light`: one set of x gates for both memories and
    no convolution on [c; m], as in the authors' TensorFlow code."""


class _Convs:
    """Makes the convolutions of one model: same kernel, norm, map size and bias."""

    def __init__(self, config: MIMConfig, patching: Patching) -> None:
        self.config = config
        self.size = (patching.map_height, patching.map_width)

    def __call__(self, inputs: int, gates: int) -> ConvNorm:
        c = self.config
        return ConvNorm(inputs, gates * c.hidden, c.kernel, c.norm, *self.size, bias=c.bias)

    def merge(self) -> nn.Conv2d:
        """1x1, [c; m] -> D."""
        return nn.Conv2d(2 * self.config.hidden, self.config.hidden, 1, bias=self.config.bias)


class STLSTMCell(nn.Module):
    """Layer 0, full: `(x, h, c, m) -> (h', c', m')`, maps `(B, D, h, w)` (bibliography.md 1.2)."""

    def __init__(self, inputs: int, config: MIMConfig, convs: _Convs) -> None:
        """Make the convolutions `x -> 7D`, `h -> 4D`, `m -> 3D` and `[c'; m'] -> D`."""
        super().__init__()
        self.conv_x = convs(inputs, 7)
        self.conv_h = convs(config.hidden, 4)
        self.conv_m = convs(config.hidden, 3)
        self.conv_o = convs(2 * config.hidden, 1)
        self.merge = convs.merge()
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the layer by one frame."""
        xi, xf, xg, xi2, xf2, xg2, xo = self.conv_x(x).chunk(7, dim=1)  # (B, D, h, w) each
        hi, hf, hg, ho = self.conv_h(h).chunk(4, dim=1)
        mi, mf, mg = self.conv_m(m).chunk(3, dim=1)
        i, f = torch.sigmoid(xi + hi), torch.sigmoid(xf + hf + self.forget_bias)
        c = f * c + i * torch.tanh(xg + hg)  # (B, D, h, w)
        i, f = torch.sigmoid(xi2 + mi), torch.sigmoid(xf2 + mf + self.forget_bias)
        m = f * m + i * torch.tanh(xg2 + mg)  # (B, D, h, w)
        both = torch.cat((c, m), dim=1)  # (B, 2D, h, w)
        o = torch.sigmoid(xo + ho + self.conv_o(both))
        return o * torch.tanh(self.merge(both)), c, m


class LightSTLSTMCell(nn.Module):
    """Layer 0, light: as `STLSTMCell` with shared x gates, and m in the output gate."""

    def __init__(self, inputs: int, config: MIMConfig, convs: _Convs) -> None:
        """Make the convolutions `x -> 4D`, `h -> 4D` and `m -> 4D`."""
        super().__init__()
        self.conv_x = convs(inputs, 4)
        self.conv_h = convs(config.hidden, 4)
        self.conv_m = convs(config.hidden, 4)
        self.merge = convs.merge()
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the layer by one frame."""
        xi, xg, xf, xo = self.conv_x(x).chunk(4, dim=1)  # (B, D, h, w) each
        hi, hg, hf, ho = self.conv_h(h).chunk(4, dim=1)
        mi, mg, mf, mo = self.conv_m(m).chunk(4, dim=1)
        i, f = torch.sigmoid(xi + hi), torch.sigmoid(xf + hf + self.forget_bias)
        c = f * c + i * torch.tanh(xg + hg)  # (B, D, h, w)
        i, f = torch.sigmoid(xi + mi), torch.sigmoid(xf + mf + self.forget_bias)
        m = f * m + i * torch.tanh(xg + mg)  # (B, D, h, w)
        o = torch.sigmoid(xo + ho + mo)
        return o * torch.tanh(self.merge(torch.cat((c, m), dim=1))), c, m


class PeepholeLSTM(nn.Module):
    """`(x gates, h, c) -> (h', c')`: MIM-N and MIM-S, a ConvLSTM with peepholes.

    i and f see w o c, o sees w o c'; the peepholes start at zero and have one weight per element.
    """

    def __init__(self, config: MIMConfig, convs: _Convs) -> None:
        """Make the convolutions `D -> 4D` of input and hidden state, and the peepholes."""
        super().__init__()
        d = config.hidden
        self.conv_x = convs(d, 4)
        self.conv_h = convs(d, 4)
        self.peep_i = nn.Parameter(torch.zeros(d, *convs.size))
        self.peep_f = nn.Parameter(torch.zeros(d, *convs.size))
        self.peep_o = nn.Parameter(torch.zeros(d, *convs.size))
        self.forget_bias = config.forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor, started: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the cell; where `started` (B, 1, 1, 1) is 0 there is no input x."""
        gates = self.conv_x(x) * started + self.conv_h(h)  # (B, 4D, h, w)
        i, g, f, o = gates.chunk(4, dim=1)  # (B, D, h, w) each
        i = torch.sigmoid(i + self.peep_i * c)
        f = torch.sigmoid(f + self.peep_f * c + self.forget_bias)
        c = f * c + i * torch.tanh(g)  # (B, D, h, w)
        return torch.sigmoid(o + self.peep_o * c) * torch.tanh(c), c


class MIMBlock(nn.Module):
    """A layer above 0: `(x, D, h, c, m, S) -> (h', c', m', S')`, maps of `(B, D, h, w)`."""

    def __init__(self, config: MIMConfig, convs: _Convs) -> None:
        """Make the convolutions `x -> 4D`, `h -> 3D`, `m -> 4D` and the inner cell MIM-S."""
        super().__init__()
        self.conv_x = convs(config.hidden, 4)
        self.conv_h = convs(config.hidden, 3)
        self.conv_m = convs(config.hidden, 4)
        self.inner = PeepholeLSTM(config, convs)
        self.merge = convs.merge()
        self.forget_bias = config.forget_bias

    def forward(
        self,
        x: Tensor,
        difference: Tensor,
        h: Tensor,
        c: Tensor,
        m: Tensor,
        s: Tensor,
        started: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Advance the layer by one frame."""
        xi, xg, xf, xo = self.conv_x(x).chunk(4, dim=1)  # (B, D, h, w) each
        hi, hg, ho = self.conv_h(h).chunk(3, dim=1)
        mi, mg, mf, mo = self.conv_m(m).chunk(4, dim=1)
        i, f = torch.sigmoid(xi + mi), torch.sigmoid(xf + mf + self.forget_bias)
        m = f * m + i * torch.tanh(xg + mg)  # (B, D, h, w)
        kept, s = self.inner(difference, c, s, started)  # (B, D, h, w) each
        c = kept + torch.sigmoid(xi + hi) * torch.tanh(xg + hg)  # (B, D, h, w)
        o = torch.sigmoid(xo + ho + mo)
        return o * torch.tanh(self.merge(torch.cat((c, m), dim=1))), c, m, s


class MIM(nn.Module):
    """ST-LSTM, MIM blocks above it, a MIM-N column beside them, a 1x1 decoder.

    State, `D = hidden`, maps `(B, D, H/patch, W/patch)`: `layer<l>.h` and `layer<l>.c`; for l >= 1
    `layer<l>.S`, `diff<l>.h`, `diff<l>.c`; `m`, which leaves the top layer; and `started`
    `(B, 1)`, 0 before the first frame and 1 after.
    """

    Config = MIMConfig

    def __init__(self, frame_shape: FrameShape, config: MIMConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W)."""
        super().__init__()
        self.frame_shape = frame_shape
        self.patching = Patching(frame_shape, config.patch, config.patch_order)
        convs = _Convs(config, self.patching)
        first = STLSTMCell if config.first_layer == "full" else LightSTLSTMCell
        above = range(1, config.layers)
        self.first = first(self.patching.map_channels, config, convs)
        self.blocks = nn.ModuleList(MIMBlock(config, convs) for _ in above)
        self.differences = nn.ModuleList(PeepholeLSTM(config, convs) for _ in above)
        self.decode = nn.Conv2d(config.hidden, self.patching.map_channels, 1, bias=config.bias)
        names = ["layer0.h", "layer0.c"]
        for n in above:
            names += [f"layer{n}.h", f"layer{n}.c", f"layer{n}.S", f"diff{n}.h", f"diff{n}.c"]
        shape = (config.hidden, self.patching.map_height, self.patching.map_width)
        self.state_shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*names, "m"), shape)
        self.state_shapes["started"] = (1,)

    def initial_state(self, batch: int) -> State:
        """All-zero states for `batch` sequences."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        started = state["started"].reshape(-1, 1, 1, 1)  # (B, 1, 1, 1)
        before = state["layer0.h"]  # (B, D, h, w)
        new: State = {}
        x, c, m = self.first(
            self.patching.to_map(frame), before, state["layer0.c"], state["m"]
        )  # (B, D, h, w) each
        new["layer0.h"], new["layer0.c"] = x, c
        d = x - before  # (B, D, h, w), for the lowest MIM-N
        for n, (block, difference) in enumerate(
            zip(self.blocks, self.differences, strict=True), start=1
        ):
            h, c, s = (state[f"layer{n}.{part}"] for part in ("h", "c", "S"))
            # In the first step there is no difference: what MIM-N makes of it is thrown away.
            d, dc = difference(d, state[f"diff{n}.h"], state[f"diff{n}.c"], started)
            d, dc = d * started, dc * started  # (B, D, h, w) each
            x, c, m, s = block(x, d, h, c, m, s, started)  # (B, D, h, w) each
            new |= {f"layer{n}.h": x, f"layer{n}.c": c, f"layer{n}.S": s}
            new |= {f"diff{n}.h": d, f"diff{n}.c": dc}
        new |= {"m": m, "started": torch.clamp(state["started"] + 1, max=1)}
        return self.patching.to_frame(self.decode(x)), new
