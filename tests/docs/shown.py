"""What the pages show: command lines after `$ ` with what they print, and Python.

A block of `console` holds command lines and their output; in it `...` stands for anything, also for
whole lines. A block of `python` that begins with a comment of a file's name is that file.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shown:
    """A command line and the lines that are shown below it."""

    line: str
    printed: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """A block of Python."""

    text: str


def shown_on(page: str) -> list[Shown | Code]:
    """What a page's text shows, in its order."""
    found: list[Shown | Code] = []
    blocks = re.findall(r"^```(console|python)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    for kind, block in blocks:
        if kind == "python":
            found.append(Code(block))
            continue
        for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            line, *printed = part.splitlines()
            found.append(Shown(" ".join(line.split()), tuple(printed)))
    return found


def typed_instead(shown: Shown, instead: dict[str, str]) -> Shown:
    """The same with other words in place of some, such as the size of smaller frames."""
    line, printed = shown.line, "\n".join(shown.printed)
    for theirs, ours in instead.items():
        line, printed = line.replace(theirs, ours), printed.replace(theirs, ours)
    return Shown(line, tuple(printed.splitlines()))


def missing(printed: tuple[str, ...], got: list[str]) -> str | None:
    """The first line of `printed` that `got` does not hold in its place; None: all are there."""
    at, free = 0, False
    for line in printed:
        if line == "...":
            free = True
            continue
        pattern = ".*".join(map(re.escape, line.split("...")))
        hits = [n for n in range(at, len(got)) if re.fullmatch(pattern, got[n].rstrip())]
        if not hits or (not free and hits[0] != at):
            return line
        at, free = hits[0] + 1, False
    return None


class _Terminal(io.StringIO):
    """Takes stdout and stderr; types Ctrl-C once all that is shown of a page was printed."""

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._shown = shown
        self._serves = any(line.startswith("page: ") for line in shown.printed)

    def write(self, text: str) -> int:
        count = super().write(text)
        if self._serves and missing(self._shown.printed, self.lines()) is None:
            self._serves = False
            os.kill(os.getpid(), signal.SIGINT)
        return count

    def lines(self) -> list[str]:
        """Whole lines so far."""
        return self.getvalue().split("\n")[:-1]


def run_code(code: Code) -> None:
    """Run a block of Python, or write the file that it is."""
    name = re.match(r"# (\w+\.py)\n", code.text)
    if name:
        Path(name.group(1)).write_text(code.text)
    else:
        exec(compile(code.text, "block", "exec"), {})


def run_shown(shown: Shown) -> None:
    """Type a command line in this process.

    Raises:
        AssertionError: it failed, or did not print what is shown.
    """
    from stpl_deploy.cli import run

    words = shlex.split(shown.line)
    assert words.pop(0) == "stpl-deploy", shown.line
    terminal = _Terminal(shown)
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        code = run(words)
    printed = f"$ {shown.line}\n{terminal.getvalue()}"
    assert code == 0, printed
    lost = missing(shown.printed, terminal.lines())
    assert lost is None, f"{printed}\nlacks {lost}"
