"""`stpl-deploy train`: recipe -> run directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_core.errors import UsageError
from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json, TrustModel, trust
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.library.training import TrainOptions

if TYPE_CHECKING:
    from stpl_train.training import TrainingResult


@dataclass(frozen=True)
class TrainCommand:
    """The options of `train`."""

    train: TrainOptions = field(default_factory=TrainOptions)
    quiet: Annotated[bool, Option("No progress on stderr.", flag="--quiet")] = False
    trust_model: TrustModel = ()
    json: Json = False
    recipes: Annotated[
        bool, Option("List the shipped recipes, and train nothing.", flag="--list")
    ] = False
    show: Annotated[
        bool, Option("Print the whole recipe as TOML, and train nothing.", flag="--show")
    ] = False
    keys: Annotated[
        bool,
        Option("Print every key that RECIPE (or any) may have, and train nothing.", flag="--keys"),
    ] = False


@verb
def train(options: TrainCommand) -> None:
    """Train a recipe; Ctrl-C saves, --resume continues."""
    if options.recipes:
        _print_recipes(options.json)
        return
    if options.show:
        _show(options.train, options.json)
        return
    if options.keys:
        from stpl_deploy.cli.reports.recipe_keys import print_keys

        print_keys(options.train, options.json)
        return
    from stpl_deploy.cli.options.own_modules import import_from_here
    from stpl_deploy.cli.reports.output import print_json, say
    from stpl_deploy.library.training import checked, run_training

    asked, quiet = options.train, options.quiet
    checked(asked)
    trust(options.trust_model)
    if asked.recipe is not None and (asked.model or asked.settings):
        import_from_here()  # --model may be a class of the user's own
    result = run_training(
        asked,
        quiet=quiet,
        starting=None if quiet else lambda run: say(f"{run} does not exist yet: starting it"),
    )
    if options.json:
        print_json(_document(result))
    else:
        _print_result(result)
    if result.stopped_by is not None:
        raise typer.Exit(128 + result.stopped_by)


def _print_recipes(json: bool) -> None:
    from stpl_deploy.cli.reports.output import print_json
    from stpl_deploy.extras import needs

    with needs("train"):
        from stpl_train.recipe import recipe_title, shipped_recipes

    titles = {name: recipe_title(name) for name in shipped_recipes()}
    if json:
        print_json(titles)
        return
    width = max(map(len, titles))
    for name, title in titles.items():
        print(f"{name:{width}}  {title}")


def _show(asked: TrainOptions, json: bool) -> None:
    from stpl_deploy.cli.reports.output import print_json
    from stpl_deploy.extras import needs
    from stpl_deploy.library.training import read_recipe

    with needs("train"):
        import tomli_w

        from stpl_train.recipe import plain_document

    recipe = read_recipe(asked)
    if recipe is None:
        begun = asked.resume and asked.out is not None
        raise UsageError(
            "--show without RECIPE or --from",
            expected="a recipe, or weights that were trained by one",
            fix=f"stpl-deploy train --show --from {asked.out}"
            if begun
            else "stpl-deploy train --list",
        )
    document = plain_document(recipe)
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
    from stpl_deploy.cli.reports.output import count_text, print_table

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
    done = count_text(result.iterations, "iteration")
    print(f"{result.run}: {what}, {done}, {result.parameters:,} parameters, on {result.device}")
    print(f"next: stpl-deploy export {result.run} --out {result.run}.bundle")
