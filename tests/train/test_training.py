"""The training loop: it learns, keeps the best, logs, and goes on exactly where it stopped."""

from __future__ import annotations

import csv
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.try_recipes import narrow
from stpl_core.errors import (
    DivergedError,
    RecipeError,
    RunError,
    SinkError,
    StplError,
    UsageError,
)
from stpl_core.safety.trust import trust_model
from stpl_train import interrupt
from stpl_train.checkpoint import ValidationRow, load_training
from stpl_train.progress import Plain, Quiet
from stpl_train.recipe import Recipe, load_recipe, parse_recipe
from stpl_train.run import TRAINING, open_run
from stpl_train.training import train
from stpl_train.unroll import TrainingPass


def tiny(**training: Any) -> Recipe:
    """A model and frames so small that an iteration takes about 20 ms."""
    return parse_recipe(
        {
            "model": {"name": "convlstm", "hidden": [4], "kernel": 3, "patch": 2},
            "data": {
                "source": "moving-mnist",
                "frame": [1, 8, 8],
                "digit_size": 4,
                "context": 3,
                "horizon": 3,
                "digits": 1,
                "validation_sequences": 4,
            },
            "training": {
                "iterations": 12,
                "batch": 4,
                "lr": 1e-2,
                "validate_every": 4,
                "checkpoint_every": 3,
                **training,
            },
        }
    )


class StopAt(Quiet):
    """Sends this process a signal after an iteration, as a person or a scheduler would."""

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        self.at, self.number = at, number

    def wants_step(self) -> bool:
        return True

    def step(self, done: int, loss: float) -> None:
        if done == self.at:
            os.kill(os.getpid(), self.number)


