"""`--trust-model`: the user's own class in a run, a bundle or a recipe that came from elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

TrustModel = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-model",
        metavar="MODULE:CLASS",
        help="Import this class, which it names, from here or what is installed; may repeat.",
    ),
]


def trust(names: list[str] | None) -> None:
    """Trust these classes, and look for them in the current folder after everything installed."""
    from stpl_core.trust import trust_model
    from stpl_deploy.cli.extras import import_from_here

    if names:
        trust_model(*names)
        import_from_here()
