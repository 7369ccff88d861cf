"""The losses against those that the reference code computed (bibliography.md 3.3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stpl_train.losses import Loss, lead_loss, sequence_loss, shard_weight
from stpl_train.recipe import LeadsSection

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


def _leads(n: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Field, logits of two levels and truth: five sequences, `n` lead times."""
    torch.manual_seed(0)
    shape = (5, n, 1, 4, 6)
    return torch.rand(shape), torch.randn(5, n, 2, 1, 4, 6), torch.rand(shape)


LEVELS = torch.tensor([0.3, 0.8])
WEIGHTS = LeadsSection(error=0.02, growth=0.5, events=(0.7, 3.0))


def test_the_loss_of_lead_times_by_hand() -> None:
    field, logits, truth = (part.double().numpy() for part in _leads())
    expected = 0.0
    for n, lead in enumerate((1, 4)):
        expected += np.square(field - truth)[:, n].mean() / (0.02 * lead**0.5) / 2
        for q, (level, weight) in enumerate(((0.3, 0.7), (0.8, 3.0))):
            chance = 1 / (1 + np.exp(-logits[:, n, q]))
            event = truth[:, n] >= level
            expected -= weight * np.log(np.where(event, chance, 1 - chance)).mean() / 2
    found = lead_loss(*_leads(), LEVELS, (1, 4), WEIGHTS)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_what_was_not_observed_has_no_part_in_it() -> None:
    field, logits, truth = _leads()
    observed = torch.rand(5, 2, 4, 6) < 0.6
    found = lead_loss(field, logits, truth, LEVELS, (1, 4), WEIGHTS, observed=observed)
    other = torch.where(observed[:, :, None], truth, 1 - truth)
    same = lead_loss(field, logits, other, LEVELS, (1, 4), WEIGHTS, observed=observed)
    assert float(found) == float(same)
    everything = lead_loss(field, logits, truth, LEVELS, (1, 4), WEIGHTS)
    seen = torch.ones_like(observed)
    assert float(everything) == float(
        lead_loss(field, logits, truth, LEVELS, (1, 4), WEIGHTS, observed=seen)
    )
    assert float(found) < float(everything)


def test_shares_of_the_loss_of_lead_times_add_up() -> None:
    whole = lead_loss(*_leads(), LEVELS, (1, 4), WEIGHTS)
    shares = [
        lead_loss(*(part[r::2] for part in _leads()), LEVELS, (1, 4), WEIGHTS)
        * shard_weight("mse-events", len(_leads()[0][r::2]), 5, 2)
        for r in range(2)
    ]
    torch.testing.assert_close(sum(shares) / 2, whole)
