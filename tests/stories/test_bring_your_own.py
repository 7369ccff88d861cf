"""examples/bring_your_own.py as its own docstring says: trained, exported, verified, streamed."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stpl_core.bundle import open_bundle
from stpl_core.errors import RecipeError
from stpl_core.safety.trust import forget_trust
from stpl_deploy.cli import app, verbs

EXAMPLE = Path(__file__).parents[2] / "examples" / "bring_your_own.py"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder with the module in it, which Python does not know of."""
    shutil.copy(EXAMPLE, tmp_path / "my_model.py")
    monkeypatch.chdir(tmp_path)
    if not app.registered_commands:
        verbs.register(app)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """Run a verb as a fresh process would: the user's module must be found each time anew."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(Path.cwd()))])
    sys.modules.pop("my_model", None)
    forget_trust()
    importlib.invalidate_caches()
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.exception
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_own_model_through_every_verb(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "model.width": 4,
        "data.frame": [1, 16, 16],
        "data.digit_size": 7,
        "data.context": 3,
        "data.horizon": 2,
        "data.validation_sequences": 4,
        "training.iterations": 6,
        "training.batch": 2,
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    trained = call(
        monkeypatch,
        *("train", "modernn-mini", "--model", "my_model:ConvGRU", *given),
        *("--out", "run", "--device", "cpu", "--quiet"),
    )
    assert trained["iterations"] == 6
    assert trained["finished"] is True
    described = call(monkeypatch, "inspect", "run")
    assert described["state"] is None  # inspect imports nobody's class
    assert described["parameters"] == trained["parameters"]
    own = ("--trust-model", "my_model:ConvGRU")
    exported = call(monkeypatch, "export", "run", "--out", "mine.bundle", *own)
    assert exported["model"]["name"] == "my_model:ConvGRU"
    assert exported["model"]["keys"] == {"width": 4}
    assert [tuple(spec["shape"]) for spec in exported["state"]] == [(4, 16, 16)]
    (home / "my_model.py").unlink()  # a bundle needs neither PyTorch nor the module
    assert call(monkeypatch, "verify", "mine.bundle")["passed"] is True
    frames = home / "frames"
    frames.mkdir()
    values = np.random.default_rng(0).random((4, 1, 16, 16), dtype=np.float32)
    for n, frame in enumerate(values):
        np.save(frames / f"2024010100{5 * n:02d}.npy", frame)
    call(monkeypatch, "predict", "mine.bundle", "frames", "--out", "predicted.npz")
    live = ["--sink", "npz:live", "--cadence", "300", "--idle-timeout", "1"]
    call(monkeypatch, "stream", "mine.bundle", "frames", *live)
    newest = max((home / "live").glob("*.npz"))
    with np.load(newest) as streamed, np.load("predicted.npz") as predicted:
        assert streamed["frames"].shape == (2, 1, 16, 16)
        np.testing.assert_array_equal(streamed["frames"], predicted["frames"])
    assert open_bundle(home / "mine.bundle").manifest.horizon == 2


def test_a_module_that_is_not_there(home: Path) -> None:
    (home / "my_model.py").unlink()
    sys.modules.pop("my_model", None)
    words = ["train", "modernn-mini", "--model", "my_model:ConvGRU", "--out", "run"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, RecipeError)
    assert "cannot be imported" in str(result.exception)
    assert not (home / "run").exists()
