"""Your own model in forty lines: it trains, exports, verifies and streams like the built-in ones.

A module keeps the Forecaster contract when it has three things:

- `frame_shape`, the (C, H, W) that its constructor was given;
- `initial_state(batch)`, an ordered dict of all-zero tensors, batch first;
- `step(frame, state)`, which takes the frame at time t, `(B, C, H, W)`, and returns its guess of
  the frame at t + 1 and the new state: the same names, order, shapes and dtypes.

`step` must be pure: all it remembers is in the state, and no Python `if` looks at a tensor's
values. Keyword arguments of the constructor are recipe keys: `--set model.width=32`.

From this repository's root:

    stpl-deploy train modernn-mini --model examples.bring_your_own:ConvGRU --out runs/mine
    stpl-deploy export runs/mine --out mine.bundle --trust-model examples.bring_your_own:ConvGRU
    stpl-deploy predict mine.bundle FRAMES --out nowcast.npz
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvGRU(nn.Module):
    """A convolutional gated recurrent unit that predicts the change from frame to frame."""

    def __init__(self, frame_shape: tuple[int, int, int], width: int = 16) -> None:
        """Build the model for frames of `frame_shape` (C, H, W) with `width` hidden channels."""
        super().__init__()
        self.frame_shape, self.width = frame_shape, width
        channels = frame_shape[0]
        self.gates = nn.Conv2d(channels + width, 2 * width, 5, padding=2)
        self.candidate = nn.Conv2d(channels + width, width, 5, padding=2)
        self.decode = nn.Conv2d(width, channels, 3, padding=1)

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """One hidden map, `(B, width, H, W)`, zero at the start of a sequence."""
        _, height, width = self.frame_shape
        weight = self.decode.weight  # the state lives where the weights live, in their precision
        return {"h": weight.new_zeros(batch, self.width, height, width)}

    def step(self, frame: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """`(B, C, H, W)` at t -> guess of t + 1, new state."""
        h = state["h"]  # (B, width, H, W)
        update, reset = torch.sigmoid(self.gates(torch.cat([frame, h], 1))).chunk(2, 1)
        new = torch.tanh(self.candidate(torch.cat([frame, reset * h], 1)))  # (B, width, H, W)
        h = (1 - update) * h + update * new
        return frame + self.decode(h), {"h": h}
