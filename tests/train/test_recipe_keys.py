"""`train --keys`: what it lists is what recipes take, all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")

from stpl_deploy.cli import run
from stpl_train.recipe import load_recipe, plain_document, shipped_recipes
from stpl_train.recipe_keys import Key, recipe_keys


def keys_of(name: str) -> dict[str, Key]:
    return {key.name: key for section in recipe_keys(load_recipe(name)) for key in section.keys}


SECTIONS = ("model", "data", "training", "data.codec", "data.augment", "training.leads")


def leaves(document: dict[str, Any], before: str = "") -> list[str]:
    found = []
    for name, value in document.items():
        if isinstance(value, dict) and before + name in SECTIONS:
            found += leaves(value, f"{before}{name}.")
        else:
            found.append(before + name)
    return found


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_key_of_a_recipe_is_listed(name: str) -> None:
    written = set(leaves(plain_document(load_recipe(name)))) - {"model.name", "data.source"}
    assert written - keys_of(name).keys() == set()


def test_a_key_has_its_default_its_kind_and_what_it_is_for() -> None:
    keys = keys_of("radar-nowcast")
    assert keys["data.least_echo"].default == 0.0
    assert keys["data.path"].required
    assert keys["training.lr_hold"].about.startswith("Iterations for which the cosine's value")
    assert keys["data.frame"].kind == "[int, int, int]"
    assert keys["data.codec.kind"].kind == "'linear' | 'db' | 'log'"
    assert keys["model.output"].about  # documented in a class above


def test_what_is_listed_can_be_set() -> None:
    for name in ("predrnn-nowcast", "modernn-mini"):
        for key in keys_of(name).values():
            if key.required or key.default is None or key.name.startswith("model."):
                continue
            load_recipe(name, [f"{key.name}={json.dumps(key.default)}"])


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "radar-nowcast", "--keys"]) == 0
    out = capsys.readouterr().out
    assert '[model] name = "advect"' in out
    assert "  training.batch = 16  (int)\n      Sequences per iteration" in out
    assert run(["train", "--keys", "--json"]) == 0
    titles = [section["title"] for section in json.loads(capsys.readouterr().out)]
    assert '[data] source = "array"' in titles
    assert len(titles) > 12
