"""The list of verbs, in the order of the help."""

from __future__ import annotations

import typer

from stpl_deploy.cli import export, inspect, verify


def register(app: typer.Typer) -> None:
    """Add every verb to the app."""
    app.command("export")(export.export)
    app.command("verify")(verify.verify)
    app.command("inspect")(inspect.inspect)
