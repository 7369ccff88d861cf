"""The list of verbs, in the order of the help."""

from __future__ import annotations

import importlib

import typer

VERBS = (
    "export",
    "verify",
    "inspect",
    "doctor",
)
"""Each is a module beside this one with a function of the same name."""


def register(app: typer.Typer) -> None:
    """Add every verb to the app."""
    for verb in VERBS:
        module = importlib.import_module(f"stpl_deploy.cli.{verb}")
        app.command(verb)(getattr(module, verb))
