"""From a recipe to a run."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stpl_core.errors import UsageError
from stpl_core.option import Option, fill

if TYPE_CHECKING:
    from stpl_train.continuing.starting_weights import StartingWeights
    from stpl_train.recipe import Recipe
    from stpl_train.run import Run
    from stpl_train.training import TrainingResult


_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class TrainOptions:
    """What is trained, and where."""

    recipe: Annotated[
        str | None,
        Option("A .toml file, or the name of a shipped recipe (see --list).", argument=True),
    ] = None
    out: Annotated[Path | None, Option("Run directory to make.")] = None
    settings: Annotated[
        Sequence[str],
        Option("Change a key of the recipe.", flag="--set", metavar="SECTION.KEY=VALUE"),
    ] = ()
    data: Annotated[
        Sequence[str],
        Option(
            "Frames to train on (data.path); with --resume: where the same data are now.",
            metavar="PATH",
        ),
    ] = ()
    layout: Annotated[
        str | None,
        Option("Axes of an array, as NTHW (data.layout).", default="what follows from its shape"),
    ] = None
    iterations: Annotated[
        int | None,
        Option("In all (training.iterations); with --resume: more than planned.", least=1),
    ] = None
    start: Annotated[
        str | None,
        Option(
            "Begin with the weights of a run, a bundle or pretrained:NAME; without RECIPE by its "
            "recipe.",
            flag="--from",
            metavar="RUN",
        ),
    ] = None
    model: Annotated[str | None, Option("Another model, also your own: package.module:Class.")] = (
        None
    )
    resume: Annotated[
        bool, Option("Go on from the last saved state of --out.", flag="--resume")
    ] = False
    device: Annotated[str, Option("auto, cpu or cuda.")] = "auto"
    devices: Annotated[int, Option("Processes that share the batch.", least=1)] = 1


def train(recipe: str | Path | None, out: Path | str, *, quiet: bool = True, **options: Any) -> Run:
    """Train a recipe into a run directory.

    Args:
        recipe: a .toml file, or the name of a shipped recipe; None with `resume`, or with `start`,
            whose recipe is taken.
        out: the run directory to make.
        quiet: no progress on stderr.
        **options: of `TrainOptions`, by name: `settings=["training.iterations=2000"]`, `model`,
            `start` (a run, bundle or `pretrained:NAME` to begin with), `data`, `iterations`,
            `resume`, `device`, `devices`.

    Returns:
        The run; `export` makes a bundle of it.

    Raises:
        StplError: a recipe, data or directory that cannot be used; nothing is left behind.
        KeyboardInterrupt: Ctrl-C; what was trained is saved, and `resume=True` goes on from there.
    """
    asked = fill(
        TrainOptions,
        {"recipe": None if recipe is None else str(recipe), "out": out, **options},
        "train",
    )
    result = run_training(asked, quiet=quiet)
    if result.stopped_by is not None:
        if result.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt(f"saved at iteration {result.iterations}: {result.run}")
        raise SystemExit(128 + result.stopped_by)
    from stpl_train.run import open_run

    return open_run(result.run)


def run_training(
    options: TrainOptions, *, quiet: bool = False, starting: Callable[[Path], None] | None = None
) -> TrainingResult:
    """Train, or go on.

    Args:
        options: what is trained, and where.
        quiet: no progress on stderr.
        starting: given the run directory where `resume` finds none, and starts it.

    Raises:
        UsageError: options that do not hold together.
        StplError: see `stpl_train.training.train`.
    """
    from stpl_deploy.extras import needs

    target = checked(options)
    with needs("train"):
        from stpl_train.continuing.resuming import Changes
        from stpl_train.continuing.starting_weights import StartingWeights
        from stpl_train.progress import make_reporter
        from stpl_train.run import RECIPE
        from stpl_train.training import train as trained
    goes_on = options.resume and (target / RECIPE).is_file()
    start = None
    if options.start is not None and not (goes_on and options.recipe is None):
        start = StartingWeights.open(options.start)
    elif options.start is not None:
        raise UsageError(
            f"--from {options.start} to resume {target}, which has begun",
            expected="a run resumed as it was started",
            fix=f"stpl-deploy train --resume --out {target}",
        )
    loaded = None
    if options.recipe is not None or start is not None:
        loaded = chosen_recipe(options, start)
        if options.resume and starting is not None and not target.exists():
            starting(target)
    return trained(
        loaded,
        target,
        resume=options.resume,
        device=options.device,  # type: ignore[arg-type]  # checked above
        devices=options.devices,
        reporter=make_reporter(quiet),
        start=start,
        changes=Changes(options.iterations, tuple(map(Path, options.data)))
        if goes_on
        else Changes(),
    )


def read_recipe(options: TrainOptions) -> Recipe | None:
    """The recipe that a training with these options would have; None where none is named."""
    from stpl_train.continuing.starting_weights import StartingWeights

    start = None if options.start is None else StartingWeights.open(options.start)
    return chosen_recipe(options, start) if options.recipe or start is not None else None


def chosen_recipe(options: TrainOptions, start: StartingWeights | None = None) -> Recipe:
    """The recipe with all that the options change in it; without one, that of the weights.

    Raises:
        RecipeError: see `stpl_train.recipe.load_recipe`.
    """
    from stpl_train.recipe import load_recipe
    from stpl_train.recipe_text import read_document

    rest = f" --out {options.out}" if options.out is not None else ""
    if options.recipe is None:
        assert start is not None, "a recipe, or weights"
        document = start.document
    else:
        document = read_document(options.recipe, rest)
    settings = [*options.settings]
    if options.data:
        source = document.get("data", {}).get("source")
        stated = any(setting.startswith("data.source=") for setting in settings)
        if source not in ("array", "archive") and not stated:
            array = Path(options.data[0]).suffix.lower() in (".npy", ".npz")
            settings.insert(0, f"data.source={'array' if array else 'archive'}")
        paths = options.data[0] if len(options.data) == 1 else list(options.data)
        settings.append(f"data.path={json.dumps(paths, ensure_ascii=False)}")
    if options.layout is not None:
        settings.append(f"data.layout={json.dumps(options.layout)}")
    if options.iterations is not None:
        settings.append(f"training.iterations={options.iterations}")
    return load_recipe(document, settings, options.model)


def checked(options: TrainOptions) -> Path:
    """The run directory, where the options hold together.

    Raises:
        UsageError: they do not.
    """
    recipe, out, device = options.recipe, options.out, options.device
    if recipe is None and not options.resume and options.start is None:
        raise UsageError(
            "no RECIPE",
            expected="a .toml file or a shipped name",
            fix=f"stpl-deploy train modernn-mini --out {out or 'runs/first'}, or "
            "stpl-deploy train --list",
        )
    if out is None:
        if recipe is None and options.start is not None:
            fix = f"stpl-deploy train --from {options.start} --out runs/tuned"
        elif recipe is None:
            fix = "stpl-deploy train --resume --out RUN"
        elif recipe is not None and (Path(recipe) / "recipe.toml").is_file():
            fix = f"stpl-deploy train --resume --out {recipe}"
        else:
            fix = f"stpl-deploy train {recipe} --out runs/first"
        raise UsageError("no --out", expected="a run directory", fix=fix)
    changed = options.settings or options.model or options.layout
    if recipe is None and options.start is None and changed:
        raise UsageError(
            "--set, --layout or --model without RECIPE",
            expected="a run resumed as it was started",
            fix=f"stpl-deploy train --resume --out {out}",
        )
    if device not in _DEVICES:
        raise UsageError(
            f"--device {device}",
            expected=f"one of {', '.join(_DEVICES)}",
            fix=f"--device {'cuda' if device.startswith(('cuda', 'gpu')) else 'auto'}",
        )
    return out
