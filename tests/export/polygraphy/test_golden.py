"""The golden folder: its commands pass on the graphs that were exported, and on no other."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy

from stpl_core.bundle import WEIGHTS, Bundle
from stpl_core.errors import UsageError
from stpl_deploy.library.exporting import ExportOptions, run_export
from stpl_export.export import open_model
from stpl_export.polygraphy.golden import write_golden
from stpl_train.models import MODELS
from tests.export.conftest import KEYS_OF_MODELS
from tests.export.polygraphy.conftest import EVERY, Polygraphy

GRAPHS = ("step", "forecast", "rollout")


@pytest.fixture(scope="module")
def golden_of(
    bundle_of: Callable[[str], Bundle],
    run_of: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """A folder with `bundle` and `golden` of a model, made once; copy it before a change."""
    made: dict[str, Path] = {}

    def make(model: str) -> Path:
        if model not in made:
            made[model] = folder = tmp_path_factory.mktemp(model)
            shutil.copytree(bundle_of(model).path, folder / "bundle")
            bundle = Bundle(folder / "bundle", bundle_of(model).manifest)
            write_golden(bundle, open_model(run_of(model), None)[1], folder / "golden")
        return made[model]

    return make


def commands(folder: Path) -> dict[str, list[str]]:
    """Graph -> the command for ONNX Runtime that the README shows, as a shell would split it."""
    lines = (folder / "golden" / "README.md").read_text().splitlines()
    found = [shlex.split(line) for line in lines if "--onnxrt" in line]
    return {Path(words[2]).stem: words for words in found}


def shell(line: str, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run a line as a person would."""
    return subprocess.run(
        line, shell=True, cwd=folder, env={**os.environ, "PATH": path}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)
