"""Training as one call: check everything, make the run directory, train, report the result."""

from __future__ import annotations

import errno
import gc
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric

from stpl_core.errors import EnvironmentFault, RecipeError, RunError, SinkError
from stpl_core.files import atomic_directory, refuse_existing
from stpl_core.safety.trust import trust_model, trusted_models
from stpl_train.checkpoint import Progress, load_training, save_training
from stpl_train.continuing.resuming import (
    Changes,
    check_state,
    longer,
    longer_remarks,
    moved,
    open_again,
    same_recipe,
    write_changes,
)
from stpl_train.continuing.starting_weights import StartingWeights
from stpl_train.data import DataSplit, open_data
from stpl_train.data.understood import data_line
from stpl_train.interrupt import StopRequest
from stpl_train.models import ForecasterModule, build_model, check_codec
from stpl_train.models.layers import PatchError
from stpl_train.planning.training_memory import plan_memory
from stpl_train.progress import Quiet, Reporter
from stpl_train.randomness import Stream, torch_seed
from stpl_train.recipe import ArchiveSection, MovingMnistSection, Recipe
from stpl_train.run import (
    RECIPE,
    TRAINING,
    Run,
    open_run,
    save_grids,
    save_recipe,
    save_validation,
)
from stpl_train.trainer import Trainer
from stpl_train.unroll import check_loss

_log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

_NO_CHANGES = Changes()


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `train` ended with."""

    run: Path
    iterations: int
    """Done so far, all calls together."""
    finished: bool
    already: bool
    """Whether there was nothing left to do."""
    stopped_by: int | None
    """The signal that ended it early."""
    best_iteration: int | None
    """Whose weights are in weights.safetensors; None before the first validation."""
    mse: tuple[float, ...]
    """(K,) of those weights on the validation sequences: sums over C, H, W per frame."""
    persistence: tuple[float, ...]
    """(K,) of repeating the last frame."""
    parameters: int
    device: str
    seconds: float
    """Of this call."""


def train(
    recipe: Recipe | None,
    out: Path,
    *,
    resume: bool = False,
    device: Device = "auto",
    devices: int = 1,
    reporter: Reporter | None = None,
    start: StartingWeights | None = None,
    changes: Changes = _NO_CHANGES,
) -> TrainingResult:
    """Train a recipe into a run directory, or resume a run.

    Args:
        recipe: what to train; with `resume` it may be None, else it must be the run's own.
        out: the run directory, free unless `resume`.
        resume: continue from the last saved state; where `out` does not exist yet and a recipe is
            given, start.
        device: `auto` takes a GPU where PyTorch sees one.
        devices: processes, each on its own GPU (or on the CPU); they share the batch.
        reporter: receives the progress; None reports nothing.
        start: weights to begin with; None: random ones. A resumed run has its own.
        changes: to a resumed run.

    Raises:
        UsageError: a recipe, data or directory that cannot be used; nothing is left behind.
        EnvironmentFault: no such device, or the directory cannot be written.
        DivergedError: the loss is no longer finite; the last saved state is kept.
    """
    began = time.monotonic()
    chosen, reporter = choose_device(device, devices), reporter or Quiet()
    if recipe is not None:
        origin = None if start is None else start.section
        recipe = recipe.model_copy(update={"imported": None, "start": origin})
    if resume and (recipe is None or (out / RECIPE).is_file()):
        run, data = _go_on(out, recipe, changes, chosen, devices, reporter)
    else:
        assert recipe is not None, "a recipe, or resume"
        run, data = _begin(out, recipe, start, chosen, devices, reporter)
    progress = load_training(run.file(TRAINING)).progress
    already = _finished(run, progress)
    stopped = None
    if not already:
        with _writing(out, f"free some space, then stpl-deploy train --resume --out {out}"):
            stopped = _launch(run, data, chosen, devices, reporter)
        progress = load_training(run.file(TRAINING)).progress
    return _result(run, progress, already, stopped, chosen, time.monotonic() - began)


def _begin(
    out: Path,
    recipe: Recipe,
    start: StartingWeights | None,
    device: str,
    devices: int,
    reporter: Reporter,
) -> tuple[Run, DataSplit]:
    """Check everything, and make the run directory."""
    _check_processes(recipe, device, devices)
    _refuse_run(out)
    refuse_existing(out)
    data = open_data(recipe.data, recipe.training.seed)
    resolved = with_frame(recipe, data)
    _announce(resolved, data, reporter)
    _plan(resolved, data, device, devices, reporter)
    with _writing(out, "free some space"):
        return start_run(out, resolved, data, start), data


def _go_on(
    out: Path,
    recipe: Recipe | None,
    changes: Changes,
    device: str,
    devices: int,
    reporter: Reporter,
) -> tuple[Run, DataSplit]:
    """Check that nothing changed but what may, and write that down."""
    run = open_run(out)
    check_state(run)
    if recipe is not None:
        same_recipe(run, recipe, changes)
    before, progress = run.recipe, load_training(run.file(TRAINING)).progress
    now = moved(run, changes.data) if changes.data else before
    if changes.iterations is not None:
        now = longer(run, now, changes.iterations, progress)
    _check_processes(now, device, devices)
    data = open_again(run, now)
    _announce(now, data, reporter)
    if not _finished(Run(run.path, now), progress):
        _plan(now, data, device, devices, reporter, resumed=True)
    for remark in longer_remarks(before.training, now.training, progress.iteration):
        _log.warning("%s", remark)
    return write_changes(run, now), data


def _announce(recipe: Recipe, data: DataSplit, reporter: Reporter) -> None:
    """What was understood of the data, in one line; what is allowed but probably not intended."""
    reporter.note(data_line(recipe, data))
    for remark in (*recipe.remarks(), *data.remarks):
        _log.warning("%s", remark)


def _plan(
    recipe: Recipe,
    data: DataSplit,
    device: str,
    devices: int,
    reporter: Reporter,
    resumed: bool = False,
) -> None:
    """The memory that it will take, in one line; refuses what cannot fit."""
    line = plan_memory(recipe, len(data.validation), device, devices, resumed)
    if line:
        reporter.note(line)


def _refuse_run(out: Path) -> None:
    """Suggest `--resume` for an existing run, where `refuse_existing` would suggest removal."""
    if (out / RECIPE).is_file():
        raise RunError(
            f"{out} already holds a run",
            expected="a path that does not exist yet",
            fix=f"stpl-deploy train --resume --out {out} to continue it, or another --out",
        )


@contextmanager
def _writing(out: Path, fix: str) -> Iterator[None]:
    """Report a full disk, or a directory without write permission, in one line."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise SinkError(
            f"{out} cannot be written: {error.strerror or error}",
            expected="free space" if full else "a directory that can be written",
            fix=fix if full else "another --out",
        ) from error


