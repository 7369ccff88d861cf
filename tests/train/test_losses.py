"""The losses against those that the reference code computed (bibliography.md 3.3)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stpl_train.losses import Loss, sequence_loss, shard_weight

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the reference outputs are not at hand"
)
RECIPES: list[tuple[str, Loss, bool]] = [
    ("modernn", "sse-sae", True),
    ("cms_lstm", "sse", True),
    ("openstl_convlstm", "mse", False),
    ("openstl_mim", "mse", False),
    ("predrnn_ln1", "mse", False),
]


@needs_reference
@pytest.mark.parametrize(("case", "kind", "skip_first"), RECIPES)
@pytest.mark.parametrize("way", ["teacher_forced", "free_running"])
def test_golden(case: str, kind: Loss, skip_first: bool, way: str) -> None:
    tensors = load_file(REFERENCE / f"{case}.safetensors")
    guesses = tensors["outputs" if way == "free_running" else "outputs_teacher_forced"]
    frames = tensors["inputs"].double()
    found = sequence_loss(kind, guesses, frames, skip_first=skip_first)
    torch.testing.assert_close(found, tensors[f"loss/{way}"].reshape(()), rtol=1e-12, atol=0)
    other = sequence_loss(kind, guesses, frames, skip_first=not skip_first)
    assert abs(float(other / found) - 1) > 1e-4


@pytest.mark.parametrize("kind", ["sse-sae", "sse", "mse"])
def test_shares_of_a_batch_add_up(kind: Loss) -> None:
    """The mean over devices of weighted losses is the loss of one process, uneven shares too."""
    torch.manual_seed(0)
    frames, guesses = torch.rand(5, 6, 1, 4, 4), torch.rand(5, 5, 1, 4, 4)
    whole = sequence_loss(kind, guesses, frames, skip_first=True)
    shares = [
        sequence_loss(kind, guesses[r::2], frames[r::2], skip_first=True)
        * shard_weight(kind, len(frames[r::2]), 5, 2)
        for r in range(2)
    ]
    torch.testing.assert_close(sum(shares) / 2, whole)


def test_the_only_guess_is_never_left_out() -> None:
    frames = torch.ones(1, 2, 1, 1, 1)
    assert float(sequence_loss("sse", torch.zeros(1, 1, 1, 1, 1), frames, skip_first=True)) == 0.5
