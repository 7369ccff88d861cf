"""kill -9 at any moment, then --resume: the same weights and the same log as undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.what_writes import tiny_recipe

# A process that imports once and forks a child for each line `out where count`: the child trains
# and dies of SIGKILL at the count-th step, rename or write. The answer is the child's exit code.
HOST = """
import os, signal, sys
from pathlib import Path
import sklearn.datasets, torch.utils.tensorboard  # imported once, for all children
from stpl_train import trainer, training
from stpl_train.recipe import load_recipe

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying(function, count, before):
    left = [count]
    def wrapped(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and before:
            die()
        result = function(*args, **kwargs)
        if left[0] == 0:
            die()
        return result
    return wrapped

def torn(handle):
    try:
        os.ftruncate(handle, os.fstat(handle).st_size // 2)
    finally:  # a directory cannot be torn, but it is a moment to die all the same
        die()

def child(out, where, count):
    if where == "step":
        trainer.Trainer._step = dying(trainer.Trainer._step, count, True)
    elif where in ("rename", "renamed"):
        Path.replace = dying(Path.replace, count, where == "rename")
    elif where == "write":
        real, left = os.fsync, [count]
        def fsync(handle):
            left[0] -= 1
            torn(handle) if left[0] == 0 else real(handle)
        os.fsync = fsync
    assert training.train(load_recipe(sys.argv[1]), Path(out), device="cpu", resume=True).finished

for line in sys.stdin:
    out, where, count = line.split()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(out, where, int(count))
            code = 0
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

Go = Callable[..., int]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "recipe.toml"
    path.write_text(tiny_recipe(30, validate_every=5, checkpoint_every=3))
    return path


@pytest.fixture(scope="module")
def go(recipe: Path) -> Iterator[Go]:
    """Train with --resume in a process that may be killed; its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", HOST, str(recipe)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        orders, answers = host.stdin, host.stdout

        def send(out: Path, where: str = "never", count: int = 0) -> int:
            print(out, where, count, file=orders, flush=True)
            return int(answers.readline())

        yield send
        orders.close()
        host.wait(timeout=60)


@pytest.fixture(scope="module")
def undisturbed(go: Go, recipe: Path) -> Path:
    out = recipe.parent / "undisturbed"
    assert go(out) == 0
    return out


KILLS = [
    ("write", 2),  # while the run directory is made: nothing of it is there afterwards
    ("step", 20),  # in the middle of iteration 10, after validations and checkpoints
    ("rename", 4),  # a new file is whole, but not yet in place
    ("renamed", 5),  # weights or log are newer than the state
    ("write", 7),  # a file is half-written
]


def test_killed_again_and_again(go: Go, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for where, count in KILLS:
        assert go(out, where, count) == -signal.SIGKILL
    assert go(out) == 0
    for name in ("weights.safetensors", "training.safetensors", "metrics.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("count", [1, 8, 21])
@pytest.mark.parametrize("where", ["step", "rename", "renamed", "write"])
def test_killed_once_anywhere(
    go: Go, undisturbed: Path, tmp_path: Path, where: str, count: int
) -> None:
    out = tmp_path / "run"
    assert go(out, where, count) == -signal.SIGKILL
    assert go(out) == 0
    for name in ("weights.safetensors", "training.safetensors", "metrics.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_killed_from_outside_while_it_trains(
    go: Go, recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The moment is that at which a line of the log shows up, wherever the process then is."""
    out = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", "stpl_deploy", "train", str(recipe), "--out", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "iteration 10/30" in line:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert go(out) == 0
    for name in ("weights.safetensors", "metrics.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