def choose_device(device: Device, devices: int) -> Literal["cpu", "cuda"]:
    """Resolve `auto` and check that so many GPUs are there.

    Raises:
        EnvironmentFault: they are not.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and count == 0):
        return "cpu"
    if count < devices:
        fewer = f", or --devices {count}" if count else "; stpl-deploy doctor shows why"
        raise EnvironmentFault(
            f"PyTorch sees {count} GPUs", expected=f"{devices}", fix=f"--device cpu{fewer}"
        )
    return "cuda"


def with_frame(recipe: Recipe, data: DataSplit) -> Recipe:
    """The recipe with `data.frame` and, where it states none, `data.cadence_s` of the data."""
    cadence_s = recipe.data.cadence_s or data.cadence_s
    section = recipe.data.model_copy(update={"frame": data.frame, "cadence_s": cadence_s})
    return recipe.model_copy(update={"data": section})


def start_run(
    out: Path, recipe: Recipe, data: DataSplit, start: StartingWeights | None = None
) -> Run:
    """Make the run directory, whole or not at all, with the first weights as its state.

    Raises:
        RecipeError: a model that cannot be built for these frames, or not trained with this loss.
        RunError: starting weights that do not fit it.
    """
    try:
        model = initial_model(recipe, data)
    except PatchError as error:
        raise _cropped(error, recipe) from error
    check_loss(model, recipe.training)
    if start is not None:
        start.load_into(model)
    with atomic_directory(out) as partial:
        save_recipe(partial, recipe)
        save_validation(partial, data.validation, data.validation_observed)
        save_grids(partial, data.grids)
        save_training(partial / TRAINING, model, None, Progress())
    return open_run(out)


def _cropped(error: PatchError, recipe: Recipe) -> RecipeError:
    """The same error, which also offers to cut the frames to what the patch divides."""
    data, fix = recipe.data, error.fix
    if data.frame is not None:
        height, width = (side - side % error.patch for side in data.frame[1:])
        top, left = data.crop[:2] if isinstance(data, ArchiveSection) and data.crop else (0, 0)
        if isinstance(data, MovingMnistSection):
            fix += f", or --set data.frame='[1, {height}, {width}]'"
        elif min(height, width) > 0:
            source = "" if isinstance(data, ArchiveSection) else "--set data.source=archive "
            channels = f"--set data.frame='[{data.frame[0]}, {height}, {width}]'"
            fix += (
                f", or {source}--set data.crop='[{top}, {left}, {height}, {width}]' {channels} to "
                "cut the frames"
            )
    return RecipeError(error.found, expected=error.expected, fix=fix)


def initial_model(recipe: Recipe, data: DataSplit) -> ForecasterModule:
    """The untrained model: a function of the recipe and its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(recipe.training.seed, Stream.WEIGHTS, 0))
        model = build_model(recipe.model.name, data.frame, recipe.model.keys)
    check_codec(model, recipe.model.name, recipe.data.codec)
    return model


