"""`stpl-deploy train`: recipe -> run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_core.errors import UsageError
from stpl_deploy.cli.trust import TrustModel, trust

if TYPE_CHECKING:
    from stpl_train.training import TrainingResult

_DEVICES = ("auto", "cpu", "cuda")


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A .toml file, or the name of a shipped recipe (see --list)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory to make.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a key of the recipe."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Another model, also your own: package.module:Class."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last saved state of --out.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes that share the batch.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    trust_model: TrustModel = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    recipes: Annotated[
        bool, typer.Option("--list", help="List the shipped recipes, and train nothing.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the whole recipe as TOML, and train nothing.")
    ] = False,
) -> None:
    """Train a recipe; Ctrl-C saves, --resume continues."""
    from stpl_deploy.cli.extras import import_from_here, needs
    from stpl_deploy.cli.output import print_json, say

    if recipes:
        _print_recipes(json)
        return
    if show:
        _show(recipe, settings, model, json)
        return
    target = _checked(recipe, out, settings, model, resume, device)
    trust(trust_model)
    if recipe is not None and (model or settings):
        import_from_here()  # --model may be a class of the user's own
    with needs("train"):
        from stpl_train.progress import make_reporter
        from stpl_train.recipe import load_recipe
        from stpl_train.training import train as run_training

    loaded = None
    if recipe is not None:
        loaded = load_recipe(recipe, settings or (), model, rest=f" --out {target}")
        if resume and not quiet and not target.exists():
            say(f"{target} does not exist yet: starting it")
    result = run_training(
        loaded,
        target,
        resume=resume,
        device=device,  # type: ignore[arg-type]  # checked above
        devices=devices,
        reporter=make_reporter(quiet),
    )
    if json:
        print_json(_document(result))
    else:
        _print_result(result)
    if result.stopped_by is not None:
        raise typer.Exit(128 + result.stopped_by)


def _checked(
    recipe: str | None,
    out: Path | None,
    settings: list[str] | None,
    model: str | None,
    resume: bool,
    device: str,
) -> Path:
    if recipe is None and not resume:
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
    if recipe is None and (settings or model):
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


def _print_recipes(json: bool) -> None:
    from stpl_deploy.cli.extras import needs
    from stpl_deploy.cli.output import print_json

    with needs("train"):
        from stpl_train.recipe import recipe_title, shipped_recipes

    titles = {name: recipe_title(name) for name in shipped_recipes()}
    if json:
        print_json(titles)
        return
    width = max(map(len, titles))
    for name, title in titles.items():
        print(f"{name:{width}}  {title}")


def _show(recipe: str | None, settings: list[str] | None, model: str | None, json: bool) -> None:
    from stpl_deploy.cli.extras import needs
    from stpl_deploy.cli.output import print_json

    if recipe is None:
        raise UsageError(
            "--show without RECIPE", expected="a recipe", fix="stpl-deploy train --list"
        )
    with needs("train"):
        import tomli_w

        from stpl_train.recipe import load_recipe

    document = load_recipe(recipe, settings or (), model).model_dump(mode="json", exclude_none=True)
    if json:
        print_json(document)
    else:
        print(tomli_w.dumps(document), end="")


def _document(result: TrainingResult) -> dict[str, object]:
    return {
        "run": str(result.run),
        "finished": result.finished,
        "iterations": result.iterations,
        "best_iteration": result.best_iteration,
        "mse_per_frame": list(result.mse),
        "persistence_mse_per_frame": list(result.persistence),
        "parameters": result.parameters,
        "device": result.device,
        "seconds": round(result.seconds, 3),
    }


def _print_result(result: TrainingResult) -> None:
    from stpl_deploy.cli.output import print_table

    if result.mse:
        rows = [
            [str(lead), f"{mse:.4g}", f"{still:.4g}", f"{mse / still - 1:+.0%}" if still else ""]
            for lead, (mse, still) in enumerate(
                zip(result.mse, result.persistence, strict=True), start=1
            )
        ]
        print_table(
            f"Validation MSE per frame, best weights (iteration {result.best_iteration})",
            ["lead", "model", "persistence", "difference"],
            rows,
        )
    if result.stopped_by is not None:
        print(f"{result.run}: stopped and saved at iteration {result.iterations}")
        print(f"next: stpl-deploy train --resume --out {result.run}")
        return
    what = "was trained already" if result.already else f"trained in {result.seconds:.0f} s"
    print(
        f"{result.run}: {what}, {result.iterations} iterations, {result.parameters:,} parameters, "
        f"on {result.device}"
    )
    print(f"next: stpl-deploy export {result.run} --out {result.run}.bundle")