def test_polygraphy_itself_builds_the_graphs_for_rtx_without_a_gpu(
    golden_of: Callable[[str], Path], path_with_polygraphy: str, tmp_path: Path
) -> None:
    plan = tmp_path / "step.engine"
    done = shell(
        "POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy convert ../bundle/step.onnx --strongly-typed "
        f"--compute-capabilities 8.6 --trt-config-postprocess-script no_tf32.py -o {plan}",
        golden_of("convlstm") / "golden",
        path_with_polygraphy,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert plan.read_bytes()[:4] == b"vtrt"


def test_every_model_is_here() -> None:
    assert set(KEYS_OF_MODELS) == set(MODELS)


def verdicts(folder: Path, polygraphy: Polygraphy) -> dict[str, bool]:
    """Graph -> whether the README's command passes."""
    passed = {}
    for graph, words in commands(folder).items():
        assert words[0] == "polygraphy"
        code, said = polygraphy(folder / "golden", words[1:])
        assert "Traceback" not in said, said
        passed[graph] = code == 0
    assert set(passed) == set(GRAPHS)
    return passed


def change_a_weight(bundle: Path) -> None:
    """One weight of the largest tensor, by a hundredth of what such weights are."""
    tensors = safetensors.numpy.load_file(bundle / WEIGHTS)
    name = max(tensors, key=lambda name: tensors[name].size)
    flat = tensors[name].reshape(-1).copy()
    flat[np.abs(flat).argmax()] *= 1.01
    tensors[name] = flat.reshape(tensors[name].shape)
    (bundle / WEIGHTS).write_bytes(safetensors.numpy.save(tensors))


def change_an_epsilon(bundle: Path) -> bool:
    """The epsilon of one norm of each graph, 1e-5 to 1e-4; False where there are no norms."""
    for graph in GRAPHS:
        path = bundle / f"{graph}.onnx"
        model = onnx.load(path, load_external_data=False)
        norms = [node for node in model.graph.node if node.op_type.endswith("Normalization")]
        if not norms:
            return False
        epsilon = next(a for a in norms[-1].attribute if a.name == "epsilon")
        epsilon.f *= 10
        path.write_bytes(model.SerializeToString())
    return True


@pytest.mark.parametrize("model", EVERY)
def test_the_commands_pass_and_find_what_is_wrong(
    model: str,
    golden_of: Callable[[str], Path],
    polygraphy: Polygraphy,
    tmp_path: Path,
) -> None:
    folder = golden_of(model)
    assert verdicts(folder, polygraphy) == dict.fromkeys(GRAPHS, True)
    shutil.copytree(folder, tmp_path / "weight")
    change_a_weight(tmp_path / "weight" / "bundle")
    assert verdicts(tmp_path / "weight", polygraphy) == dict.fromkeys(GRAPHS, False)
    shutil.copytree(folder, tmp_path / "epsilon")
    if change_an_epsilon(tmp_path / "epsilon" / "bundle"):
        assert verdicts(tmp_path / "epsilon", polygraphy) == dict.fromkeys(GRAPHS, False)


def test_one_tolerance_for_all_lead_times_would_miss_it(
    golden_of: Callable[[str], Path], polygraphy: Polygraphy, tmp_path: Path
) -> None:
    """As a person would write it, `--atol 1e-3`, the wrong epsilon passes."""
    shutil.copytree(golden_of("modernn"), tmp_path / "epsilon")
    assert change_an_epsilon(tmp_path / "epsilon" / "bundle")
    for words in commands(tmp_path / "epsilon").values():
        loose = [*words[1 : words.index("--compare-func-script")], "--atol", "1e-3", "--rtol", "0"]
        assert polygraphy(tmp_path / "epsilon" / "golden", loose)[0] == 0


def test_the_scripts_and_the_shell_s_command_run_by_themselves(
    golden_of: Callable[[str], Path], path_with_polygraphy: str
) -> None:
    folder = golden_of("convlstm")
    lines = (folder / "golden" / "README.md").read_text().splitlines()
    shown = [line.strip() for line in lines if re.match(r"    python \S+run_onnxruntime.py", line)]
    assert len(shown) == len(GRAPHS)
    command = next(line.strip() for line in lines if "--onnxrt" in line)
    for line in (shown[0], command):
        done = shell(line, folder / "golden", path_with_polygraphy)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "PASSED" in done.stdout


def test_raw_inputs_are_those_of_the_json_and_of_the_graph(
    golden_of: Callable[[str], Path],
) -> None:
    folder = golden_of("modernn")
    text = (folder / "golden" / "README.md").read_text()
    trtexec = [shlex.split(line) for line in text.splitlines() if "trtexec" in line]
    assert len(trtexec) == len(GRAPHS)
    for words in trtexec:
        options = dict(word.partition("=")[::2] for word in words[1:])
        model = onnx.load(folder / "golden" / options["--onnx"], load_external_data=False)
        shapes = dict(part.split(":") for part in options["--shapes"].split(","))
        files = dict(part.split(":") for part in options["--loadInputs"].split(","))
        assert list(shapes) == list(files) == [value.name for value in model.graph.input]
        for name, shape in shapes.items():
            values = np.fromfile(folder / "golden" / files[name], np.float32)
            assert values.size == np.prod([int(side) for side in shape.split("x")])
            assert values.std() > 0


def test_paths_are_relative_and_json_is_polygraphy_s(golden_of: Callable[[str], Path]) -> None:
    folder = golden_of("modernn")
    for path in (folder / "golden").rglob("*.*"):
        if path.suffix in (".md", ".py"):
            assert str(folder) not in path.read_text()
    (feeds,) = json.loads((folder / "golden" / "step" / "inputs.json").read_text())
    assert "frame" in feeds


def test_a_golden_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "mine").touch()
    where = {"run": tmp_path / "none", "out": tmp_path / "bundle"}
    with pytest.raises(UsageError, match=r"golden already exists.*another --golden"):
        run_export(ExportOptions(**where, golden=tmp_path / "golden"))
    with pytest.raises(UsageError, match=r"lies in the bundle, which holds no code"):
        run_export(ExportOptions(**where, golden=tmp_path / "bundle" / "golden"))
