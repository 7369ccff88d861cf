"""The list of verbs, in the order of the help."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Iterator
from typing import Any

import typer
import typer.main

from stpl_deploy.cli.verbs.examples import EXAMPLES as EXAMPLES

VERBS = {
    "demo": "Train a small model, export, verify and stream it: all in one.",
    "new": "Make a folder that runs a source: settings, recipe, unit.",
    "data": "Look at frames of any format, convert them, or fetch some.",
    "train": "Train a recipe; Ctrl-C saves, --resume continues.",
    "import": "Turn a checkpoint of the authors' own code into a run.",
    "export": "Export a run to a bundle, and check it against PyTorch.",
    "sign": "Sign a bundle, so that machines open only what you made.",
    "verify": "Check a bundle's bytes and accuracy on this machine.",
    "evaluate": "Score forecasts per lead time, beside simple baselines.",
    "bench": "Time PyTorch and an engine's ways to a nowcast.",
    "predict": "Predict the frames after the newest of a file or folder.",
    "backfill": "Make a nowcast of every window of an archive.",
    "stream": "Watch a source; write a nowcast for each new frame.",
    "serve": "The same as stream, with a page that shows it.",
    "package": "Make a model repository of a bundle, for Triton.",
    "inspect": "Say what a run, a bundle or an engine is.",
    "parts": "Carry a run or a bundle in small files.",
    "models": "List the models, and those that come trained.",
    "doctor": "Say what this machine has, what works, what to install.",
}
"""Each is a module in the folder above with a function of the same name; `import` is `import_`.

The texts are whole in a list of 80 columns: at most 64 characters.
"""


def program(app: typer.Typer, asked: str) -> Any:
    """The command that runs one verb and lists the others; the app stays as it was."""
    before = app.registered_commands, app.registered_groups
    try:
        register(app, asked)
        return typer.main.get_command(app)
    finally:
        app.registered_commands, app.registered_groups = before


def _listed() -> None:
    """Stands in the list of verbs for one that is not run now, whose module stays unread."""


def _examples(verb: str) -> str:
    lines = (f"  stpl-deploy {verb} {line}" for line in EXAMPLES[verb])
    return "\b\n" + "\n".join(["Examples:", *lines])


def register(app: typer.Typer, asked: str | None = None) -> None:
    """Add every verb to the app, in place of those that it had before.

    Args:
        app: the program.
        asked: the verb that is run; the others are only listed, so that help is quick. None:
            every verb is to be there with its options.
    """
    app.registered_commands = [one for one in app.registered_commands if one.name not in VERBS]
    app.registered_groups = [one for one in app.registered_groups if one.name not in VERBS]
    for verb, about in VERBS.items():
        if asked is not None and verb != asked:
            app.command(verb, short_help=about)(_listed)
            continue
        name = f"{verb}_" if keyword.iskeyword(verb) else verb
        module = importlib.import_module(f"stpl_deploy.cli.{name}")
        made = getattr(module, name)
        if isinstance(made, typer.Typer):  # a group of verbs
            app.add_typer(made, name=verb, short_help=about)
        else:
            app.command(verb, short_help=about, epilog=_examples(verb))(made)


def flags() -> set[str]:
    """The options of all verbs, without their dashes."""
    every = typer.Typer()
    register(every)
    return set(_flags(typer.main.get_command(every)))


def _flags(command: Any) -> Iterator[str]:
    for option in command.params:
        yield from (name.lstrip("-") for name in option.opts)
    for below in getattr(command, "commands", {}).values():
        yield from _flags(below)
