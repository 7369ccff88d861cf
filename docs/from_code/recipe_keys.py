"""The reference of recipe keys: what `stpl-deploy train --keys` prints."""

from __future__ import annotations

from docs.from_code.markdown import code, plain, table

_INTRODUCTION = """# Recipe keys

A recipe is a TOML file: [training](../training.md). `stpl-deploy train RECIPE --keys` prints those
of one recipe, and `--set SECTION.KEY=VALUE` changes one.
"""


def page() -> str:
    """Every key of every section."""
    from stpl_deploy.cli.reports.recipe_keys import default_text
    from stpl_train.recipe_keys import recipe_keys

    parts = [_INTRODUCTION]
    for section in recipe_keys():
        rows = [
            (code(key.name), code(key.kind), code(default_text(key)), plain(key.about))
            for key in section.keys
        ]
        parts += [f"## {section.title}\n", table(("key", "takes", "default", ""), rows)]
    return "\n".join(parts)