def _check_processes(recipe: Recipe, device: str, devices: int) -> None:
    training = recipe.training
    if training.batch < devices:
        raise RecipeError(
            f"training.batch = {training.batch} on {devices} devices",
            expected="at least one sequence per device",
            fix=f"--set training.batch={devices}",
        )
    if training.precision == "16-mixed" and device == "cpu":
        raise RecipeError(
            "training.precision = '16-mixed' on the CPU",
            expected="a GPU, or another precision",
            fix="--set training.precision=32-true, or bf16-mixed",
        )


def _launch(run: Run, data: DataSplit, device: str, devices: int, reporter: Reporter) -> int | None:
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_spawn",
        precision=run.recipe.training.precision,
    )
    if devices == 1:
        fabric.launch()
        return _fit(fabric, run, data, reporter)
    with StopRequest():  # the processes it starts listen themselves
        stopped: int | None = fabric.launch(
            partial(_fit_process, path=run.path, reporter=reporter, trusted=trusted_models())
        )
        return stopped


def _fit_process(
    fabric: Fabric, path: Path, reporter: Reporter, trusted: Iterable[str]
) -> int | None:
    """In each of several processes: open everything anew."""
    trust_model(*trusted)
    run = open_run(path)
    data = open_data(run.recipe.data, run.recipe.training.seed)
    stopped = _fit(fabric, run, data, reporter if fabric.is_global_zero else Quiet())
    _close_process_group()
    return stopped


def _close_process_group() -> None:
    """End the threads of the collectives while the interpreter still runs.

    One of Gloo's that drops its last tensor while Python exits aborts a process whose training
    is done (one of hundreds on busy CPUs; see pytorch/pytorch#179291). Fabric
    closes NCCL's group only.
    """
    gc.collect()  # the wrapped model holds the group, in cycles
    torch.distributed.destroy_process_group()


def _fit(fabric: Fabric, run: Run, data: DataSplit, reporter: Reporter) -> int | None:
    with torch.random.fork_rng(devices=[]), _threads(run.recipe.training.threads):
        return Trainer(fabric, run, data).fit(reporter)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use `count` CPU threads inside the block; None leaves it alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finished(run: Run, progress: Progress) -> bool:
    training = run.recipe.training
    owes = progress.owes_validation(training.validate_every, training.iterations)
    return progress.iteration >= training.iterations and not owes


def _result(
    run: Run,
    progress: Progress,
    already: bool,
    stopped: int | None,
    device: str,
    seconds: float,
) -> TrainingResult:
    best = progress.best
    with torch.random.fork_rng(devices=[]):
        model = build_model(run.recipe.model.name, run.frame_shape, run.recipe.model.keys)
    return TrainingResult(
        run=run.path,
        iterations=progress.iteration,
        finished=_finished(run, progress),
        already=already,
        stopped_by=stopped,
        best_iteration=best.iteration if best else None,
        mse=best.mse if best else (),
        persistence=best.persistence if best else (),
        parameters=sum(p.numel() for p in model.parameters()),
        device=device,
        seconds=seconds,
    )
