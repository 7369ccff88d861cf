"""The list of verbs, in the order of the help."""

from __future__ import annotations

import importlib
import keyword

import typer

VERBS = (
    "demo",
    "data",
    "train",
    "import",
    "export",
    "verify",
    "evaluate",
    "bench",
    "predict",
    "stream",
    "serve",
    "inspect",
    "parts",
    "models",
    "doctor",
)
"""Each is a module beside this one with a function of the same name; `import` is `import_`."""


def register(app: typer.Typer) -> None:
    """Add every verb to the app."""
    for verb in VERBS:
        name = f"{verb}_" if keyword.iskeyword(verb) else verb
        module = importlib.import_module(f"stpl_deploy.cli.{name}")
        made = getattr(module, name)
        if isinstance(made, typer.Typer):  # a group of verbs
            app.add_typer(made, name=verb)
        else:
            app.command(verb)(made)
