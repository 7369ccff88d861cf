"""What was not observed teaches nothing, and counts in no validation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("xarray")

from stpl_core.baselines import persistence
from stpl_core.safety.trust import trust_model
from stpl_deploy.judging import open_judged
from stpl_runtime.evaluation.evaluate import MODEL, evaluate
from stpl_train.checkpoint import load_training
from stpl_train.losses import Loss, sequence_loss, shard_weight
from stpl_train.recipe import parse_recipe
from stpl_train.run import TRAINING, VALIDATION, open_run
from stpl_train.training import train
from stpl_train.validation import forecasts, save_strips

KINDS: list[Loss] = ["sse-sae", "sse-2sae", "sse", "mse"]
SPAN, SIDE = 5, 8
"""Frames of a window: 3 to read, 2 to compare."""

PER_PIXEL = """
import torch
from torch import nn

class PerPixel(nn.Module):
    '''Guesses the same frame always: each pixel of it learns from that pixel alone.'''

    def __init__(self, frame_shape):
        super().__init__()
        self.frame_shape = frame_shape
        self.guess = nn.Parameter(torch.full(frame_shape, 0.25))

    def initial_state(self, batch):
        return {"last": torch.zeros(batch, *self.frame_shape)}

    def step(self, frame, state):
        return self.guess.expand_as(frame), {"last": frame}
