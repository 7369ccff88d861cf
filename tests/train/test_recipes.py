"""Every shipped recipe: what it resolves to, that it trains, and what is said where data lack."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("xarray")

from benchmarks import results_table
from benchmarks.try_recipes import NARROW, narrow
from stpl_core.errors import RecipeError
from stpl_deploy.cli import run as command
from stpl_train.losses import sequence_loss
from stpl_train.models import MODELS, build_model
from stpl_train.recipe import (
    ArchiveSection,
    MovingMnistSection,
    Recipe,
    load_recipe,
    recipe_title,
    shipped_recipes,
)
from stpl_train.run import open_run
from stpl_train.schedules import learning_rate, true_frame_chances
from stpl_train.training import train


@pytest.mark.parametrize("name", shipped_recipes())
def test_each_resolves_to_a_model_of_its_frames(name: str) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = build_model(recipe.model.name, recipe.data.frame or (1, 10, 20), recipe.model.keys)
    assert model.frame_shape == (recipe.data.frame or (1, 10, 20))
    assert recipe_title(name)[0].isupper()
    assert not recipe_title(name).startswith("extends")


@pytest.mark.parametrize("name", shipped_recipes())
def test_each_trains(name: str, tmp_path: Path) -> None:
    """Its own patch, loss, sampling and schedule; short sequences of its frames, narrow layers."""
    recipe = narrow(name, 2, tmp_path)
    lengths = {"context": 2, "horizon": 2}
    data = recipe.data.model_copy(update={**lengths, "validation_sequences": 1})
    training = recipe.training.model_copy(update={"batch": 1})
    result = train(
        recipe.model_copy(update={"data": data, "training": training}),
        tmp_path / "run",
        device="cpu",
    )
    assert result.finished
    assert result.best_iteration == 2
    assert np.isfinite(result.mse).all()
    assert len(result.mse) == 2
    trained = open_run(result.run).recipe
    assert (trained.training.loss, trained.training.sampling) == (
        load_recipe(name).training.loss,
        load_recipe(name).training.sampling,
    )


def test_every_model_has_its_row_of_moving_mnist() -> None:
    rows = {load_recipe(name).model.name for name in shipped_recipes() if name.endswith("-mmnist")}
    assert rows == set(MODELS) == set(NARROW)


FACTS: dict[str, dict[str, Any]] = {
    "modernn-mmnist": {"iterations": 80000, "batch": 32, "loss": "sse-sae", "lr": 1e-3},
    "cms-lstm-mmnist": {"iterations": 80000, "batch": 8, "loss": "sse", "lr": 1e-3},
    "predrnn-mmnist": {"iterations": 80000, "batch": 8, "loss": "mse", "lr": 3e-4},
    "predrnn-v2-mmnist": {"iterations": 80000, "batch": 8, "sampling": "reverse", "lr": 1e-4},
    "predrnn-pp-mmnist": {"iterations": 80000, "batch": 8, "loss": "sse", "lr": 1e-3},
    "mim-mmnist": {"iterations": 80000, "batch": 8, "loss": "sse", "betas": (0.95, 0.9995)},
    "e3d-lstm-mmnist": {"batch": 4, "loss": "sse-2sae", "reversed_pass": False},
    "predrnn-kth": {"iterations": 80000, "batch": 4, "loss": "mse"},
    "modernn-typhoon": {"iterations": 100000, "batch": 32, "loss": "sse-sae"},
    "cms-lstm-taxibj": {"iterations": 80000, "batch": 8, "loss": "sse-sae"},
}
"""The published training set-ups: bibliography.md, 3.3."""


@pytest.mark.parametrize("name", FACTS)
def test_trained_as_published(name: str) -> None:
    training = load_recipe(name).training
    assert {key: getattr(training, key) for key in FACTS[name]} == FACTS[name]


def test_schedules_are_the_published_ones() -> None:
    predrnn = load_recipe("predrnn-mmnist").training
    assert {learning_rate(predrnn, n) for n in (0, 40_000, 79_999)} == {3e-4}
    assert true_frame_chances(predrnn, 25_000) == (1.0, 0.5)
    assert true_frame_chances(predrnn, 50_000) == (1.0, 0.0)
    modernn = load_recipe("modernn-mmnist").training
    assert learning_rate(modernn, 0) == learning_rate(modernn, 199) == 1e-3
    assert true_frame_chances(modernn, 40_000) == (1.0, 0.0)
    v2 = load_recipe("predrnn-v2-mmnist").training
    assert true_frame_chances(v2, 24_999) == (0.5, 0.5)
    assert true_frame_chances(v2, 50_000) == (1.0, 0.0)


def test_lengths_and_grids_are_the_published_ones() -> None:
    asked = {
        "predrnn-kth": ((1, 128, 128), 10, 10),
        "predrnn-radar": ((1, 100, 100), 10, 10),
        "modernn-typhoon": ((1, 64, 64), 8, 4),
        "cms-lstm-taxibj": ((2, 32, 32), 4, 4),
        "radar-nowcast": ((1, 192, 192), 6, 12),
        "predrnn-nowcast": ((1, 128, 128), 6, 12),
        "camera": ((1, 128, 128), 10, 10),
    }
    for name, (frame, context, horizon) in asked.items():
        data = load_recipe(name).data
        assert (data.frame, data.context, data.horizon) == (frame, context, horizon)
    kth, mmnist3 = load_recipe("predrnn-kth").data, load_recipe("predrnn-mmnist3").data
    assert isinstance(kth, ArchiveSection)
    assert isinstance(mmnist3, MovingMnistSection)
    assert (kth.test_horizon, mmnist3.digits) == (20, 3)
    assert load_recipe("predrnn-radar").model.keys["patch"] == 5


def test_e3d_lstms_loss() -> None:
    guesses, frames = torch.zeros(1, 2, 1, 1, 1), torch.zeros(1, 3, 1, 1, 1)
    frames[0, 1], frames[0, 2] = 2.0, -4.0
    loss = sequence_loss("sse-2sae", guesses, frames, skip_first=False)
    assert float(loss) == (4 + 16) / 2 + (2 + 4)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    plain = load_recipe("predrnn-mmnist")
    one = write(tmp_path / "one.toml", 'extends = "predrnn-mmnist"\n[training]\nbatch = 3\n')
    found = load_recipe(one)
    assert found.training.batch == 3
    assert found == plain.model_copy(
        update={"training": plain.training.model_copy(update={"batch": 3})}
    )
    text = 'extends = "one.toml"\n[model]\nname = "convlstm"\n[data]\ndigits = 1\n'
    two = load_recipe(write(tmp_path / "two.toml", text))
    assert two.model.keys == {}  # another model's keys are not taken over
    assert two.training.batch == 3
    assert two.data == plain.data.model_copy(update={"digits": 1})
    other = '[data]\nsource = "array"\npath = "x.npy"\n'
    three = load_recipe(write(tmp_path / "three.toml", f'extends = "one.toml"\n{other}'))
    assert three.data.source == "array"


@pytest.mark.parametrize("text", ['extends = "a.toml"', "extends = 3"])
def test_a_circle_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"extends = .*does not extend this one"):
        load_recipe(write(tmp_path / "a.toml", text))


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = command([str(word) for word in words])
    return code, *capsys.readouterr()


def test_data_that_are_not_there_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"data.path={tmp_path / 'none'}"
    code, _, err = said(capsys, "train", "predrnn-kth", "--out", tmp_path / "r", "--set", place)
    assert code == 2
    assert re.search(r"no data at \S+none; expected KTH as folders.*; try: .*data fetch kth", err)
    assert "\n" not in err.strip()
    assert not (tmp_path / "r").exists()
    code, _, err = said(capsys, "train", "predrn-kth", "--out", "r")
    assert code == 2
    assert "stpl-deploy train predrnn-kth --out r" in err


def test_inspect_says_what_is_missing_for_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minutes = np.arange(200) * np.timedelta64(10, "m")
    times = np.datetime64("2024-05-01T00:00") + minutes
    frames = np.random.default_rng(0).random((200, 1, 96, 130), dtype=np.float32)
    path = tmp_path / "rain.npz"
    np.savez(path, frames=frames, time=times, units="mm h-1")
    code, out, err = said(capsys, "data", "inspect", path, "--recipe", "radar-nowcast")
    assert code == 2, err
    assert "size         96x130; expected 192x192 by tiles" in out
    assert "cadence      600 s; expected 300 s" in out
    assert "channels     1; expected 1" in out
    np.savez(path, frames=np.pad(frames, ((0, 0), (0, 0), (0, 96), (0, 62))), units="dBZ")
    code, out, err = said(capsys, "data", "inspect", path, "--recipe", "radar-nowcast")
    assert code == 0, err
    assert f"next: stpl-deploy train radar-nowcast --set data.path={path} --out RUN" in out
    code, _, err = said(capsys, "data", "inspect", path, "--recipe", "radar-nowcst")
    assert code == 2
    assert err.endswith("try: --recipe radar-nowcast\n")
    code, _, err = said(capsys, "data", "inspect", path, "--recipe", "modernn-mmnist")
    assert code == 2
    assert 'data.source = "moving-mnist"' in err


def test_show_prints_a_recipe_that_can_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, "train", "e3d-lstm-taxibj", "--show", "--set", "training.batch=2")
    assert code == 0
    whole = load_recipe(write(tmp_path / "whole.toml", out))
    assert whole == load_recipe("e3d-lstm-taxibj", ["training.batch=2"])


def test_show_prints_the_recipe_of_weights(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = root / "tests" / "data" / "modernn-mini"
    code, out, err = said(capsys, "train", "--from", run, "--show", "--iterations", "7")
    assert code == 0, err
    changed = ["training.iterations=7"]
    assert load_recipe(write(tmp_path / "run.toml", out)) == load_recipe(
        str(run / "recipe.toml"), changed
    )
    code, out, err = said(capsys, "train", "--from", f"{run}.bundle", "--show")
    assert code == 0, err
    assert load_recipe(write(tmp_path / "bundle.toml", out)).model.name == "modernn"
    code, out, err = said(capsys, "train", "--from", run, "--keys")
    assert code == 0, err
    assert "model.hidden = " in out
    code, _, err = said(capsys, "train", "--show", "--resume", "--out", run)
    assert code == 2
    assert err.endswith(f"try: stpl-deploy train --show --from {run}\n")
    assert said(capsys, *err.split("stpl-deploy ")[1].split())[0] == 0


def test_the_page_of_results_is_up_to_date() -> None:
    page = results_table.PAGE.read_text()
    assert results_table.page_with(results_table.tables()) == page, "results_table.py --write"
    papers = {name for name in shipped_recipes() if "-" in name} - {"modernn-mini"}
    practical = {"radar-nowcast", "predrnn-nowcast", "era5-t2m", "advect-mmnist"}
    assert set(results_table.printed()) == papers - practical
    assert page.count("not run |") == len(results_table.printed().keys() - results_table.results())


def test_bilinear_is_pillows_where_it_enlarges() -> None:
    from PIL import Image

    from stpl_core.grid import pixel_grid
    from stpl_core.reader import Quantity, state_of
    from stpl_core.readers.fit import Fit

    frames = np.random.default_rng(0).random((1, 1, 12, 16), dtype=np.float32)
    fit = Fit(size=(16, 24), bilinear=True)
    made, _ = fit.apply(frames, state_of(frames), Quantity("grey level", "1"))
    theirs = Image.fromarray(frames[0, 0]).resize((24, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(made[0, 0], np.asarray(theirs), atol=1e-5)
    assert fit.grid(pixel_grid(12, 16), "x").height == 16


def test_another_source_takes_the_place_of_the_recipes_own(tmp_path: Path) -> None:
    """Its keys are of no use there, and could not be taken away by --set."""
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).random((1, 240, 1, 16, 16), dtype=np.float32))
    own = ["data.source=array", f"data.path={path}"]
    recipe = load_recipe("modernn-mini", own)
    assert (recipe.data.source, recipe.data.context, recipe.data.frame) == ("array", 10, None)
    assert load_recipe("modernn-mini", [*own, "data.horizon=4"]).data.horizon == 4
    same = load_recipe("modernn-mini", ["data.source=moving-mnist"])
    assert same == load_recipe("modernn-mini")
    with pytest.raises(RecipeError, match=r"unknown key data\.pth"):
        load_recipe("modernn-mini", [*own, "data.pth=x"])
    short = ["training.iterations=1", "training.batch=1", "model.hidden=2"]
    result = train(load_recipe("modernn-mini", [*own, *short]), tmp_path / "run", device="cpu")
    assert result.finished
    assert open_run(result.run).frame_shape == (1, 16, 16)


def e3d(*settings: str) -> Recipe:
    return load_recipe("e3d-lstm-mmnist", ["data.context=4", "data.horizon=3", *settings])


def test_e3d_lstm_recalls_the_whole_sequence_unless_a_recipe_says_otherwise() -> None:
    assert load_recipe("e3d-lstm-mmnist").model.keys["history"] == 19
    assert load_recipe("e3d-lstm-taxibj").model.keys["history"] == 7
    assert (e3d().model.keys["history"], e3d().remarks()) == (6, [])
    assert e3d("model.history=6") == e3d()
    (few,) = e3d("model.history=4").remarks()
    assert "model.history = 4, and a sequence has 6 steps" in few
    assert "the first 2 are forgotten" in few
    (many,) = e3d("model.history=9").remarks()
    assert "3 stay empty" in many
    assert load_recipe("modernn-mini").remarks() == []
    assert "history" not in load_recipe("modernn-mini").model.keys


def test_training_says_that_a_history_is_too_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = ["data.frame=[1,8,8]", "data.digit_size=4", "data.validation_sequences=2"]
    small += [
        "data.images=scikit-learn",
        "model.hidden=[2]",
        "model.kernel=3",
        "training.iterations=1",
        "training.batch=1",
    ]
    recipe = e3d("model.history=4", *small)
    train(recipe, tmp_path / "run", device="cpu")
    assert "the first 2 are forgotten on the way" in caplog.text
    caplog.clear()
    train(e3d(*small), tmp_path / "whole", device="cpu")
    assert "history" not in caplog.text
    kept = open_run(tmp_path / "whole").recipe.model.keys
    assert kept["history"] == 6
    assert train(e3d(*small), tmp_path / "whole", resume=True, device="cpu").already


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.frame=[64, 64]", r"expected \[channels, height, width\]; try: .*'\[1, 64, 64\]'"),
        ("training.betas=[0.9]", r"expected 2 entries; try: --set training\.betas='\[0\.9, 0\.9\]"),
        ("training.betas=[0.8, 0.9, 0.99]", r"try: --set training\.betas='\[0\.8, 0\.9\]'"),
    ],
)
def test_a_list_is_corrected_as_a_whole(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("convlstm-mmnist", [setting])
    (corrected,) = [word for word in shlex.split(caught.value.fix) if "=" in word]
    load_recipe("convlstm-mmnist", [corrected])
