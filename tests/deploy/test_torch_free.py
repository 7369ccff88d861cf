"""The runtime and the bottom work where torch and onnx are not installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("torch", "onnx", "onnxscript", "stpl_train", "stpl_export"):
    sys.modules[name] = None  # any import of it, at whatever depth, now fails
import stpl_core, stpl_deploy, stpl_runtime
count = 0
for package in (stpl_core, stpl_deploy, stpl_runtime):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.startswith("stpl_deploy.demo") or module.name == "stpl_deploy.__main__":
            continue  # the demo trains
        importlib.import_module(module.name)
        count += 1
print(count)
"""


@pytest.mark.skipif("STPL_TORCH_FREE" not in os.environ, reason="only in the job without torch")
def test_this_environment_has_no_torch() -> None:
    for name in ("torch", "onnx", "onnxscript", "safetensors", "lightning_fabric"):
        assert importlib.util.find_spec(name) is None, name


def test_every_module_of_the_runtime_and_the_bottom_imports_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


LIGHT = """
import sys
for name in ("torch", "onnx", "onnxscript", "safetensors", "lightning_fabric", "polygraphy"):
    sys.modules[name] = None  # any import of it, at whatever depth, now fails
from stpl_deploy.cli import run
for words in sys.argv[1:]:
    print(words, run(words.split()), flush=True)
"""


def test_a_verb_that_needs_more_names_the_extra(tmp_path: Path) -> None:
    bundle = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"
    asked = [
        f"package {bundle} --out models",
        "export pretrained:radar-nowcast --out b.bundle",
        "train modernn-mini --out run",
        "demo",
        "demo --radar",
        "models",
    ]
    bench = f"bench {bundle} --rounds 3 --out bench"
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, bench, *asked],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes = [line[-1] for line in done.stdout.splitlines() if line.startswith((bench, *asked))]
    assert codes == ["0", *["4"] * len(asked)], done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(asked), done.stderr
    assert all("the extra [" in line for line in errors), errors
