"""The steps of runtime/deploy/Dockerfile without Docker: in a fresh folder, by an ordinary user.

    sudo python benchmarks/container_steps.py          with the Dockerfile's own user
    python benchmarks/container_steps.py               as whoever runs it

Reads the instructions from the Dockerfile. COPY, RUN and ENV of the build are done below a
temporary folder, which stands for `/`. Then the environment belongs to root, the entry point is
started with --help and with `stream --page`, and the HEALTHCHECK's command must fail before there
is a page, pass while it is up, and fail once it has gone. Needs a package index. What only an
image has is not tried: its base, its root file system, its limits.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "runtime" / "deploy" / "Dockerfile"
BUNDLE = ROOT / "tests" / "data" / "convlstm-tiny.bundle"
_PLACES = ("/opt/", "/src", "/out", "/state", "/tmp/cache")
"""Absolute paths of the image that lie below the temporary folder here."""
_WAIT_S = 120
_TAKEN = ("COPY", "ENV", "LABEL", "EXPOSE", "FROM", "WORKDIR")


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile of two stages, as far as it is done here."""

    copied: tuple[str, ...]
    """What the build stage copies out of the checkout."""
    runs: tuple[str, ...]
    """Of the build stage, arguments filled in."""
    user_name: str
    """That the last stage makes."""
    uid: int
    environment: Mapping[str, str] = field(default_factory=dict)
    entry: tuple[str, ...] = ()
    health: tuple[str, ...] = ()


