"""Run directories, recipes, parts and state files of a stranger: one line, never a traceback."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

import tomli_w
import tomllib

from stpl_core.errors import StplError
from stpl_core.parts import INDEX, join, split
from stpl_deploy.cli import run
from stpl_train.recipe import load_recipe
from stpl_train.recipe_text import shipped_recipes
from tests.fuzz.mutate import damaged, few, mutated, mutated_npz

RUN = Path(__file__).parents[1] / "data" / "modernn-mini"
SEED = st.integers(0, 2**32)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    shutil.copytree(RUN, tmp_path / "run")
    split(RUN, tmp_path / "parts", 100_000)
    return tmp_path


def toml(document: Any) -> bytes:
    """TOML of what is left of a document; it knows no null."""
    try:
        return tomli_w.dumps(_without_null(document)).encode()
    except (TypeError, ValueError, AttributeError):
        return b"broken ="


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _without_null(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in value if item is not None]
    return value


def check(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = run(words)
    output = capsys.readouterr()
    assert code in (0, 2, 3, 4), output.err[-2500:]
    assert "\x1b[31m" not in output.out + output.err


@few(30)
@given(seed=SEED)
def test_run_directories(room: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    random, folder = Random(seed), room / "run"
    for file in RUN.iterdir():
        shutil.copy(file, folder / file.name)
    name = random.choice(["recipe.toml"] * 4 + ["weights.safetensors", "metrics.csv"])
    content = (RUN / name).read_bytes()
    if name == "recipe.toml" and random.randrange(4):
        changed = toml(mutated(tomllib.loads(content.decode()), random))
    else:
        changed = damaged(content, random)
    (folder / name).write_bytes(changed)
    check(["inspect", str(folder)], capsys)


@few(8)
@given(seed=SEED)
def test_runs_that_are_evaluated(room: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    random, folder = Random(seed), room / "run"
    for file in RUN.iterdir():
        shutil.copy(file, folder / file.name)
    name = random.choice(["weights.safetensors", "validation.npz", "validation.npz"])
    content = (RUN / name).read_bytes()
    changed = (mutated_npz if name.endswith(".npz") else damaged)(content, random)
    (folder / name).write_bytes(changed)
    check(["evaluate", str(folder), "--baseline", "persistence", "--threads", "1"], capsys)


@few(80)
@given(seed=SEED)
def test_recipes(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    name = random.choice(shipped_recipes())
    document = load_recipe(name).model_dump(mode="json", exclude_none=True)
    path = tmp_path / "own.toml"
    path.write_bytes(toml(mutated(document, random)))
    if random.randrange(5) == 0:
        path.write_bytes(damaged(path.read_bytes(), random))
    with suppress(StplError):
        load_recipe(str(path))


@few(60)
@given(seed=SEED)
def test_parts(room: Path, seed: int) -> None:
    random, parts = Random(seed), room / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    split(RUN, parts, 100_000)
    if random.randrange(4):
        document = json.loads((parts / INDEX).read_text())
        (parts / INDEX).write_text(json.dumps(mutated(document, random)))
    else:
        path = random.choice(sorted(parts.iterdir()))
        path.write_bytes(damaged(path.read_bytes(), random))
    out = room / "joined"
    with suppress(StplError):
        join(parts, out)
    shutil.rmtree(out, ignore_errors=True)
    assert sorted(path.name for path in room.iterdir()) == ["parts", "run"]
