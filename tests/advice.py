"""What error messages advise to type (`error: ...; try: THIS`): read, looked up, and typed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

_START = re.compile(r"(?:^|; |, or |, | or )(?=--[a-z]|stpl-deploy [a-z])")
_WORD = re.compile(r"""\s*((?:[^\s'"]|'[^']*'|"[^"]*")+)""")
_LEFT_OPEN = re.compile(
    r"\.\.\.|[<>…]|HxW|new\.\w+|"
    r"(?<![A-Za-z0-9/_%-])(?!(?:[NTCHW]{3,5}|CPU|GPU|UTC)\b)[A-Z][A-Z_]*(?![A-Za-z0-9/_%-])"
)
"""A part that only the user knows: `RUN`, `C,H,W`, `SECONDS`."""
_ADDED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "stream": (("--idle-timeout", "0.1"),),
    "serve": (("--idle-timeout", "0.1"), ("--port", "0")),
    "train": (("--show",),),
    "predict": (("--overwrite",),),
}
"""Options with which a verb ends by itself, does not train, and is not in its own way."""
_NOT_TYPED = ("demo", "new", "doctor", "data fetch")
"""Verbs that take minutes, ask, say the same whatever was wrong, or load from elsewhere."""
_EXPORT = ["export", "pretrained:radar-nowcast"]
"""Takes a quarter of a minute, reads nothing of the user's, and is advised by several messages."""
_led_on: set[tuple[str, ...]] = set()
"""Such lines that were typed and led on."""
_WAITS = ("--seconds",)
"""Options that wait longer for what never comes in a test."""


@dataclass(frozen=True)
class Refusal:
    """A command line that ended in one line of error."""

    words: tuple[str, ...]
    """Without the program's name."""
    folder: Path
    """Where it was typed."""
    message: str
    """From `error: ` on, without it."""

    @property
    def found(self) -> str:
        """What was wrong."""
        return re.split(r"; (?:expected|try:) ", self.message, maxsplit=1)[0]

    @property
    def fix(self) -> str:
        """What is advised; empty where nothing is."""
        return self.message.rpartition("; try: ")[2] if "; try: " in self.message else ""


@cache
def commands() -> Mapping[str, Any]:
    """Verb, such as `data convert`, -> its command; the program's own under no name."""
    import typer

    from stpl_deploy.cli import app, verbs

    before = list(app.registered_commands), list(app.registered_groups)
    try:
        verbs.register(app)  # all: a verb that ran before lists the others only
        found: dict[str, Any] = {}
        _collect(typer.main.get_command(app), "", found)
        return found
    finally:
        app.registered_commands, app.registered_groups = before


def _collect(command: Any, name: str, found: dict[str, Any]) -> None:
    found[name] = command
    for word, child in getattr(command, "commands", {}).items():
        _collect(child, f"{name} {word}".strip(), found)


@cache
def options(verb: str) -> Mapping[str, int]:
    """Option -> how many values follow it."""
    found = {"--help": 0, "-h": 0}
    for parameter in commands()[verb].params:
        count = 0 if getattr(parameter, "is_flag", False) else parameter.nargs
        found |= dict.fromkeys((*parameter.opts, *parameter.secondary_opts), count)
    return found


def verb_of(words: Sequence[str]) -> str:
    """`data inspect` of `data inspect FILE --json`."""
    return " ".join(words[:2]) if " ".join(words[:2]) in commands() else words[0]


def next_lines(refusal: Refusal) -> Iterator[list[str]]:
    """Each command line that the advice offers and that can be typed as it stands."""
    for start in _START.finditer(refusal.fix):
        rest = refusal.fix[start.end() :]
        if rest.startswith("stpl-deploy "):
            line = _whole(list(_words(rest))[1:])
        else:
            line = _changed(refusal.words, list(_words(rest)))
        if line and verb_of(line) not in _NOT_TYPED:
            yield line


def _words(text: str) -> Iterator[str]:
    """Up to the first one with a comma or semicolon behind it, in the shell's reading."""
    for match in _WORD.finditer(text):
        word = match[1]
        bare = word.rstrip(",;")
        try:
            yield from shlex.split(bare)
        except ValueError:  # an apostrophe: no longer a command
            return
        if bare != word:
            return


def _whole(words: list[str]) -> list[str] | None:
    """A command line that begins anew; None where a part of it is left open."""
    if not words or verb_of(words) not in commands():
        return None
    verb = verb_of(words)
    head = verb.split()
    line = [*head, *_understood(verb, words[len(head) :])]
    needed = sum(
        one.param_type_name == "argument" and one.required for one in commands()[verb].params
    )
    if any(map(_LEFT_OPEN.search, line)) or len(line) < len(head) + needed:
        return None
    return _completed(verb, line)


def _understood(verb: str, words: list[str]) -> Iterator[str]:
    """As many words as the verb has places for: what follows them is said, not typed."""
    known = options(verb)
    places = sum(one.param_type_name == "argument" for one in commands()[verb].params)
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            yield word
            for _ in range(known.get(word, 0)):
                if words:
                    yield words.pop(0)
        elif places:
            places -= 1
            yield word
        else:
            return


def _changed(before: Sequence[str], words: list[str]) -> list[str] | None:
    """The command line that was refused, with the advised options for those of the same name."""
    if not before or verb_of(before) not in commands():
        return None
    verb = verb_of(before)
    known = options(verb)
    line = list(before)
    while words and words[0].startswith("--"):
        name, _, joined = words.pop(0).partition("=")
        count = 0 if joined else known.get(name, 0)
        values, words = words[:count], words[count:]
        if any(map(_LEFT_OPEN.search, values)) or len(values) < count or name in _WAITS:
            return None
        if name in line and name not in ("--set", "--select", "--source-option"):
            at = line.index(name)
            del line[at : at + 1 + known.get(name, 0)]
        line += [name, *values]
    return _completed(verb, line)


def _completed(verb: str, line: list[str]) -> list[str]:
    for name, *values in _ADDED.get(verb, ()):
        if name not in line:
            line += [name, *values]
    return line


def typed(refusal: Refusal, line: Sequence[str]) -> str | None:
    """Type a line that was advised.

    Returns:
        What is wrong with the advice; None where it leads on, be it to another refusal.
    """
    from stpl_deploy import cli

    if tuple(line) in _led_on:
        return None
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape") for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as here,
        TemporaryDirectory() as scratch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        here.chdir(refusal.folder)
        code = cli.run(_written_to(Path(scratch), line, refusal.words))
    err.seek(0)
    said = err.read()
    shown = f"{shlex.join(refusal.words)}\nadvises: {refusal.fix}\ntyped:   {shlex.join(line)}\n"
    if code == 1:
        return f"{shown}a bug: {said}"
    if code and f"error: {refusal.found}" in said:
        return f"{shown}the same again: {said}"
    if code and re.search(r"; try: stpl-deploy[a-z ]* --help$", said, re.MULTILINE):
        return f"{shown}no such command line: {said}"
    if line[:2] == _EXPORT:
        _led_on.add(tuple(line))
    return None


def _written_to(folder: Path, line: Sequence[str], before: Sequence[str]) -> list[str]:
    """The line, with a new `--out` that names no folder in `folder`: it may lie in the project."""
    words = list(line)
    if "--out" in words:
        at = words.index("--out") + 1
        if words[at] not in before and not Path(words[at]).is_absolute():
            words[at] = str(folder / words[at])
    return words


def refusal_of(
    words: Sequence[object], folder: str | os.PathLike[str], errors: str
) -> Refusal | None:
    """What a process wrote to stderr, as a refusal; None where it holds none."""
    found = re.search(r"^error: (.*)$", errors, re.MULTILINE)
    return Refusal(tuple(map(str, words)), Path(folder), found[1]) if found else None