def instructions(text: str) -> list[tuple[str, str]]:
    """Each with its words in one line; without remarks."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.partition(" ") for line in whole.splitlines() if line.strip()]
    return [(word.upper(), rest.strip()) for word, _, rest in pairs]


def read(path: Path = DOCKERFILE) -> Recipe:
    """What it says to do.

    Raises:
        ValueError: it has an instruction that is not known here.
    """
    build, last = _stages(instructions(path.read_text()))
    defaults = dict(value.split("=", 1) for word, value in build if word == "ARG" and "=" in value)
    known = {*_TAKEN, "ARG", "RUN", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    if strange := {word for word, _ in (*build, *last)} - known:
        raise ValueError(f"{path.name}: {', '.join(strange)} is not done here")
    runs = [_filled(value, defaults) for word, value in build if word == "RUN"]
    made = [value for word, value in last if word == "RUN"]
    user = re.search(r"useradd .*--uid (\d+) (\w+)", made[0])
    assert user is not None, "the last stage makes a user first"
    of = {word: value for word, value in last if word not in ("RUN", "ENV", "COPY")}
    assert of["USER"].split(":")[0] == user[1], "the user that was made"
    variables = " ".join(value for word, value in last if word == "ENV")
    return Recipe(
        copied=tuple(
            name for word, value in build if word == "COPY" for name in value.split()[:-1]
        ),
        runs=tuple(runs),
        user_name=user[2],
        uid=int(user[1]),
        environment=dict(word.split("=", 1) for word in shlex.split(variables)),
        entry=tuple(json.loads(of["ENTRYPOINT"])),
        health=tuple(json.loads(of["HEALTHCHECK"].partition("CMD ")[2])),
    )


def _stages(
    lines: Sequence[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    begins = [number for number, (word, _) in enumerate(lines) if word == "FROM"]
    assert len(begins) == 2, "a stage that builds, and one that runs"
    return [*lines[begins[0] : begins[1]]], [*lines[begins[1] :]]


def _filled(line: str, arguments: Mapping[str, str]) -> str:
    for name, value in arguments.items():
        line = line.replace(f"${{{name}}}", value)
    return line


@contextmanager
def _the_user(recipe: Recipe) -> Iterator[int]:
    """Its number: made for the time, where root runs this; else that of whoever runs it."""
    if os.getuid() != 0:
        yield os.getuid()
        return
    try:
        there = pwd.getpwuid(recipe.uid)
    except KeyError:
        make = ["useradd", "--no-log-init", "--user-group", "--no-create-home"]
        subprocess.run([*make, "--uid", str(recipe.uid), recipe.user_name], check=True)
        try:
            yield recipe.uid
        finally:
            subprocess.run(["userdel", recipe.user_name], check=True)
    else:
        raise SystemExit(f"the number {recipe.uid} is {there.pw_name}'s here")


@dataclass(frozen=True)
class Place:
    """The folder that stands for `/`, and who works in it."""

    root: Path
    uid: int
    python: Path

    def path(self, text: str) -> str:
        """A text of the Dockerfile with the image's places below the folder."""
        for place in _PLACES:
            text = re.sub(rf"(?<![\w/]){re.escape(place)}", f"{self.root}{place}", text)
        return text

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Of a program: pip's own settings are this machine's."""
        kept = {name: os.environ[name] for name in os.environ if name.startswith("PIP_")}
        path = f"{self.python.parent}:/usr/bin:/bin"
        given = {"PATH": path, "HOME": str(self.root / "home"), "LANG": "C.UTF-8", **kept}
        for name, value in more.items():
            given[name] = self.path(value).replace("$PATH", path)
        return given

    def start(
        self, words: Sequence[str] | str, more: Mapping[str, str], folder: str
    ) -> subprocess.Popen[str]:
        """A program of the user; a text goes to the shell, as RUN does."""
        root = os.getuid() == 0
        return subprocess.Popen(
            ["/bin/sh", "-c", words] if isinstance(words, str) else [*words],
            env=self.environment(more),
            cwd=self.root / folder,
            user=self.uid if root else None,
            group=self.uid if root else None,
            extra_groups=[] if root else None,
            text=True,
        )

    def run(self, words: Sequence[str] | str, more: Mapping[str, str], folder: str = "home") -> int:
        """Its exit code."""
        return self.start(words, more, folder).wait()

    def health(self, recipe: Recipe, more: Mapping[str, str]) -> int:
        """What Docker would be answered: 0 is healthy."""
        words = shlex.join(recipe.health)
        return self.run(f"{words} 2>/dev/null", more)


def build(recipe: Recipe, place: Place) -> None:
    """The first stage, and what the second takes over from it."""
    for name in ("home", "src", "opt", "out", "state", "frames"):
        (place.root / name).mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in recipe.copied:
        here, there = ROOT / name, place.root / "src" / name
        if here.is_dir():
            shutil.copytree(here, there, ignore=ignore)
        else:
            shutil.copy(here, there)
    shutil.copytree(BUNDLE, place.root / "bundle")
    _write_frames(place.root / "frames")
    _give(place.root, place.uid)
    for line in recipe.runs:
        print(f"RUN {line}", flush=True)
        if code := place.run(place.path(line), {}, "src"):
            raise SystemExit(f"exit {code}")
    _give(place.root / "opt", 0)  # as COPY --from does: the program may not change itself
    shutil.rmtree(place.root / "src")


def _give(folder: Path, uid: int) -> None:
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", f"{uid}:{uid}", str(folder)], check=True)


def _write_frames(folder: Path) -> None:
    """Twelve pictures, a minute apart, in the plainest of formats."""
    for minute in range(12):
        pixels = bytes(200 if minute <= n % 16 < minute + 4 else 0 for n in range(256))
        (folder / f"20240101_00{minute:02d}00.pgm").write_bytes(b"P5 16 16 255\n" + pixels)


def try_it(recipe: Recipe, place: Place) -> None:
    """The entry point, and its health before, while and after there is a page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    more = {**recipe.environment, "STPL_PORT": port}
    names = [place.path(recipe.entry[0]), *recipe.entry[1:]]
    program = [str(shutil.which(names[0], path=place.environment(more)["PATH"])), *names[1:]]
    assert program[0].startswith(str(place.root)), program
    _expect("--help", place.run([*program, "--help"], more), 0)
    _expect("health without a page", place.health(recipe, more) != 0, True)
    words = ["stream", "../bundle", "../frames", "--page", "--policy", "pace", "--max-age", "none"]
    words += ["--cadence", "60", "--stale-after", "1h", "--sink", "npz:../out"]
    stream = place.start([*program, *words], more, "home")
    try:
        end = time.monotonic() + _WAIT_S
        while (code := place.health(recipe, more)) and time.monotonic() < end:
            assert stream.poll() is None, "the stream has ended"
            time.sleep(1)
        _expect("health of the page", code, 0)
    finally:
        stream.send_signal(signal.SIGTERM)
        code = stream.wait(timeout=60)
    _expect("the stream's end after SIGTERM", code, 0)
    _expect("nowcasts that were written", any((place.root / "out").iterdir()), True)
    _expect("health after the end", place.health(recipe, more) != 0, True)


def _expect(what: str, found: int | bool, expected: int | bool) -> None:
    print(f"{'right' if found == expected else 'WRONG'}: {what}: {found}", flush=True)
    if found != expected:
        raise SystemExit(1)


def main() -> None:
    """Build, try, remove."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--python", type=Path, default=Path("/usr/bin/python3"), help="that every user may run"
    )
    python = parser.parse_args().python
    recipe = read()
    with tempfile.TemporaryDirectory(prefix="container-") as folder, _the_user(recipe) as uid:
        os.chmod(folder, 0o755)
        place = Place(Path(folder), uid, python)
        build(recipe, place)
        try_it(recipe, place)
        print(f"as user {uid}: every step done")


if __name__ == "__main__":
    main()
