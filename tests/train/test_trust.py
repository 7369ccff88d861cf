"""A model name in a stranger's run, recipe or bundle imports and calls nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stpl_core.bundle import manifest_text, open_bundle
from stpl_core.errors import RecipeError, StplError
from stpl_core.safety.trust import forget_trust, trust_model
from stpl_deploy.cli import app, verbs
from stpl_train.models import build_model, model_class
from stpl_train.recipe import load_recipe
from stpl_train.recipe_text import read_document

DATA = Path(__file__).parents[1] / "data"
NAMES = (
    "payload:Model",
    "os:system",
    "builtins:exec",
    "subprocess:run",
    "payload:made",
    ":",
    "os:",
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget_trust()
    yield
    forget_trust()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that leaves a mark when it is imported."""
    (tmp_path / "payload.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'mark')!r}).touch()\n"
        "def made(*_, **__): raise SystemExit(9)\n"
        "Model = made\n"
    )
    shutil.copytree(DATA / "modernn-mini", tmp_path / "run")
    shutil.copytree(DATA / "convlstm-tiny.bundle", tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as if it were installed
    if not app.registered_commands:
        verbs.register(app)
    return tmp_path


def rename_model(name: str) -> None:
    """Put a model's name into the run's recipe and the bundle's manifest, its checksum right."""
    recipe = Path("run/recipe.toml")
    text = recipe.read_text().splitlines()
    line = next(n for n, found in enumerate(text) if found.startswith("name ="))
    text[line] = f"name = {json.dumps(name)}"
    recipe.write_text("\n".join(text) + "\n")
    manifest = open_bundle(Path("bundle")).manifest
    model = manifest.model.model_copy(update={"name": name, "keys": {"command": "touch mark"}})
    Path("bundle/manifest.json").write_text(
        manifest_text(manifest.model_copy(update={"model": model}))
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "run"),
        ("inspect", "bundle"),
        ("export", "run", "--out", "made"),
        ("evaluate", "run"),
        ("train", "--resume", "--out", "run"),
        ("train", "run/recipe.toml", "--out", "new", "--set", "data.source=moving-mnist"),
    ],
)
def test_a_file_names_no_code(here: Path, name: str, words: tuple[str, ...]) -> None:
    rename_model(name)
    result = CliRunner().invoke(app, list(words))
    assert not (here / "mark").exists()
    if words[0] == "inspect":
        assert result.exit_code == 0, result.exception
    else:
        assert isinstance(result.exception, StplError), result.exception
        assert result.exception.exit_code == 2


def test_bench_does_not_build_what_is_not_trusted(here: Path) -> None:
    rename_model("payload:Model")
    result = CliRunner().invoke(app, ["bench", "bundle", "--rounds", "3", "--threads", "1"])
    assert result.exit_code == 0, result.exception
    assert "not timed: payload:Model is a class of somebody's own" in result.stdout
    assert not (here / "mark").exists()


def test_the_refusal_names_what_would_be_imported(here: Path) -> None:
    rename_model("payload:Model")
    result = CliRunner().invoke(app, ["export", "run", "--out", "made"])
    assert isinstance(result.exception, RecipeError)
    assert "payload:Model" in result.exception.found
    assert result.exception.fix.startswith("--trust-model payload:Model")
    assert not (here / "made").exists()


def test_trust_is_of_one_very_name(here: Path) -> None:
    trust_model("payload:Other")
    with pytest.raises(RecipeError, match="somebody's own"):
        model_class("payload:Model")
    assert not (here / "mark").exists()


def test_what_is_trusted_must_be_a_module_of_pytorch(here: Path) -> None:
    trust_model("payload:Model", "os:getcwd")
    for name in ("payload:Model", "os:getcwd"):
        with pytest.raises(RecipeError, match=r"is no torch\.nn\.Module"):
            build_model(name, (1, 8, 8), {})


def test_a_model_given_by_hand_is_trusted() -> None:
    load_recipe("modernn-mini", model="torch.nn:Identity")
    assert model_class("torch.nn:Identity").__name__ == "Identity"
    load_recipe("modernn-mini", ["model.name=torch.nn:Flatten"])
    assert model_class("torch.nn:Flatten").__name__ == "Flatten"


@pytest.mark.parametrize("base", ["../other.toml", "/etc/hostname", "deep/other.toml", "..", "."])
def test_extends_stays_beside_the_recipe(tmp_path: Path, base: str) -> None:
    (tmp_path / "other.toml").write_text('[model]\nname = "convlstm"\n')
    folder = tmp_path / "recipes"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(tmp_path / "other.toml", folder / "deep" / "other.toml")
    (folder / "own.toml").write_text(f'extends = "{base}"\n')
    with pytest.raises(RecipeError, match="extends = "):
        read_document(str(folder / "own.toml"))


def test_extends_does_not_look_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.toml").write_text('[model]\nname = "convlstm"\n')
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "own.toml").write_text('extends = "other.toml"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="which is not beside it"):
        read_document(str(folder / "own.toml"))
    found: dict[str, Any] = read_document(str(tmp_path / "other.toml"))
    assert found["model"]["name"] == "convlstm"
