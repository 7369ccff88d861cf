"""What error messages advise to type exists: every verb and option in a `fix=` of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from stpl_deploy.cli import app, verbs

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "train", "runtime", "export", "stpl_deploy")
_COMMAND = re.compile(r"(?<!of )stpl-deploy(?P<words>(?: [^\s;,:]+)*)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
FOREIGN = {
    "--all",
    "--editable",
    "--extra-index-url",
    "--find-links",
    "--force-reinstall",
    "--gpus",
    "--index-url",
    "--no-cache-dir",
    "--upgrade",
    "--user",
}
"""Options of pip, docker and v4l2-ctl."""


def advice() -> Iterator[tuple[str, str]]:
    """Where, and the text of a fix; `{}` where a value stands."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "fix":
                    for text in _texts(node.value):
                        yield f"{path.relative_to(ROOT)}:{node.value.lineno}", text


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values
        )


@cache
def _options() -> dict[str, set[str]]:
    """Verb, such as `data convert`, -> its options."""
    verbs.register(app)  # all: a verb that ran before lists the others only
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        found[name] = {word for option in command.params for word in (*option.opts,
                       *option.secondary_opts)} | {"--help", "-h"}  # fmt: skip
        for word, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {word}".strip())

    walk(typer.main.get_command(app), "")
    return found


def wrong(text: str) -> str | None:
    """What a text advises that does not exist; None where all does."""
    options = _options()
    every = set().union(*options.values())
    for option in _OPTION.findall(text):
        if option not in every | FOREIGN:
            return f"no verb has {option}"
    for command in _COMMAND.finditer(text):
        words = command["words"].split()
        if not words or words[0].startswith(("-", "VALUE")):
            continue
        verb = words[0].rstrip(".")
        if verb not in options:
            return f"no verb {verb}"
        if len(words) > 1 and f"{verb} {words[1]}" in options:
            verb = f"{verb} {words[1]}"
        for word in words:
            option = word.partition("=")[0].strip("'\").")
            if option.startswith("--") and option not in options[verb]:
                return f"{verb} has no {option}"
    return None


def test_there_is_advice() -> None:
    texts = [text for _, text in advice()]
    assert len(texts) > 300
    assert sum("stpl-deploy " in text for text in texts) > 30


def test_every_verb_and_option_that_is_advised_exists() -> None:
    found = {where: (text, reason) for where, text in advice() if (reason := wrong(text))}
    assert found == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stpl-deploy fly RUN", "no verb fly"),
        ("stpl-deploy verify B --keep-slower", "verify has no --keep-slower"),
        ("--no-such-option", "no verb has --no-such-option"),
        ("stpl-deploy data convert A --out B", None),
        ("leave --out out", None),
    ],
)
def test_wrong_advice_is_found(text: str, reason: str | None) -> None:
    assert wrong(text) == reason
