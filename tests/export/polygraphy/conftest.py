"""Tiny bundles of every model, and Polygraphy's command line."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stpl_core.bundle import Bundle
from stpl_export.export import export_run
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.models import build_model
from stpl_train.recipe import parse_recipe
from stpl_train.run import WEIGHTS, save_recipe, save_validation
from tests.export.conftest import STEP_MODELS

FRAME, CONTEXT, HORIZON = (1, 16, 16), 3, 3
KEYS: dict[str, dict[str, Any]] = {**STEP_MODELS, "predrnn-v2": {"hidden": 8, "layers": 2}}
"""Every model of the catalogue, two layers."""
_ALWAYS = ("convlstm", "modernn")
EVERY = [pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.soak) for name in KEYS]
"""Two models of different kinds; the others only by hand: each takes seconds."""


def tiny_run(path: Path, model: str) -> Path:
    """A run with weights that are no fresh ones: fresh norms are blind to some faults."""
    data = {"source": "synthetic", "frame": FRAME, "context": CONTEXT, "horizon": HORIZON}
    keys = {"name": model, "patch": 4, **KEYS[model]}
    recipe = parse_recipe({"model": keys, "data": data, "training": {"iterations": 1}})
    torch.manual_seed(5)
    network = build_model(model, FRAME, recipe.model.keys).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    path.mkdir()
    save_recipe(path, recipe)
    safetensors.torch.save_file(network.state_dict(), path / WEIGHTS)
    save_validation(path, stand_in_sequences(FRAME, CONTEXT + HORIZON, 2))
    return path


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny run of a model, made once."""
    folder = tmp_path_factory.mktemp("tiny-runs")
    return functools.cache(lambda model: tiny_run(folder / model, model))


@pytest.fixture(scope="session")
def bundle_of(
    run_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Bundle]:
    """The tiny bundle of a model, exported once; copy it before a change."""
    folder = tmp_path_factory.mktemp("tiny-bundles")
    return functools.cache(lambda model: export_run(run_of(model), folder / model))


_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"
"""Polygraphy loads it wherever it is installed, which takes seconds, for tensors we do not have."""

_SERVER = f"""{_WITHOUT_TORCH}
import contextlib, io, json, os, sys
from polygraphy.tools import main

for line in sys.stdin:
    folder, arguments = json.loads(line)
    os.chdir(folder)
    sys.argv = ["polygraphy", *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main() or 0
        except SystemExit as end:
            code = end.code or 0
        except Exception as error:
            print(repr(error))
            code = 1
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


@pytest.fixture(scope="session")
def path_with_polygraphy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path on which `polygraphy` is this Python's."""
    script = tmp_path_factory.mktemp("bin") / "polygraphy"
    code = f"{_WITHOUT_TORCH}from polygraphy.tools import main; sys.exit(main())"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    return (
        f"{script.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )


Polygraphy = Callable[[Path, Sequence[str]], tuple[int, str]]


@pytest.fixture(scope="session")
def polygraphy(path_with_polygraphy: str) -> Iterator[Polygraphy]:
    """Run Polygraphy's command line in a folder; one child process for all, to load it once."""
    child = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": path_with_polygraphy},
    )

    def run(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps([str(folder), list(arguments)]) + "\n")
        child.stdin.flush()
        code, said = json.loads(child.stdout.readline())
        return code, said

    yield run
    assert child.stdin is not None
    child.stdin.close()
    child.wait(30)
    assert child.stdout is not None
    child.stdout.close()
