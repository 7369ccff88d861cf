"""From a recipe to a run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stpl_core.errors import UsageError
from stpl_core.option import Option, fill

if TYPE_CHECKING:
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
    model: Annotated[str | None, Option("Another model, also your own: package.module:Class.")] = (
        None
    )
    resume: Annotated[
        bool, Option("Go on from the last saved state of --out.", flag="--resume")
    ] = False
    device: Annotated[str, Option("auto, cpu or cuda.")] = "auto"
    devices: Annotated[int, Option("Processes that share the batch.", least=1)] = 1


def train(recipe: str | Path, out: Path | str, *, quiet: bool = True, **options: Any) -> Run:
    """Train a recipe into a run directory.

    Args:
        recipe: a .toml file, or the name of a shipped recipe.
        out: the run directory to make.
        quiet: no progress on stderr.
        **options: of `TrainOptions`, by name: `settings=["training.iterations=2000"]`, `model`,
            `resume`, `device`, `devices`.

    Returns:
        The run; `export` makes a bundle of it.

    Raises:
        StplError: a recipe, data or directory that cannot be used; nothing is left behind.
        KeyboardInterrupt: Ctrl-C; what was trained is saved, and `resume=True` goes on from there.
    """
    asked = fill(TrainOptions, {"recipe": str(recipe), "out": out, **options}, "train")
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
        from stpl_train.progress import make_reporter
        from stpl_train.recipe import load_recipe
        from stpl_train.training import train as trained
    loaded = None
    if options.recipe is not None:
        loaded = load_recipe(
            options.recipe, options.settings, options.model, rest=f" --out {target}"
        )
        if options.resume and starting is not None and not target.exists():
            starting(target)
    return trained(
        loaded,
        target,
        resume=options.resume,
        device=options.device,  # type: ignore[arg-type]  # checked above
        devices=options.devices,
        reporter=make_reporter(quiet),
    )


def checked(options: TrainOptions) -> Path:
    """The run directory, where the options hold together.

    Raises:
        UsageError: they do not.
    """
    recipe, out, device = options.recipe, options.out, options.device
    if recipe is None and not options.resume:
        raise UsageError(
            "no RECIPE",
            expected="a .toml file or a shipped name",
            fix=f"stpl-deploy train modernn-mini --out {out or 'runs/first'}, or "
            "stpl-deploy train --list",
        )
    if out is None:
        if recipe is None:
            fix = "stpl-deploy train --resume --out RUN"
        elif (Path(recipe) / "recipe.toml").is_file():
            fix = f"stpl-deploy train --resume --out {recipe}"
        else:
            fix = f"stpl-deploy train {recipe} --out runs/first"
        raise UsageError("no --out", expected="a run directory", fix=fix)
    if recipe is None and (options.settings or options.model):
        raise UsageError(
            "--set or --model without RECIPE",
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