"""


def clip() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Guesses, frames and which of their pixels were observed."""
    torch.manual_seed(0)
    return torch.rand(5, 5, 2, 4, 4), torch.rand(5, 6, 2, 4, 4), torch.rand(5, 6, 4, 4) < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_does_not_see_what_was_not_observed(kind: Loss) -> None:
    guesses, frames, observed = clip()
    guesses.requires_grad_()
    junk = frames.where(observed[:, :, None], 7.0)
    losses = [
        sequence_loss(kind, guesses, seen, skip_first=True, observed=observed)
        for seen in (frames, junk)
    ]
    assert torch.equal(*losses)
    (gradient,) = torch.autograd.grad(losses[1], guesses)
    counted = observed[:, 2:, None].expand(-1, -1, 2, -1, -1)
    assert not gradient[:, 1:][~counted].any()
    assert gradient[:, 1:][counted].all()
    plain = sequence_loss(kind, guesses, frames, skip_first=True)
    whole = sequence_loss(
        kind, guesses, frames, skip_first=True, observed=torch.ones_like(observed)
    )
    assert torch.equal(plain, whole)
    (mine,), (other,) = (torch.autograd.grad(loss, guesses) for loss in (plain, whole))
    assert torch.equal(mine, other)
    # An observed pixel weighs what it does where all are.
    torch.testing.assert_close(gradient[:, 1:][counted], mine[:, 1:][counted], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_shares_of_a_batch_add_up(kind: Loss) -> None:
    guesses, frames, observed = clip()

    def loss(rows: slice) -> torch.Tensor:
        parts = guesses[rows], frames[rows]
        return sequence_loss(kind, *parts, skip_first=False, observed=observed[rows])

    shares = [loss(slice(r, None, 2)) * shard_weight(kind, (3, 2)[r], 5, 2) for r in range(2)]
    torch.testing.assert_close(sum(shares) / 2, loss(slice(None)))


def archive(path: Path) -> Path:
    """Windows of 5 frames side by side. The last column is never observed; of the first row's
    first pixel the first frame of each window is, of its second all but the last frame."""
    frames = np.random.default_rng(0).random((60, 1, SIDE, SIDE), dtype=np.float32)
    at = np.arange(60) % SPAN
    frames[..., -1] = np.nan
    frames[at != 0, :, 0, 0] = np.nan
    frames[at == SPAN - 1, :, 0, 1] = np.nan
    time = np.datetime64("2024-05-01T00:00", "ns") + np.arange(60) * np.timedelta64(300, "s")
    np.savez(path, frames=frames, time=time, units="mm h-1")
    return path


def recipe(tmp_path: Path, model: dict[str, Any], **training: Any) -> Any:
    codec = {"quantity": "rain rate", "units": "mm h-1", "low": 0.0, "high": 1.0, "no_data": 0.5}
    return parse_recipe(
        {
            "model": model,
            "data": {
                "source": "archive",
                "path": str(archive(tmp_path / "rain.npz")),
                "context": 3,
                "horizon": 2,
                "stride": SPAN,
                "validation_fraction": 0.25,
                "test_fraction": 0.0,
                "codec": codec,
            },
            "training": {"iterations": 6, "batch": 3, "validate_every": 6, **training},
        }
    )


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("reversed_pass", [False, True])
def test_a_pixel_learns_only_from_what_was_observed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reversed_pass: bool, tiles: bool
) -> None:
    (tmp_path / "per_pixel.py").write_text(PER_PIXEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    trust_model("per_pixel:PerPixel")
    asked = recipe(
        tmp_path,
        {"name": "per_pixel:PerPixel"},
        reversed_pass=reversed_pass,
        skip_first_guess=False,
        weight_decay=0.0,
    )
    if tiles:
        data = asked.data.model_copy(update={"tiles": True, "frame": (1, SIDE, SIDE)})
        asked = asked.model_copy(update={"data": data})
    train(asked, tmp_path / "run", device="cpu")
    moved = load_training(tmp_path / "run" / TRAINING).weights["guess"][0] != 0.25
    assert not moved[:, -1].any()
    # It is the last frame of a window that is read backwards, and the first is never guessed.
    assert bool(moved[0, 0]) is reversed_pass
    moved[0, 0] = True
    assert moved[:, :-1].all()


def test_validation_counts_what_was_observed(tmp_path: Path) -> None:
    model = {"name": "convlstm", "hidden": [4], "kernel": 3, "patch": 2}
    out = tmp_path / "run"
    train(recipe(tmp_path, model), out, device="cpu")
    run = open_run(out)
    frames = run.validation()
    with np.load(out / VALIDATION) as kept:
        observed = kept["observed"]
    assert not observed[..., -1].any()
    with (out / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    made = {
        "mse": forecasts(run.model(), frames, 3, 4),
        "persistence": persistence(frames[:, :3], 2),
    }
    for name, forecast in made.items():
        left_out = 0.0
        for lead in range(2):
            seen = observed[:, 3 + lead, None]
            gap = np.square(forecast[:, lead].astype(np.float64) - frames[:, 3 + lead])
            assert float(row[f"{name}_{lead + 1}"]) == pytest.approx((gap * seen).sum() / len(gap))
            left_out += (gap * ~seen).sum()
        assert left_out > 0, name


def test_evaluate_finds_the_same_error_under_a_mask_that_stays(tmp_path: Path) -> None:
    model = {"name": "convlstm", "hidden": [4], "kernel": 3, "patch": 2}
    asked = recipe(tmp_path, model)
    path = tmp_path / "rain.npz"
    with np.load(path) as file:
        frames, time = file["frames"], file["time"]
    frames[:, :, 0, :2] = np.nan
    np.savez(path, frames=frames, time=time, units="mm h-1")
    result = train(asked, tmp_path / "run", device="cpu")
    judged = open_judged(tmp_path / "run")
    found = evaluate(judged, judged.own(), baselines=["persistence"]).scores
    np.testing.assert_allclose(found[MODEL].per_lead["mse"], result.mse, rtol=1e-5)
    np.testing.assert_allclose(found["persistence"].per_lead["mse"], result.persistence, rtol=1e-5)


def test_samples_of_large_frames_still_open(tmp_path: Path) -> None:
    frames = np.zeros((1, SPAN, 1, 700, 300), np.float32)
    save_strips(tmp_path / "s.png", frames, frames[:, 3:], np.ones((1, SPAN, 700, 300), bool))
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size == (SPAN * (100 + 2), 2 * (234 + 2))


def test_samples_show_the_mask(tmp_path: Path) -> None:
    """Blue in both rows; the frames before the forecast stay blank below."""
    frames = np.full((1, SPAN, 1, 64, 64), 0.5, np.float32)
    observed = np.ones((1, SPAN, 64, 64), bool)
    observed[..., :8] = False
    save_strips(tmp_path / "s.png", frames, frames[:, 3:], observed)
    with Image.open(tmp_path / "s.png") as picture:
        colours = np.asarray(picture)  # (2 rows of 66, 5 columns of 66, 3)
    above, below = colours[:64, ::66], colours[66:130, ::66]
    assert (above == (52, 58, 92)).all()
    assert (below[:, :3] == 64).all()
    assert (below[:, 3:] == (52, 58, 92)).all()
    assert (colours[:64, 8:64] == 128).all()
