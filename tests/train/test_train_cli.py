"""`stpl-deploy train` as a person types it: one line for a mistake, the right exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stpl_core.errors import StplError
from stpl_core.metrics import mse_per_frame
from stpl_deploy.cli import app, verbs
from stpl_train.recipe import load_recipe
from stpl_train.run import open_run
from stpl_train.validation import forecasts, persistence_mse

verbs.register(app)

TINY = [
    "--set=model.hidden=4",
    "--set=model.layers=1",
    "--set=model.context_kernels=[3]",
    "--set=data.frame=[1,8,8]",
    "--set=data.digit_size=4",
    "--set=data.context=2",
    "--set=data.horizon=2",
    "--set=data.validation_sequences=2",
    "--set=training.batch=2",
    "--set=training.iterations=3",
]


def command(*arguments: str) -> tuple[int, str, str]:
    """Run in this process; errors as `main` shows them."""
    result = CliRunner().invoke(app, ["train", *arguments])
    if isinstance(result.exception, StplError):
        return result.exception.exit_code, result.stdout, f"error: {result.exception}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_trains_and_says_what_to_type_next(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, stdout, stderr = command("modernn-mini", "--out", str(out), "--device=cpu", *TINY)
    assert code == 0
    assert "persistence" in stdout
    assert f"next: stpl-deploy export {out} --out {out}.bundle" in stdout.replace("\n", " ")
    assert "iteration 3/3" in stderr
    code, stdout, _ = command("--resume", "--out", str(out), "--json", "--device=cpu")
    document = json.loads(stdout)
    assert code == 0
    assert document["finished"] is True
    assert len(document["mse_per_frame"]) == len(document["persistence_mse_per_frame"]) == 2
    code, stdout, stderr = command("--resume", "--out", str(out), "--quiet", "--device=cpu")
    assert code == 0
    assert "was trained already" in stdout
    assert stderr == ""


def test_a_run_is_never_told_to_be_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parents[1] / "data" / "modernn-mini", run)
    resume = f"stpl-deploy train --resume --out {run}"
    code, _, stderr = command("modernn-mini", "--out", str(run), "--device=cpu", *TINY)
    assert code == 2
    assert resume in stderr
    assert "remove" not in stderr
    code, _, stderr = command(str(run), "--resume")
    assert code == 2
    assert stderr.endswith(f"try: {resume}")


def test_resume_says_where_it_starts_afresh(tmp_path: Path) -> None:
    line = f"{tmp_path / 'new'} does not exist yet: starting it"
    arguments = ["modernn-mini", "--out", str(tmp_path / "new"), "--resume", "--device=cpu", *TINY]
    for starts in (True, False):
        code, _, stderr = command(*arguments)
        assert code == 0
        assert (line in stderr.splitlines()) == starts


def test_json_is_all_of_stdout_and_quiet_is_quiet(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run"), "--json", "--quiet", "--device=cpu"]
    code, stdout, stderr = command("modernn-mini", *out, *TINY)
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["iterations"] == 3


def test_lists_recipes() -> None:
    code, stdout, _ = command("--list")
    assert code == 0
    for name in ("modernn-mini", "modernn-mmnist", "convlstm-mmnist"):
        assert name in stdout


def test_the_small_trained_run_is_the_shipped_recipes() -> None:
    """And it beats persistence at every lead time by a quarter at least."""
    folder = Path(__file__).parents[1] / "data" / "modernn-mini"
    run = open_run(folder)
    assert run.recipe == load_recipe("modernn-mini")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1e6
    sequences = run.validation()
    context = run.recipe.data.context
    forecast = forecasts(run.model(), sequences, context, batch=16)
    mse = mse_per_frame(forecast, sequences[:, context:])
    assert (mse < 0.75 * persistence_mse(sequences, context)).all()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["modernn-mini"],
            2,
            "no --out; expected a run directory; try: stpl-deploy train modernn-",
        ),
        ([], 2, "no RECIPE; expected a .toml file or a shipped name; try: stpl-deploy train m"),
        (["--resume"], 2, "try: stpl-deploy train --resume --out RUN"),
        (["modernn-mini", "--out", "{tmp}/run", "--device", "gpu"], 2, "try: --device cuda"),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "data.path=x"],
            2,
            "try: --set data.source=archive, which has data.path (so has array)",
        ),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "model.patch=3"],
            2,
            "expected one of [1, 2, 4, 8, 16]; try: --set model.patch=2",
        ),
        (
            ["modernn-mini", "--out", "/proc/none/run"],
            4,
            "expected a directory that can be written",
        ),
        (["--out", "{tmp}/run"], 2, "no RECIPE"),
        (["modern-mini", "--out", "{tmp}/run"], 2, "try: stpl-deploy train modernn-mini"),
        (["nowhere.toml", "--out", "{tmp}/run"], 2, "no recipe file nowhere.toml"),
        (["modernn-mini", "--out", "{tmp}"], 2, "already exists"),
        (["modernn-mini", "--out", "{tmp}/run", "--device", "tpu"], 2, "--device tpu"),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "training.iteration=5"],
            2,
            "try: write training.iterations",
        ),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "data.digit=3"],
            2,
            "unknown key data.digit;",
        ),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "data.digit=3"],
            2,
            "try: write data.digits",
        ),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "data.digit_size=99"],
            2,
            "error: [data] digit_size 99 must not exceed the frame of 32x32;",
        ),
        (["modernn-mini", "--out", "{tmp}/run", "--set", "training.batch=no"], 2, "training.batch"),
        (["modernn-mini", "--out", "{tmp}/run", "--set", "batch"], 2, "section.key=value"),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "training.reverse_start=60000"],
            2,
            "reverse_start 60000 must be below reverse_end 50000",
        ),
        (["modernn-mini", "--out", "{tmp}/run", "--model", "none:None"], 2, "cannot be imported"),
        (["modern-mini", "--out", "{tmp}/run"], 2, "train modernn-mini --out {tmp}/run"),
        (
            ["modernn-mini", "--out", "{tmp}/run", "--set", "training.iterations=ten"],
            2,
            "training.iterations = 'ten'; expected an integer; try: --set training.iterations=10",
        ),
        (["--resume", "--out", "{tmp}/none"], 2, "is missing"),
        (["--resume", "--out", "{tmp}", "--set", "a.b=1"], 2, "without RECIPE"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    found, stdout, stderr = command(*filled)
    assert found == code
    assert message.replace("{tmp}", str(tmp_path)) in stderr
    assert "\n" not in stderr.strip()
    assert stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def shell(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stpl_deploy", "train", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_bad_data_in_a_real_process(tmp_path: Path) -> None:
    frames = np.zeros((40, 1, 8, 8), np.float32)
    frames[3, 0, 2, 2] = np.nan
    np.save(tmp_path / "own.npy", frames)
    (tmp_path / "own.toml").write_text(
        '[model]\nname = "convlstm"\n[data]\nsource = "array"\npath = "own.npy"\n'
        "[training]\niterations = 2\n"
    )
    done = shell(tmp_path, "own.toml", "--out", "run", "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr == (
        "error: own.npy has 1 values that are NaN or infinite; expected finite grey level in "
        "[0, 1]; try: mask or fill them first\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.npy", "own.toml"]


def test_a_model_from_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Still(torch.nn.Module):\n"
        "    def __init__(self, frame_shape):\n"
        "        super().__init__()\n"
        "        self.frame_shape = frame_shape\n"
        "        self.gain = torch.nn.Parameter(torch.ones(()))\n"
        "    def initial_state(self, batch):\n"
        "        return {'last': torch.zeros(batch, *self.frame_shape)}\n"
        "    def step(self, frame, state):\n"
        "        return self.gain * frame, {'last': frame}\n"
    )
    tiny = [setting for setting in TINY if "model." not in setting]
    out = ["--out", "run", "--device", "cpu", "--json"]
    done = shell(tmp_path, "modernn-mini", "--model", "mine:Still", *out, *tiny)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 1


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    long = [s for s in TINY if "iterations" not in s] + [
        "--set=training.iterations=100000",
        "--set=training.validate_every=2",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "stpl_deploy", "train", "modernn-mini", "--out", "run", *long],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "validation" in line:
                process.send_signal(signal.SIGINT)
                break
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "next: stpl-deploy train --resume --out run" in stdout
    assert (tmp_path / "run" / "training.safetensors").is_file()
