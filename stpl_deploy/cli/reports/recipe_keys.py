"""`train --keys`: the keys of recipes, as a reference to read."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpl_deploy.library.training import TrainOptions, read_recipe

if TYPE_CHECKING:
    from stpl_train.recipe_keys import Key

_WIDTH = 96


def print_keys(asked: TrainOptions, as_json: bool) -> None:
    """Print the keys of the recipe that is asked for, or of all models and sources."""
    from stpl_deploy.cli.reports.output import print_json
    from stpl_deploy.extras import needs

    with needs("train"):
        from stpl_train.recipe_keys import recipe_keys

    sections = recipe_keys(read_recipe(asked))
    if as_json:
        print_json([asdict(section) for section in sections])
        return
    for section in sections:
        print(f"{section.title}")
        for key in section.keys:
            print(f"  {key.name} = {default_text(key)}  ({key.kind})")
            if key.about:
                print(textwrap.fill(key.about, _WIDTH, initial_indent="      ",
                                    subsequent_indent="      "))  # fmt: skip
        print()
    print("next: stpl-deploy train RECIPE --set SECTION.KEY=VALUE --out RUN")


def default_text(key: Key) -> str:
    """A key's default as TOML has it, or what stands for one."""
    if key.required:
        return "(must be given)"
    return "(none)" if key.default is None else _toml(key.default)


def _toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else json.dumps(value)
    if isinstance(value, (str, bool, Path)):
        return json.dumps(str(value) if isinstance(value, Path) else value)
    return str(value)
