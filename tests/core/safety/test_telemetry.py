"""Importing the engines' libraries reports to nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CHILD = """
import socket, sys
import stpl_core.errors

asked = []
sys.addaudithook(lambda event, _: asked.append(event) if event.startswith("socket.") else None)
import {library}
sys.exit(str(asked) if asked else 0)
"""


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_importing_an_engine_reports_to_nobody(tmp_path: Path, library: str) -> None:
    """Each kept a number of this machine in the home directory, and sent it home."""
    pytest.importorskip(library)
    quieting = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(quieting)}
    made = subprocess.run(
        [sys.executable, "-c", _CHILD.format(library=library)],
        env={**environment, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert list(tmp_path.rglob("*")) == []
