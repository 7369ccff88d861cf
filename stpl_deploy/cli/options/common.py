"""Options that many verbs have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from stpl_core.option import Option

Json = Annotated[bool, Option("Print the result as JSON.", flag="--json")]
TrustModel = Annotated[
    Sequence[str],
    Option(
        "Import this class, which it names, from here or what is installed; may repeat.",
        flag="--trust-model",
        metavar="MODULE:CLASS",
    ),
]


def trust(names: Sequence[str]) -> None:
    """Trust these classes, and look for them in the current folder after everything installed."""
    from stpl_core.safety.trust import trust_model
    from stpl_deploy.cli.options.own_modules import import_from_here

    if names:
        trust_model(*names)
        import_from_here()