def bytes_of(run: Path) -> dict[str, bytes]:
    return {
        name: (run / name).read_bytes()
        for name in ("weights.safetensors", "training.safetensors", "metrics.csv", "recipe.toml")
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(tiny(), out, device="cpu").finished
    return out


def test_run_directory(undisturbed: Path) -> None:
    run = open_run(undisturbed)
    assert run.validation().shape == (4, 6, 1, 8, 8)
    assert sum(p.numel() for p in run.model().parameters()) > 0
    names = sorted(path.name for path in undisturbed.iterdir())
    assert names == [
        "metrics.csv",
        "recipe.toml",
        "samples",
        "tensorboard",
        "training.safetensors",
        "validation.npz",
        "weights.safetensors",
    ]
    assert sorted(p.name for p in (undisturbed / "samples").iterdir()) == [
        "000004.png",
        "000008.png",
        "000012.png",
    ]
    with Image.open(undisturbed / "samples" / "000012.png") as picture:
        assert picture.size == (6 * (64 + 2), 2 * 3 * (64 + 2))
    assert list((undisturbed / "tensorboard").iterdir())


def test_metrics_are_those_of_the_kept_weights(undisturbed: Path) -> None:
    run = open_run(undisturbed)
    with (undisturbed / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == [4, 8, 12]
    best = min(rows, key=lambda row: float(row["mse"]))
    frames = torch.from_numpy(run.validation())
    from stpl_train.forecaster import rollout

    with torch.no_grad():
        guess = rollout(run.model(), frames[:, :3], 3).clamp(0, 1).numpy()
    truth = run.validation()[:, 3:]
    still = run.validation()[:, 2:3]
    for lead in range(3):
        error = np.square(guess[:, lead].astype(np.float64) - truth[:, lead]).sum() / 4
        assert float(best[f"mse_{lead + 1}"]) == pytest.approx(error, rel=1e-6)
        still_error = np.square(still[:, 0].astype(np.float64) - truth[:, lead]).sum() / 4
        assert float(best[f"persistence_{lead + 1}"]) == pytest.approx(still_error)
    assert float(best["mse"]) == pytest.approx(
        np.mean([float(best[f"mse_{lead}"]) for lead in (1, 2, 3)])
    )


def test_overfits_one_window(tmp_path: Path) -> None:
    """Two windows of noise are learnt by heart: the loss falls to a small part."""
    noise = np.random.default_rng(0).random((2, 6, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    recipe = parse_recipe(
        {
            "model": {"name": "convlstm", "hidden": [24], "kernel": 3, "patch": 2},
            "data": {
                "source": "array",
                "path": str(tmp_path / "noise.npy"),
                "context": 3,
                "horizon": 3,
                "validation_fraction": 0.5,
            },
            "training": {
                "iterations": 300,
                "batch": 1,
                "lr": 1e-2,
                "reversed_pass": False,
                "sampling_until": 0.0,
                "validate_every": 50,
            },
        }
    )
    result = train(recipe, tmp_path / "run", device="cpu")
    assert result.finished
    losses = [row.loss for row in load_training(tmp_path / "run" / TRAINING).progress.rows]
    assert losses[-1] < 0.25 * losses[0]


@pytest.mark.parametrize("at", [1, 4, 7, 9])
def test_interrupted_and_resumed_is_bit_identical(
    undisturbed: Path, tmp_path: Path, at: int
) -> None:
    out = tmp_path / "run"
    stopped = train(tiny(), out, device="cpu", reporter=StopAt(at))
    # The wish comes while iteration `at` is reported: the next one is finished and saved. Where a
    # validation comes first (every 4), that is left for later.
    expected = at if at % 4 == 0 else at + 1
    assert (stopped.stopped_by, stopped.iterations) == (signal.SIGINT, expected)
    assert not stopped.finished
    resumed = train(None, out, resume=True, device="cpu")
    assert resumed.finished
    assert bytes_of(out) == bytes_of(undisturbed)


def test_random_windows_and_lead_times_are_resumed_too(tmp_path: Path) -> None:
    """Augmented data, drawn lead times, calibrated chances; in the recipe's own sizes but small."""
    narrowed = narrow("radar-nowcast", 4, tmp_path, validate_every=2, checkpoint_every=1)
    data = narrowed.data.model_copy(update={"frame": (1, 32, 32), "validation_sequences": 1})
    recipe = narrowed.model_copy(update={"data": data})
    for out, at in ((tmp_path / "whole", 99), (tmp_path / "parts", 1)):
        train(recipe, out, device="cpu", reporter=StopAt(at))
    resumed = train(None, tmp_path / "parts", resume=True, device="cpu")
    assert resumed.finished
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")
    weights = load_training(tmp_path / "parts" / TRAINING).weights
    assert weights["trust"].unique().numel() > 2


def test_a_loss_of_events_needs_a_model_that_forecasts_them(tmp_path: Path) -> None:
    events = load_recipe("radar-nowcast")
    recipe = tiny().model_copy(update={"training": events.training})
    with pytest.raises(RecipeError, match=r"ConvLSTM, which forecasts no events.*--model advect"):
        train(recipe, tmp_path / "run", device="cpu")
    one = load_recipe("radar-nowcast", ["training.leads.events=[1.0]"]).training
    recipe = tiny().model_copy(update={"model": events.model, "training": one})
    with pytest.raises(RecipeError, match=r"has 1 weights; expected 6.*events='\[1.0, 1.0"):
        train(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_sigterm_saves_too(undisturbed: Path, tmp_path: Path) -> None:
    stopped = train(tiny(), tmp_path / "run", device="cpu", reporter=StopAt(5, signal.SIGTERM))
    assert (stopped.stopped_by, stopped.iterations) == (signal.SIGTERM, 6)
    train(tiny(), tmp_path / "run", resume=True, device="cpu")
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed)


@pytest.mark.parametrize("at", [1, 7])
def test_an_iteration_that_takes_long_is_left_off(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(interrupt, "PATIENCE_S", 0.0)
    stopped = train(tiny(), tmp_path / "run", device="cpu", reporter=StopAt(at, signal.SIGTERM))
    assert (stopped.stopped_by, stopped.iterations) == (signal.SIGTERM, at)
    train(None, tmp_path / "run", resume=True, device="cpu")
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed)


def test_an_iteration_whose_weights_changed_is_finished(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wish comes in the reversed pass: the first one has moved the weights already."""
    monkeypatch.setattr(interrupt, "PATIENCE_S", 0.0)
    forward, calls = TrainingPass.forward, []

    def counted(self: TrainingPass, frames: Any, use_true: Any) -> Any:
        calls.append(None)
        if len(calls) == 6:  # the second pass of the third iteration
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, frames, use_true)

    monkeypatch.setattr(TrainingPass, "forward", counted)
    stopped = train(tiny(), tmp_path / "run", device="cpu")
    assert (stopped.stopped_by, stopped.iterations) == (signal.SIGTERM, 3)
    train(None, tmp_path / "run", resume=True, device="cpu")
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed)


def test_training_in_a_thread(undisturbed: Path, tmp_path: Path) -> None:
    """No signal handlers there, and the caller's random numbers are left alone."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(tiny(), tmp_path / "run", device="cpu")
    torch.testing.assert_close(torch.rand(1), expected, rtol=0, atol=0)
    thread = threading.Thread(
        target=train, args=(tiny(), tmp_path / "two"), kwargs={"device": "cpu"}
    )
    thread.start()
    thread.join()
    assert bytes_of(tmp_path / "two") == bytes_of(undisturbed)


def test_a_finished_run_has_nothing_to_do(undisturbed: Path) -> None:
    before = bytes_of(undisturbed)
    result = train(tiny(), undisturbed, resume=True, device="cpu")
    assert (result.already, result.finished) == (True, True)
    assert len(result.mse) == 3
    assert bytes_of(undisturbed) == before


def test_resume_without_a_run_starts_it(undisturbed: Path, tmp_path: Path) -> None:
    assert train(tiny(), tmp_path / "run", resume=True, device="cpu").finished
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed)
    with pytest.raises(RunError, match="is missing; expected a directory"):
        train(None, tmp_path / "none", resume=True, device="cpu")


def test_another_recipe_is_not_resumed(undisturbed: Path) -> None:
    with pytest.raises(RunError, match=r"training\.lr = 0\.02 .* expected 0\.01"):
        train(tiny(lr=2e-2), undisturbed, resume=True, device="cpu")
    with pytest.raises(
        RunError, match=r"expected 12, as when it was started: the learning rate and"
    ):
        train(tiny(iterations=24), undisturbed, resume=True, device="cpu")


def test_other_data_is_not_resumed(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((60, 1, 8, 8)).astype(np.float32)
    path = tmp_path / "own.npy"
    np.save(path, frames)
    recipe = parse_recipe(
        {
            "model": {"name": "convlstm", "hidden": [4], "kernel": 3, "patch": 2},
            "data": {
                "source": "array",
                "path": str(path),
                "context": 3,
                "horizon": 3,
                "validation_fraction": 0.2,
            },
            "training": {"iterations": 4, "batch": 2, "checkpoint_every": 1},
        }
    )
    out = tmp_path / "run"
    train(recipe, out, device="cpu", reporter=StopAt(2))
    assert open_run(out).recipe.data.frame == (1, 8, 8)
    np.save(path, frames[::-1])
    with pytest.raises(RunError, match=r"not what .* was started with"):
        train(recipe, out, resume=True, device="cpu")
    np.save(path, frames)
    assert train(recipe, out, resume=True, device="cpu").finished


def test_a_broken_state_is_reported(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny(), out, device="cpu", reporter=StopAt(2))
    state = out / TRAINING
    state.write_bytes(state.read_bytes()[:-7])
    with pytest.raises(RunError, match=r"training\.safetensors cannot be read"):
        train(None, out, resume=True, device="cpu")


def test_nan_ends_training_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = tiny(lr=1e30, warmup=1, checkpoint_every=1, iterations=50)
    with pytest.raises(DivergedError, match=r"--set training\.lr=") as caught:
        train(recipe, out, device="cpu")
    assert caught.value.exit_code == 2
    kept = load_training(out / TRAINING)
    assert all(bool(value.isfinite().all()) for value in kept.weights.values())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model": {"name": "convlsmt"}}, RecipeError),
        ({"model": {"name": "convlstm", "patch": 3}}, RecipeError),
        ({"model": {"name": "convlstm", "widths": [4]}}, RecipeError),
        ({"model": {"name": "no.such.module:Class"}}, RecipeError),
        ({"training": {"iterations": 4, "batch": 1, "precision": "16-mixed"}}, RecipeError),
        ({"data": {"source": "array", "path": "nowhere.npy"}}, UsageError),
        ({"data": {"source": "moving-mnist", "images": "nowhere"}}, UsageError),
    ],
)
def test_a_recipe_that_cannot_be_used_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], error: type[StplError]
) -> None:
    document = {**tiny().model_dump(mode="json", exclude_none=True), **changes}
    with pytest.raises(error) as caught:
        train(parse_recipe(document), tmp_path / "deep" / "run", device="cpu")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_out_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        train(tiny(), tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("limit", [1000, 6000])
def test_a_full_disk_is_told_and_the_run_goes_on_later(
    undisturbed: Path, tmp_path: Path, limit: int
) -> None:
    """A limit on file sizes stands in for the disk: below, the start fails; above, a later save."""
    out = tmp_path / "run"
    if limit > 1000:
        train(tiny(), out, device="cpu", reporter=StopAt(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(SinkError, match=r"cannot be written: File too large"):
            train(tiny(), out, resume=True, device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.rglob("*.tmp"))
    assert out.exists() is (limit > 1000)
    train(tiny(), out, resume=True, device="cpu")
    assert bytes_of(out) == bytes_of(undisturbed)


def test_more_devices_than_sequences(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"training\.batch = 4 on 5 devices"):
        train(tiny(), tmp_path / "run", device="cpu", devices=5)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(undisturbed: Path, tmp_path: Path) -> None:
    """The global batch is split, gradients are those of one process up to rounding."""
    script = textwrap.dedent(
        """
        import atexit
        import os
        import sys
        from pathlib import Path
        from stpl_train.recipe import load_recipe
        from stpl_train.training import train

        def keep_thread_names() -> None:
            names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
            Path(sys.argv[2]).with_name(f"threads-{os.getpid()}").write_text("".join(names))

        if __name__ == "__main__":
            result = train(load_recipe(sys.argv[1]), Path(sys.argv[2]), device="cpu", devices=2)
            assert result.finished
        else:  # one of the two
            atexit.register(keep_thread_names)
        """
    )
    (tmp_path / "two.py").write_text(script)
    command = [sys.executable, str(tmp_path / "two.py"), str(undisturbed / "recipe.toml")]
    done = subprocess.run(
        [*command, str(tmp_path / "run")], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = (load_training(run / TRAINING) for run in (undisturbed, tmp_path / "run"))
    for name, value in one.weights.items():
        torch.testing.assert_close(two.weights[name], value, rtol=1e-3, atol=1e-4)
    for mine, other in zip(one.progress.rows, two.progress.rows, strict=True):
        assert other.loss == pytest.approx(mine.loss, rel=1e-4)
    threads = [path.read_text() for path in tmp_path.glob("threads-*")]
    assert len(threads) == 2
    # One that still runs while Python exits aborts the process now and then.
    assert "gloo" not in "".join(threads)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    train(tiny(clip_norm=1e-9, weight_decay=0.0, iterations=1), tmp_path / "clipped", device="cpu")
    train(tiny(weight_decay=0.0, iterations=1), tmp_path / "free", device="cpu")
    moments = [
        max(
            float(tensors["exp_avg"].abs().max())
            for tensors in load_training(tmp_path / run / TRAINING).moments.values()
        )
        for run in ("clipped", "free")
    ]
    assert moments[0] <= 1.1e-9 < moments[1]


def test_a_penalty_of_the_model_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own class with `training_step`: its penalty pulls a weight nothing else does."""
    (tmp_path / "own_model.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn

            class Drift(nn.Module):
                def __init__(self, frame_shape, start=1.0):
                    super().__init__()
                    self.frame_shape = frame_shape
                    self.gain = nn.Parameter(torch.ones(()))
                    self.pulled = nn.Parameter(torch.tensor(float(start)))

                def initial_state(self, batch):
                    return {"last": torch.zeros(batch, *self.frame_shape)}

                def step(self, frame, state):
                    return self.gain * frame, {"last": frame}

                def training_step(self, frame, state):
                    return (*self.step(frame, state), 100 * self.pulled.square())
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    trust_model("own_model:Drift")
    document = tiny(iterations=40, reversed_pass=False, lr=5e-2).model_dump(
        mode="json", exclude_none=True
    )
    document["model"] = {"name": "own_model:Drift", "start": 0.5}
    train(parse_recipe(document), tmp_path / "run", device="cpu")
    weights = load_training(tmp_path / "run" / TRAINING).weights
    assert abs(float(weights["pulled"])) < 0.1
    assert math.isfinite(float(weights["gain"]))


def test_plain_lines_say_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain.start(0, 100)
    assert capsys.readouterr().err.startswith("iteration 0/100  training; Ctrl-C saves")
    Plain().start(40, 100)
    assert "iteration 40/100  resuming" in capsys.readouterr().err
    assert not plain.wants_step()
    plain.step(50, 12.5)
    plain.validated(ValidationRow(50, 12.5, 1e-3, (1.0, 4.0), (2.0, 3.0)), best=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "iteration 50/100  loss 12.5" in err
    assert "MSE/frame 2.5  (persistence 2.5; better at 1 of 2 lead times)  best so far" in err
