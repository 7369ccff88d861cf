"""A way on from weights: another run's, more iterations than planned, data that moved."""

from __future__ import annotations

import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from stpl_core.errors import FrameError, RecipeError, RunError
from stpl_train.continuing.resuming import Changes
from stpl_train.continuing.starting_weights import StartingWeights
from stpl_train.describe import describe_run
from stpl_train.progress import Quiet
from stpl_train.recipe import Recipe, load_recipe, parse_recipe
from stpl_train.run import METRICS, TRAINING, WEIGHTS, open_run
from stpl_train.training import train
from tests.train.test_training import StopAt, tiny

FILES = (TRAINING, WEIGHTS, METRICS)


def constant(iterations: int) -> Recipe:
    """A schedule that does not depend on the length of the run."""
    return tiny(iterations=iterations, lr=1e-2, lr_min=1e-2, sampling_until=0)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("short") / "run"
    train(constant(8), out, device="cpu")
    return out


def test_more_iterations_equal_an_undisturbed_run(
    short: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(short, out)
    result = train(None, out, resume=True, device="cpu", changes=Changes(iterations=12))
    assert (result.finished, result.iterations) == (True, 12)
    assert caplog.text == ""
    train(constant(12), whole, device="cpu")
    for name in (*FILES, "recipe.toml"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_where_the_schedule_follows_the_length_it_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    train(tiny(iterations=4), out, device="cpu")
    train(None, out, resume=True, device="cpu", changes=Changes(iterations=8))
    assert "the learning rate, which goes from" in caplog.text
    assert "the scheduled sampling follow the length of the whole run" in caplog.text
    assert open_run(out).recipe.training.iterations == 8


def test_fewer_iterations_than_planned(short: Path) -> None:
    with pytest.raises(RunError, match=r"expected 8, as planned, or more; try: .*--iterations 16"):
        train(None, short, resume=True, device="cpu", changes=Changes(iterations=7))


def test_fine_tuning_starts_with_the_weights(short: Path, tmp_path: Path) -> None:
    class Look(Quiet):
        """Keeps the state as it is before the first iteration."""

        def start(self, done: int, total: int) -> None:
            shutil.copy(tmp_path / "run" / TRAINING, tmp_path / "first")

    start = StartingWeights.open(str(short))
    train(tiny(iterations=4, seed=5), tmp_path / "run", start=start, reporter=Look(), device="cpu")
    kept = safetensors.numpy.load_file(short / WEIGHTS)
    first = safetensors.numpy.load_file(tmp_path / "first")
    assert {name.removeprefix("model/") for name in first} == kept.keys()  # no optimiser yet
    for name, value in kept.items():
        assert np.array_equal(first[f"model/{name}"], value), name
    run = open_run(tmp_path / "run")
    assert run.recipe.start is not None
    assert run.recipe.start.weights == str(short)
    assert describe_run(tmp_path / "run")["started"] == str(short)
    # A run that was started so resumes as any other.
    assert train(None, tmp_path / "run", resume=True, device="cpu").already


def test_a_tensor_that_does_not_fit_is_named(short: Path, tmp_path: Path) -> None:
    document = tiny().model_dump(exclude_none=True)
    document["model"] |= {"hidden": [6]}
    start = StartingWeights.open(str(short))
    with pytest.raises(RunError, match=r"tensor \S+ has shape \(.*expected shape \(.*--from"):
        train(parse_recipe(document), tmp_path / "run", start=start, device="cpu")
    assert not (tmp_path / "run").exists()


def array_recipe(path: Path) -> Recipe:
    document: dict[str, Any] = tiny(iterations=4).model_dump(exclude_none=True)
    document["data"] = {"source": "array", "path": str(path), "context": 3, "horizon": 3}
    return parse_recipe(document)


def test_data_that_moved(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((10, 8, 1, 8, 8), np.float32)
    here, there, out = tmp_path / "here.npy", tmp_path / "there.npy", tmp_path / "run"
    np.save(here, frames)
    whole = tmp_path / "whole"
    train(array_recipe(here), whole, device="cpu")
    train(array_recipe(here), out, device="cpu", reporter=StopAt(1))
    here.rename(there)
    with pytest.raises(RunError, match=r"no data at .*--resume --out .* --data PATH"):
        train(None, out, resume=True, device="cpu")
    np.save(tmp_path / "other.npy", 1 - frames)
    with pytest.raises(RunError, match="is not what"):
        train(None, out, resume=True, device="cpu", changes=Changes(data=(tmp_path / "other.npy",)))
    assert train(None, out, resume=True, device="cpu", changes=Changes(data=(there,))).finished
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert open_run(out).recipe.data.path == there  # type: ignore[union-attr]


def test_an_import_is_not_resumed_but_started_from(tmp_path: Path, short: Path) -> None:
    out = tmp_path / "imported"
    shutil.copytree(short, out)
    (out / TRAINING).unlink()
    with pytest.raises(RunError, match=r"try: stpl-deploy train --from \S+ --out \S+-tuned"):
        train(None, out, resume=True, device="cpu")


class StopValidating(Quiet):
    """Sends the wish while a validation runs."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def validating(self, done: int, of: int) -> None:
        self.calls.append((done, of))
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("iterations", [4, 8])
def test_a_signal_is_obeyed_between_validation_batches(tmp_path: Path, iterations: int) -> None:
    recipe = tiny(iterations=iterations, batch=2)  # of the 4 sequences, two batches
    out, whole, reporter = tmp_path / "run", tmp_path / "whole", StopValidating()
    train(recipe, whole, device="cpu")
    stopped = train(recipe, out, device="cpu", reporter=reporter)
    assert (stopped.stopped_by, stopped.iterations) == (signal.SIGTERM, 4)
    assert reporter.calls == [(2, 4)]
    assert not stopped.finished
    assert not (out / METRICS).exists()
    assert train(None, out, resume=True, device="cpu").finished
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_what_was_understood_comes_first(tmp_path: Path) -> None:
    class Notes(Quiet):
        lines: tuple[str, ...] = ()

        def note(self, line: str) -> None:
            self.lines += (line,)

    path = tmp_path / "a.npy"
    np.save(path, np.full((10, 8, 8, 8), 0.5, np.float32))
    with pytest.raises(FrameError, match=r"--set data\.layout=NTHW"):
        train(array_recipe(path), tmp_path / "run", device="cpu")
    document = array_recipe(path).model_dump(exclude_none=True)
    document["data"]["layout"] = "NTHW"
    notes = Notes()
    train(parse_recipe(document), tmp_path / "run", device="cpu", reporter=notes)
    (line,) = notes.lines
    assert line == (
        f"data {path}: 10 sequences, 80 frames, 1 channel, 8x8, grey level 0.5 to 0.5 of full "
        "scale, no cadence; 27 windows of 3 + 3 to train on, 3 to validate"
    )


def test_frames_that_the_patch_does_not_divide_may_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "odd.npy"
    np.save(path, np.random.default_rng(0).random((2, 30, 1, 9, 13), np.float32))
    with pytest.raises(RecipeError, match="9x13") as caught:
        train(array_recipe(path), tmp_path / "run", device="cpu")
    advice = caught.value.fix
    assert advice.startswith("--set model.patch=1, or --set data.source=archive ")
    # What it says to type works.
    settings = [word for word in shlex.split(advice) if "=" in word][1:]
    document = array_recipe(path).model_dump(mode="json", exclude_none=True)
    recipe = load_recipe(document, [*settings, f"data.path={path}", "data.split=time"])
    assert train(recipe, tmp_path / "run", device="cpu").finished
    assert open_run(tmp_path / "run").frame_shape == (1, 8, 12)
