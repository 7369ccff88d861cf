"""Recipes as a person types them: trained, evaluated, exported and verified on stand-in frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("xarray")

from benchmarks.try_recipes import try_recipe
from stpl_deploy.cli import run
from stpl_train.data.stand_in import stand_in_archive
from stpl_train.recipe import ArchiveSection, load_recipe


def test_a_recipe_goes_the_whole_way(tmp_path: Path) -> None:
    """The cheap one of `make recipes`, which takes all of them through 20 iterations."""
    found = try_recipe("taxi", 2, tmp_path)
    assert found["verified"]
    assert found["sequences_evaluated"] > 0
    assert (found["context"], found["horizon_evaluated"]) == (4, 4)


def test_trained_over_some_frames_and_tested_over_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "short.toml"
    small = "[model]\nhidden = 4\nlayers = 1\nkernel = 3\npatch = 8\n"
    data = '[data]\nreader = "arrays"\nsplit = "time"\ncontext = 2\nhorizon = 2\ntest_horizon = 5\n'
    training = "[training]\niterations = 2\nbatch = 2\nvalidate_every = 2\n"
    recipe.write_text(f'extends = "predrnn-kth"\n{small}{data}{training}')
    section = load_recipe(str(recipe)).data
    assert isinstance(section, ArchiveSection)
    stand_in_archive(section, (1, 120, 160), tmp_path / "kth.npz")

    def call(*words: object) -> str:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    made, bundle = tmp_path / "run", tmp_path / "kth.bundle"
    place = f"data.path={tmp_path / 'kth.npz'}"
    call("train", recipe, "--out", made, "--set", place, "--device", "cpu")
    assert json.loads(call("evaluate", made, "--json", "--baseline", "persistence"))["horizon"] == 2
    tested = ["--part", "test", "--json", "--baseline", "persistence"]
    of_run = json.loads(call("evaluate", made, *tested))
    assert of_run["horizon"] == len(of_run["scores"]["model"]["per_lead"]["mse"]) == 5
    call("export", made, "--out", bundle)
    of_bundle = json.loads(call("evaluate", bundle, *tested))
    assert of_bundle["horizon"] == 5
    assert of_bundle["scores"]["model"]["per_lead"]["mse"] == pytest.approx(
        of_run["scores"]["model"]["per_lead"]["mse"], rel=1e-4
    )
    assert json.loads(call("evaluate", bundle, *tested, "--horizon", 3))["horizon"] == 3
    every = json.loads(call("evaluate", bundle, *tested, "--stride", 1))["sequences"]
    assert every > of_bundle["sequences"]
    assert run(["evaluate", str(made), "--horizon", "3"]) == 2
    assert "--horizon with --data or --part" in capsys.readouterr().err
