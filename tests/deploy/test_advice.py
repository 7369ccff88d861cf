"""What error messages advise to type exists: every verb and option in a `fix=` of the code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.advice import Refusal, commands, next_lines, options, typed

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


def wrong(text: str) -> str | None:
    """What a text advises that does not exist; None where all does."""
    every = {option for verb in commands() for option in options(verb)}
    for option in _OPTION.findall(text):
        if option not in every | FOREIGN:
            return f"no verb has {option}"
    for command in _COMMAND.finditer(text):
        words = command["words"].split()
        if not words or words[0].startswith(("-", "VALUE")):
            continue
        verb = words[0].rstrip(".")
        if verb not in commands():
            return f"no verb {verb}"
        if len(words) > 1 and f"{verb} {words[1]}" in commands():
            verb = f"{verb} {words[1]}"
        for word in words:
            option = word.partition("=")[0].strip("'\").")
            if option.startswith("--") and option not in options(verb):
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


def refusal(line: str, fix: str, found: str = "it is wrong") -> Refusal:
    return Refusal(tuple(line.split()), ROOT, f"{found}; expected better; try: {fix}")


@pytest.mark.parametrize(
    ("line", "fix", "lines"),
    [
        ("predict b f --out o.txt", "--out o.npz", ["predict b f --out o.npz --overwrite"]),
        ("predict b f --grid 8x8", "--grid 9x9 covers it, or --overwrite, or leave --out out",
         ["predict b f --grid 9x9 --overwrite", "predict b f --grid 8x8 --overwrite"]),
        ("data inspect f", "--layout NTHW, or --layout TCHW",
         ["data inspect f --layout NTHW", "data inspect f --layout TCHW"]),
        ("stream b f --keep-age 7", "--keep-age 7d",
         ["stream b f --keep-age 7d --idle-timeout 0.1"]),
        ("train r --set model.patch=4", "--set data.crop='[0, 0, 4, 6]' or another size",
         ["train r --set model.patch=4 --set data.crop='[0, 0, 4, 6]' --show"]),
        ("verify b", "stpl-deploy inspect b, or the path of your frames", ["inspect b"]),
        ("verify b", "stpl-deploy export RUN --out BUNDLE", []),
        ("predict b f", "--cadence SECONDS, or --time-format PATTERN", []),
        ("predict b f --out o.gif", "--out FILE.npz for many", []),
        ("predict b f --at noon", "--at 2026-05-01T12:00:00Z",
         ["predict b f --at 2026-05-01T12:00:00Z --overwrite"]),
        ("verify b", "check the file's path, then stpl-deploy verify b", []),
    ],
)  # fmt: skip
def test_what_can_be_typed_of_an_advice(line: str, fix: str, lines: list[str]) -> None:
    assert list(next_lines(refusal(line, fix))) == [shlex.split(text) for text in lines]


@pytest.mark.parametrize(
    ("fix", "wrong"),
    [
        ("--frames 3", "no such command line: error: no such option: --frames"),
        ("--layout NTHW", "the same again: error: no file or folder no-such-file.npy"),
        ("stpl-deploy data inspect other.npy", ""),  # another refusal
        ("stpl-deploy inspect tests/data/convlstm-tiny.bundle", ""),
        ("stpl-deploy models", ""),
    ],
)
def test_advice_that_does_not_lead_on_is_found(fix: str, wrong: str) -> None:
    found = "no file or folder no-such-file.npy"
    advised = refusal("data inspect no-such-file.npy", fix, found)
    (line,) = next_lines(advised)
    assert wrong in (typed(advised, line) or "")
    assert (typed(advised, line) is None) == (wrong == "")
