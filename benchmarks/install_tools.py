"""The wheel installed as people install a command: by uv and by pipx."""

from __future__ import annotations

import subprocess
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.install_environments import run_apart, why
from benchmarks.support_matrix import WORK, uv_command

EXTRAS = "cpu,page"
TOOLS = ("uv tool install", "pipx install")


@dataclass(frozen=True)
class Tried:
    """One tool on one Python."""

    tool: str
    python: str
    extras: str
    version: str
    """Of the tool."""
    reason: str
    """Why the command does not run; empty where it does."""


def try_tool(tool: str, wheel: Path, python: str, base: str) -> Tried:
    """Install the wheel with it into a folder of its own, and run the command that it made."""
    program, *words = tool.split()
    found = uv_command() if program == "uv" else _pipx()
    version = run_apart([*found, "--version"]).stdout.split()[-1 if program == "pipx" else 1]
    with tempfile.TemporaryDirectory(prefix="tool-") as folder:
        bin_folder = f"{folder}/bin"
        where = (
            {"UV_TOOL_DIR": f"{folder}/tools", "UV_TOOL_BIN_DIR": bin_folder}
            if program == "uv"
            else {"PIPX_HOME": f"{folder}/home", "PIPX_BIN_DIR": bin_folder}
        )
        command = [*found, *words, "--python", base, f"{wheel}[{EXTRAS}]"]
        done = run_apart(command, **where)
        if done.returncode:
            return Tried(tool, python, EXTRAS, version, why(done.stderr))
        shown = run_apart([f"{bin_folder}/stpl-deploy", "--version"])
        reason = "" if shown.returncode == 0 else why(shown.stderr)
        return Tried(tool, python, EXTRAS, version, reason)


def _pipx() -> list[str]:
    own = WORK / "pipx"
    if not (own / "bin" / "pipx").exists():
        venv.create(own, with_pip=True)
        pip = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "pipx"]
        subprocess.run(pip, check=True)
    return [str(own / "bin" / "pipx")]
