"""A dry field: every architecture, trained on rain and on dry weather, answers with no rain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stpl_core.codec import FrameCodec
from stpl_train.forecaster import rollout
from stpl_train.models import MODELS, ForecasterModule, build_model
from stpl_train.unroll import TrainingPass

FRAME, CONTEXT, HORIZON = (1, 16, 16), 2, 3
RAIN = FrameCodec(
    quantity="rain rate", units="mm h-1", low=0.0, high=100.0, kind="db", threshold=0.1, clip=True
)
SMALL: dict[str, dict[str, Any]] = {
    "advect": {"hidden": 4, "width": 8},
    "cms-lstm": {"hidden": 4, "layers": 2},
    "convlstm": {"hidden": [4, 4], "kernel": 3},
    "e3d-lstm": {"hidden": [4, 4], "kernel": 3, "history": 2},
    "predrnn-pp": {"hidden": [4, 4], "kernel": 3},
    "sa-convlstm": {"hidden": 4, "layers": 2, "kernel": 3, "attention_kernel": 3},
}
OTHERS = {"hidden": 4, "layers": 2}
ITERATIONS = {"sa-convlstm": 250}
"""Others: 60."""


def weather() -> torch.Tensor:
    """A shower that passes over, and nothing at all: `(2, T + K, C, H, W)` model units."""
    rate = np.zeros((2, CONTEXT + HORIZON, *FRAME), np.float32)
    for t in range(CONTEXT + HORIZON):
        rate[0, t, 0, 4:10, 2 * t : 2 * t + 6] = 5.0
    return torch.from_numpy(RAIN.model_from_physical(rate))


def trained(name: str) -> ForecasterModule:
    """A tiny model after a second or two of training."""
    torch.manual_seed(0)
    model = build_model(name, FRAME, {"patch": 4, **SMALL.get(name, OTHERS)}).train()
    unrolled, frames = TrainingPass(model), weather()
    use_true = np.zeros((2, CONTEXT + HORIZON - 2), bool)
    use_true[:, : CONTEXT - 1] = True
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(ITERATIONS.get(name, 60)):
        optimizer.zero_grad()
        guesses, penalty = unrolled(frames, use_true)
        loss = ((guesses - frames[:, 1:]) ** 2).mean() + 1e-3 * penalty
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_rain_in_is_no_rain_out(name: str) -> None:
    model, frames = trained(name), weather()
    with torch.no_grad():
        found = rollout(model, frames[:, :CONTEXT], 2 * HORIZON).numpy()  # beyond what it trained
    rate = RAIN.physical_from_model(found)  # (2, K, C, H, W)
    assert np.isfinite(rate).all()
    assert (rate[1, :HORIZON] == 0).all(), f"up to {rate[1].max()} mm/h out of a dry sky"
    assert (rate[0, :HORIZON] > 0.1).any(), "it must have learned that there is rain"
