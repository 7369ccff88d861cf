"""The command line itself: help, versions, typos, and how every kind of failure ends."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stpl_deploy import __version__
from stpl_deploy.cli import as_fault, verbs

Cli = Callable[..., subprocess.CompletedProcess[str]]

# pydantic is not among them: newer versions of typer read options by it.
HEAVY = (
    "cv2", "h5py", "lightning_fabric", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript",
    "pandas", "PIL", "rich", "safetensors", "scipy", "sklearn", "stpl_export",
    "stpl_runtime", "stpl_train", "tensorrt", "torch", "watchfiles", "xarray", "zarr",
)  # fmt: skip

HELP = """
import contextlib, io, json, sys
from stpl_deploy.cli import run, verbs
for words in [["--help"], *([verb, "--help"] for verb in verbs.VERBS)]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(words) == 0, words
    assert "Usage: stpl-deploy" in out.getvalue()
    assert len(out.getvalue().splitlines()) > 3, words
print(json.dumps(sorted(sys.modules)))
"""


def python(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, timeout=60, **options,
    )  # fmt: skip


def test_help_of_every_verb_imports_nothing_heavy() -> None:
    done = python(HELP)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_help_lists_the_verbs_in_their_order(cli: Cli) -> None:
    for arguments in (("--help",), ()):
        done = cli(*arguments)
        assert done.returncode == 0
        listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines()[1:]
                  if line.startswith("  ") and line[2] != " "]  # fmt: skip
        assert listed == list(verbs.VERBS)
        assert "..." not in done.stdout.partition("Commands:")[2]  # what a verb is for is not cut


@pytest.mark.parametrize("group", ["data", "parts"])
def test_a_group_alone_prints_its_help(cli: Cli, group: str) -> None:
    done = cli(group)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == cli(group, "--help").stdout
    assert "..." not in done.stdout.partition("Commands:")[2]


def test_inspect_in_short_lines(cli: Cli, root: Path) -> None:
    pytest.importorskip("torch")
    done = cli("inspect", root / "tests" / "data" / "modernn-mini")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()[1:]}
    assert re.fullmatch(r"modernn, \d+,\d{3} parameters", lines["model"])
    assert re.fullmatch(r"\d+ tensors, \d+ KiB for each stream", lines["state"])
    assert re.fullmatch(r"iteration [\d,]+ of [\d,]+, loss [\d.]+", lines["trained"])
    assert re.fullmatch(r"MSE per frame [\d.]+, persistence 42.41", lines["validation"])
    assert max(map(len, done.stdout.splitlines())) < 200
    raw = json.loads(cli("inspect", root / "tests" / "data" / "modernn-mini", "--json").stdout)
    assert "mse_10" in raw["last"]


def test_inspect_says_whose_accuracy_it_shows(cli: Cli, root: Path) -> None:
    bundle = root / "tests" / "data" / "modernn-mini.bundle"
    done = cli("inspect", bundle)
    assert "grey level in [0, 1]\n" in done.stdout
    assert f"as recorded by export; stpl-deploy verify {bundle} measures here" in done.stdout


def test_what_holds_no_model_may_hold_frames(cli: Cli, root: Path, tmp_path: Path) -> None:
    done = cli("inspect", tmp_path)
    assert done.returncode == 2
    assert f"try: stpl-deploy data inspect {tmp_path}, if it holds frames" in done.stderr
    assert "try: check the path" in cli("inspect", tmp_path / "none").stderr
    for name, what in (("modernn-mini.bundle", "a bundle"), ("modernn-mini", "a run")):
        model = root / "tests" / "data" / name
        done = cli("data", "inspect", model)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"{model} is {what}; expected frames" in done.stderr


def test_an_exported_bundle_is_not_exported_again(cli: Cli, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = cli("export", root / "tests" / "data" / "modernn-mini.bundle", "--out", tmp_path / "b")
    assert done.returncode == 2
    assert "is a bundle; expected" in done.stderr
    assert "try: the run that it was exported from" in done.stderr


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"stpl-deploy {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("exprot",), ("'exprot'", "'export'", "stpl-deploy --help")),
        (("verify",), ("missing argument", "stpl-deploy verify --help")),
        (("predict", "b", "f", "--out"), ("requires an argument", "stpl-deploy predict --help")),
        (("stream", "b", "f", "--on-gap", "x"), ("invalid value for '--on-gap': 'x' is not",)),
        (("verify", "b", "--enigne", "x"), ("--enigne", "--engine", "stpl-deploy verify --help")),
        (("verify", "b", "--threads", "zero"), ("--threads", "integer")),
        (("verify", "b", "--threads", "0"), ("--threads", "1")),
        (("verify", "b", "c"), ("unexpected", "c")),
        (("--verbose",), ("--verbose",)),
        (("verify", "nowhere"), ("no directory nowhere", "stpl-deploy export")),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


FAILING = """
from stpl_deploy.cli import app, run
from stpl_core.errors import *
@app.command("fail")
def fail():
    import os, signal
    {failure}
raise SystemExit(run(["fail"]))
"""
# A shell lets what it starts in the background ignore this signal; Python then keeps it so.
INTERRUPTED = """signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()"""


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        ("raise RecipeError('a\\nb', fix='c')", 2, "error: a b; try: c"),
        ("raise AccuracyError('a')", 3, "error: a"),
        ("raise MissingExtraError('torch', 'train')", 4, "pip install 'stpl-deploy[train]"),
        ("raise SourceLostError('a')", 5, "error: a"),
        (INTERRUPTED, 130, "interrupted"),
        ("raise MemoryError", 4, "error: out of memory"),
        ("bytearray(1 << 60)", 4, "error: out of memory"),
        ("open('/' + 'x' * 300, 'w')", 4, "name too long"),
        ("raise SystemExit(3)", 3, ""),
    ],
)
def test_how_a_failure_ends(failure: str, code: int, words: str) -> None:
    done = python(FAILING.format(failure=failure))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") <= 1
    assert done.stdout == ""


def test_a_bug_shows_its_traceback_and_asks_for_a_report() -> None:
    done = python(FAILING.format(failure="{}['key']"))
    assert done.returncode == 1
    assert "KeyError: 'key'" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "Please report" in last
    assert "stpl-deploy doctor" in last


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stpl_deploy", "--help"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "stpl_deploy", "--help"],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_failures_of_the_machine_are_not_bugs(number: int) -> None:
    fault = as_fault(OSError(number, os.strerror(number), "place"))
    assert fault is not None
    assert fault.exit_code == 4
    assert fault.found == f"place: {os.strerror(number)}"
    assert fault.fix
    assert as_fault(OSError(errno.ENOENT, "no")) is None
    assert as_fault(ValueError("no")) is None
