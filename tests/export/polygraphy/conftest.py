"""Tiny bundles of every model, and Polygraphy's command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.export.conftest import KEYS_OF_MODELS

_ALWAYS = ("convlstm", "modernn")
EVERY = [
    pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.soak) for name in KEYS_OF_MODELS
]
"""Two models of different kinds; the others only by hand: each takes seconds."""


_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"
"""Polygraphy loads it wherever it is installed, which takes seconds, for tensors we do not have."""

_SERVER = f"""{_WITHOUT_TORCH}
import contextlib, io, json, os, sys
from polygraphy.tools import main

for line in sys.stdin:
    folder, arguments = json.loads(line)
    os.chdir(folder)
    sys.argv = ["polygraphy", *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main() or 0
        except SystemExit as end:
            code = end.code or 0
        except Exception as error:
            print(repr(error))
            code = 1
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


@pytest.fixture(scope="session")
def path_with_polygraphy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path on which `polygraphy` is this Python's."""
    script = tmp_path_factory.mktemp("bin") / "polygraphy"
    code = f"{_WITHOUT_TORCH}from polygraphy.tools import main; sys.exit(main())"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    return (
        f"{script.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )


Polygraphy = Callable[[Path, Sequence[str]], tuple[int, str]]


@pytest.fixture(scope="session")
def polygraphy(path_with_polygraphy: str) -> Iterator[Polygraphy]:
    """Run Polygraphy's command line in a folder; one child process for all, to load it once."""
    child = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": path_with_polygraphy},
    )

    def run(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps([str(folder), list(arguments)]) + "\n")
        child.stdin.flush()
        code, said = json.loads(child.stdout.readline())
        return code, said

    yield run
    assert child.stdin is not None
    child.stdin.close()
    child.wait(30)
    assert child.stdout is not None
    child.stdout.close()
