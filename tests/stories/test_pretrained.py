"""What is shipped trained: small, attributed, better than persistence, and exported by its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomllib

pytest.importorskip("xarray")

from stpl_core.npz_extras import read_beside
from stpl_deploy.cli import run
from stpl_train import pretrained
from stpl_train.run import VALIDATION, open_run
from stpl_train.validation import forecast_mse, forecasts, persistence_mse

NAMES = pretrained.pretrained_names()


def folder(name: str) -> Path:
    return pretrained.run_path(Path(f"pretrained:{name}"))


def test_there_is_one() -> None:
    assert "radar-nowcast" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_small_attributed_and_from_no_ones_machine(name: str) -> None:
    files = list(folder(name).iterdir())
    assert sum(path.stat().st_size for path in files) < 2e6
    assert len((folder(name) / "ATTRIBUTION.md").read_text()) > 100
    paths = tomllib.loads((folder(name) / "recipe.toml").read_text())["data"]["path"]
    assert all("/" not in path for path in ([paths] if isinstance(paths, str) else paths))


@pytest.mark.parametrize("name", NAMES)
def test_beats_persistence_at_every_lead_time(name: str) -> None:
    opened = open_run(Path(f"pretrained:{name}"))
    sequences = opened.validation()[:3]
    observed, _ = read_beside(opened.file(VALIDATION), opened.validation())
    seen = None if observed is None else observed[:3]
    context = opened.recipe.data.context
    made = forecasts(opened.model(), sequences, context, 3)
    still = persistence_mse(sequences, context, seen)
    assert (forecast_mse(made, sequences, seen) < still).all()


@pytest.mark.usefixtures("exported_once")
def test_exported_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "rain.bundle"
    code = run(["export", "pretrained:radar-nowcast", "--out", str(bundle), "--sequences", "1"])
    assert code == 0, capsys.readouterr().err
    capsys.readouterr()
    assert run(["inspect", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["codec"]["units"] == "mm h-1"
    frames = np.zeros((6, 1, 192, 192), np.float32)  # a dry hour stays dry
    np.save(tmp_path / "dry.npy", frames)
    out = tmp_path / "nowcast.npz"
    words = ["predict", str(bundle), str(tmp_path / "dry.npy"), "--out", str(out)]
    assert run([*words, "--probabilities"]) == 0
    with np.load(out) as made:
        assert made["frames"].shape[-4:] == (12, 1, 192, 192)
        assert float(made["frames"].max()) < 0.2
        assert made["thresholds"].tolist() == [0.1, 0.5, 1.0, 2.0, 5.0, 10.0]
        assert float(made["probability_of_exceedance"].max()) < 0.2
    capsys.readouterr()


@pytest.mark.soak
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("name", NAMES)
def test_every_precision_keeps_its_promise(
    name: str, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the run's own frames: smaller ones hardly show what is lost."""
    bundle, engine = str(tmp_path / "rain.bundle"), "openvino" if precision == "bf16" else "onnx"
    words = ["export", f"pretrained:{name}", "--precision", precision, "--out", bundle]
    assert run(words) == 0, capsys.readouterr().err
    assert run(["verify", bundle, "--engine", engine]) == 0, capsys.readouterr().err


def test_an_unknown_name_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["export", "pretrained:rader", "--out", str(tmp_path / "b")]) == 2
    err = capsys.readouterr().err
    assert "no pretrained model rader; expected one of radar-nowcast" in err
    assert "try: pretrained:radar-nowcast" in err


@pytest.mark.parametrize("word", ["radar-nowcast", "radar-nowcasts", "radar_nowcast"])
def test_a_name_without_its_prefix_is_understood(
    word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["export", word, "--out", str(tmp_path / "b")]) == 2
    err = capsys.readouterr().err
    assert f"{word} is missing; expected a directory with recipe.toml" in err
    assert "try: pretrained:radar-nowcast" in err


def test_another_path_is_not_taken_for_a_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for word in (str(tmp_path / "radar-nowcast"), "my-radar"):
        assert run(["export", word, "--out", str(tmp_path / "b")]) == 2
        assert "pretrained" not in capsys.readouterr().err
