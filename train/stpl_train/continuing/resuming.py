"""Going on with a run: what must be as it was, and what may change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.errors import FrameError, RunError
from stpl_train.checkpoint import Progress
from stpl_train.data import DataSplit, open_data
from stpl_train.recipe import (
    ArchiveSection,
    ArraySection,
    MovingMnistSection,
    Recipe,
    TrainingSection,
)
from stpl_train.run import TRAINING, WEIGHTS, Run, save_recipe
from stpl_train.schedules import learning_rate

_WHOLE_LENGTH = ": the learning rate and the sampling follow the length of the whole run"


@dataclass(frozen=True)
class Changes:
    """What a run may go on with that it was not started with."""

    iterations: int | None = None
    """In all; None: as planned."""
    data: tuple[Path, ...] = ()
    """Where its data lie now, in the recipe's order; empty: where they were."""


def check_state(run: Run) -> None:
    """Refuse a run without the state that training leaves behind.

    Raises:
        RunError: an import, or weights that came without it.
    """
    if run.file(TRAINING).is_file() or not run.file(WEIGHTS).is_file():
        return
    imported = run.recipe.imported
    what = "weights alone" if imported is None else f"imported from {imported.project}"
    needs = (
        " --set data.source=archive --set data.path=FRAMES"
        if run.recipe.data.source == "synthetic"
        else ""
    )
    name = str(run.path).rstrip("/")
    raise RunError(
        f"{run.path} is {what}: there is no training to resume",
        expected=f"a run with {TRAINING}",
        fix=f"stpl-deploy train --from {name} --out {name}-tuned --iterations 1000{needs}",
    )


def same_recipe(run: Run, recipe: Recipe, changes: Changes) -> None:
    """Refuse another recipe than the run's own; what `changes` states may differ.

    Raises:
        RunError: names the first key that differs.
    """
    kept_data = run.recipe.data
    resolved = {
        key: getattr(kept_data, key)
        for key in ("frame", "cadence_s")
        if getattr(recipe.data, key) is None
    }
    started = recipe.start or run.recipe.start
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update=resolved), "start": started}
    )
    found, kept = _flat(recipe.model_dump(mode="json")), _flat(run.recipe.model_dump(mode="json"))
    free = {"start.weights"}  # the same bytes may have moved
    free |= {"training.iterations"} if changes.iterations is not None else set()
    free |= {"data.path", "data.images"} if changes.data else set()
    for key in sorted((found.keys() | kept.keys()) - free):
        if found.get(key) != kept.get(key):
            raise RunError(
                f"{key} = {found.get(key)!r} to resume {run.path}",
                expected=f"{kept.get(key)!r}, as when it was started"
                + (_WHOLE_LENGTH if key == "training.iterations" else ""),
                fix=f"{_again(run)}{_option(key, found.get(key))} (without RECIPE or --set), or "
                "another --out",
            )


def _option(key: str, value: object) -> str:
    if key == "training.iterations":
        return f" --iterations {value}"
    return f" --data {value}" if key == "data.path" else ""


def _again(run: Run) -> str:
    return f"stpl-deploy train --resume --out {run.path}"


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat


def moved(run: Run, paths: tuple[Path, ...]) -> Recipe:
    """The run's recipe, with its data where they are now.

    Raises:
        RunError: data that do not lie in files, or another number of them.
    """
    data, update = run.recipe.data, dict[str, Any]()
    if isinstance(data, MovingMnistSection) and data.images not in ("scikit-learn", "mnist"):
        known, update = 1, {"images": str(paths[0])}
    elif isinstance(data, (ArraySection, ArchiveSection)):
        known = len(data.paths) if isinstance(data, ArchiveSection) else 1
        update = {"path": paths[0] if known == 1 else paths}
    else:
        known = 0
    if len(paths) != known:
        raise RunError(
            f"--data {' --data '.join(map(str, paths))} for {run.path}",
            expected=f"--data {known} times, as data.path in its recipe"
            if known
            else f'none: data.source = "{data.source}" reads no files',
            fix=_again(run) + " --data PATH" * known,
        )
    return run.recipe.model_copy(update={"data": data.model_copy(update=update)})


def longer(run: Run, recipe: Recipe, iterations: int, progress: Progress) -> Recipe:
    """The recipe with more iterations than planned.

    Raises:
        RunError: fewer than planned.
    """
    planned = recipe.training.iterations
    if iterations < planned:
        raise RunError(
            f"--iterations {iterations} to resume {run.path}, of which {progress.iteration} are "
            "done",
            expected=f"{planned}, as planned, or more",
            fix=f"{_again(run)} --iterations {2 * planned}",
        )
    training = recipe.training.model_copy(update={"iterations": iterations})
    return recipe.model_copy(update={"training": training})


def longer_remarks(before: TrainingSection, now: TrainingSection, done: int) -> list[str]:
    """How a lengthened run differs from an undisturbed one of its length; empty where not."""
    if now.iterations == before.iterations or not done:
        return []
    follows = []
    if before.lr_min != before.lr:
        last, after = learning_rate(before, max(0, done - 1)), learning_rate(now, done)
        follows.append(f"the learning rate, which goes from {last:.3g} to {after:.3g}")
    if before.sampling == "scheduled" and before.sampling_until > 0:
        follows.append("the scheduled sampling")
    remarks = []
    if follows:
        remarks.append(
            f"{now.iterations} iterations in place of {before.iterations}: the result is not that "
            f"of {now.iterations} from the start, since {' and '.join(follows)} "
            f"follow{'' if follows[1:] else 's'} the length of the whole run"
        )
    if done == before.iterations and done % before.validate_every:
        remarks.append(f"the validation at iteration {done}, the end as planned, is kept")
    return remarks


def open_again(run: Run, recipe: Recipe) -> DataSplit:
    """The data of a run that goes on, which must be the same.

    Raises:
        RunError: they are not there any more, or are others.
    """
    data = recipe.data
    paths = list(data.paths) if isinstance(data, ArchiveSection) else []
    paths += [data.path] if isinstance(data, ArraySection) else []
    gone = next((path for path in paths if not path.expanduser().exists()), None)
    if gone is not None:
        raise RunError(
            f"no data at {gone}, which {run.path} is trained on",
            expected="the same data",
            fix=_again(run) + " --data PATH" * len(paths) + ", with where they are now",
        )
    try:
        opened = open_data(data, recipe.training.seed)
    except FrameError as error:
        if recipe == run.recipe:
            raise
        raise _other_data(run, str(error.found)) from error
    kept = run.validation()
    if opened.frame != run.frame_shape or not np.array_equal(kept, opened.validation[: len(kept)]):
        raise _other_data(run, "the data")
    return opened


def _other_data(run: Run, found: str) -> RunError:
    return RunError(
        f"{found}: not what {run.path} was started with"
        if found != "the data"
        else f"the data is not what {run.path} was started with",
        expected="the same file or digits",
        fix=f"{_again(run)} --data PATH, with where the same data are, or train with another --out",
    )


def write_changes(run: Run, recipe: Recipe) -> Run:
    """Keep what changed in the run's own recipe, and remove what a killed process left."""
    for stale in run.path.rglob(".*.tmp"):  # half-written
        stale.unlink(missing_ok=True)
    if recipe != run.recipe:
        save_recipe(run.path, recipe)
    return Run(run.path, recipe)
