"""Every command line in the documents is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from stpl_deploy.cli import app, verbs

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]

Line = tuple[str, str]
"""(document, command line)"""


def command_lines() -> list[Line]:
    """Lines of code blocks, and code in running text, that begin with `stpl-deploy `."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        lines = re.findall(r"^[ $]*(stpl-deploy .+)$", text, re.MULTILINE)
        lines += re.findall(r"`(stpl-deploy [^`\n]+)`", text)
        found += [(document.name, line) for line in lines]
    return found


def root_command() -> Any:
    if not app.registered_commands:
        verbs.register(app)
    return typer.main.get_command(app)


def problems(line: str) -> list[str]:
    """What of a line the program would not know; values and paths are not looked at."""
    line = re.split(r"\s[|>&]+\s|\s{3,}", line)[0]  # a pipe; a remark set apart
    words = shlex.split(line.replace("[", " ").replace("]", " "), comments=True)[1:]
    command: Any = root_command()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        word = words.pop(0)
        if word not in command.commands:
            return [] if word.isupper() else [f"no verb {word}"]
        command = command.commands[word]
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    options.add("--help")
    asked = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return [f"no option {word}" for word in asked if word not in options]


@pytest.mark.parametrize(("document", "line"), command_lines())
def test_a_documented_line_is_understood(document: str, line: str) -> None:
    assert problems(line) == [], f"{document}: {line}"


def test_the_check_sees_mistakes() -> None:
    assert problems("stpl-deploy exprot a") == ["no verb exprot"]
    assert problems("stpl-deploy verify B --engin onnx | head") == ["no option --engin"]
    assert problems("stpl-deploy data inspect X [--nothing]   # a remark") == [
        "no option --nothing"
    ]
    assert problems("stpl-deploy verify B --engine onnx --json") == []


def test_the_readme_shows_every_verb() -> None:
    shown = {line.split()[1] for document, line in command_lines() if document == "README.md"}
    assert set(verbs.VERBS) <= shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), target


def test_the_readmes_python_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    bundle = ROOT / "tests" / "data" / "convlstm-tiny.bundle"
    names: dict[str, Any] = {"frames": np.zeros((2, 4, 1, 16, 16), np.float32)}
    exec(block.replace("digits.bundle", str(bundle)), names)
    assert names["nowcast"].shape == (2, 10, 1, 16, 16)
    names["session"].close()
