"""Options that make training faster or smaller, and must not make it different."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stpl_core.errors import EnvironmentFault
from stpl_train.models import ForecasterModule, build_model
from stpl_train.recipe import Recipe, parse_recipe
from stpl_train.run import WEIGHTS
from stpl_train.trainer import channels_last
from stpl_train.training import train
from stpl_train.unroll import TrainingPass

# torch.compile imports what torch itself deprecated, and looks at tensors that it warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor.*:UserWarning"),
]

MODELS = {
    "convlstm": {"hidden": [4, 4], "kernel": 3, "patch": 2},
    "predrnn-v2": {"hidden": 4, "layers": 2, "kernel": 3, "patch": 2},  # has a penalty of its own
}


def gradients(model: ForecasterModule, **options: bool) -> tuple[torch.Tensor, dict[str, Any]]:
    """The loss of a fixed sequence, and what it says to every weight."""
    frames = torch.from_numpy(np.random.default_rng(0).random((2, 6, 1, 8, 8), dtype=np.float32))
    use_true = np.random.default_rng(1).random((2, 4)) < 0.5
    model.zero_grad()
    guesses, penalty = TrainingPass(model, **options)(frames, use_true)
    loss = ((guesses - frames[:, 1:]) ** 2).sum() + penalty
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, way) for name in MODELS for way in ("recompute", "channels_last")),
        *(pytest.param(name, "compiled", marks=pytest.mark.soak) for name in MODELS),
    ],
)
def test_the_gradient_stays_what_it_is(name: str, way: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, (1, 8, 8), MODELS[name]).train()
    loss, plain = gradients(model)
    if way == "channels_last":
        channels_last(model)
        other, found = gradients(model)
    else:
        other, found = gradients(model, **{way: True})
    torch.testing.assert_close(other, loss, rtol=1e-5, atol=1e-6)
    for key, value in plain.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-4)
        assert bool(value.any())


def test_recomputing_keeps_less() -> None:
    """What autograd saves for the way back, counted: steps do not pile up."""
    model = build_model("convlstm", (1, 8, 8), MODELS["convlstm"]).train()

    def saved(steps: int, **options: bool) -> int:
        kept: list[int] = []
        frames = torch.rand(1, steps + 1, 1, 8, 8)
        use_true = np.zeros((1, steps - 1), bool)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, _same):
            TrainingPass(model, **options)(frames, use_true)
        return sum(kept)

    assert saved(12, recompute=True) < saved(12) / 4


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def recipe(**training: Any) -> Recipe:
    return parse_recipe(
        {
            "model": {"name": "convlstm", **MODELS["convlstm"]},
            "data": {
                "source": "moving-mnist",
                "frame": [1, 8, 8],
                "digit_size": 4,
                "context": 2,
                "horizon": 2,
                "validation_sequences": 2,
            },
            "training": {
                "iterations": 4,
                "batch": 2,
                "validate_every": 2,
                "checkpoint_every": 2,
                **training,
            },
        }
    )


def test_a_resumed_run_with_all_options_is_bit_identical(tmp_path: Path) -> None:
    options = {"channels_last": True, "recompute": True, "precision": "bf16-mixed"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(recipe(**options), whole, device="cpu").finished

    class Stop(Exception):
        pass

    class StopAtTwo:
        def note(self, line: str) -> None: ...
        def start(self, done: int, total: int) -> None: ...
        def validating(self, done: int, of: int) -> None: ...
        def wants_step(self) -> bool:
            return True

        def step(self, done: int, loss: float) -> None:
            if done == 3:
                raise Stop

        def validated(self, row: object, best: bool) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(Stop):
        train(recipe(**options), parts, device="cpu", reporter=StopAtTwo())
    assert train(None, parts, resume=True, device="cpu").finished
    assert (whole / WEIGHTS).read_bytes() == (parts / WEIGHTS).read_bytes()


def test_a_missing_compiler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    torch._inductor.config.cpp.cxx = (str(tmp_path / "no-such-compiler"),)
    with pytest.raises(EnvironmentFault, match="compile failed"):
        train(recipe(compile=True), tmp_path / "run", device="cpu")
