"""`output = "residual"`: any model as the change from the frame that it is shown, exported too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stpl_core.errors import RecipeError
from stpl_export.export import export_run
from stpl_runtime.engine import open_session
from stpl_train.forecaster import PenalisedForecaster, rollout
from stpl_train.models import build_model
from stpl_train.run import open_run
from tests.export.conftest import KEYS

FRAME = (1, 8, 8)


@pytest.mark.parametrize("model", ["modernn", "convlstm"])
def test_the_guess_is_the_frame_plus_the_plain_models(model: str) -> None:
    torch.manual_seed(0)
    plain = build_model(model, FRAME, KEYS[model]).eval()
    residual = build_model(model, FRAME, {**KEYS[model], "output": "residual"}).eval()
    residual.load_state_dict({f"inner.{k}": v for k, v in plain.state_dict().items()})
    frame = torch.rand(2, *FRAME)
    with torch.no_grad():
        change, state = plain.step(frame, plain.initial_state(2))
        guess, there = residual.step(frame, residual.initial_state(2))
    torch.testing.assert_close(guess, frame + change)
    assert list(there) == list(state)
    for name, tensor in state.items():
        torch.testing.assert_close(there[name], tensor)


def test_silence_is_persistence() -> None:
    model = build_model("convlstm", FRAME, {**KEYS["convlstm"], "output": "residual"}).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
        frames = torch.rand(2, 3, *FRAME)
        guesses = rollout(model, frames, 4)
    torch.testing.assert_close(guesses, frames[:, -1:].expand(-1, 4, -1, -1, -1))


def test_a_penalty_is_kept() -> None:
    keys = {"hidden": 4, "layers": 2, "patch": 2, "output": "residual"}
    model = build_model("predrnn-v2", FRAME, keys)
    assert isinstance(model, PenalisedForecaster)
    frame = torch.rand(1, *FRAME)
    guess, _, penalty = model.training_step(frame, model.initial_state(1))
    torch.testing.assert_close(guess, model.step(frame, model.initial_state(1))[0])
    assert penalty.ndim == 0
    assert not isinstance(build_model("convlstm", FRAME, KEYS["convlstm"]), PenalisedForecaster)


def test_another_word_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"frame or residual; try: .*model\.output=residual"):
        build_model("convlstm", FRAME, {**KEYS["convlstm"], "output": "delta"})


def test_it_exports(run_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KEYS, "convlstm", {**KEYS["convlstm"], "output": "residual"})
    run = run_maker("convlstm", context=3, horizon=3)
    bundle = export_run(run, tmp_path / "bundle")
    assert bundle.manifest.model.keys["output"] == "residual"
    assert bundle.manifest.accuracy is not None
    assert bundle.manifest.accuracy.passed
    frames = np.random.default_rng(1).random((2, 3, *FRAME), dtype=np.float32)
    session = open_session(bundle, ["rollout"], threads=1)
    with torch.no_grad():
        theirs = rollout(open_run(run).model(), torch.from_numpy(frames), 3).numpy()
    np.testing.assert_allclose(session.rollout(frames), theirs, atol=1e-5)
    session.close()
