"""The runtime and the bottom work where torch and onnx are not installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

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
