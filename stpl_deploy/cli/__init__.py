"""The command line: one file per verb; heavy imports inside the functions."""

from __future__ import annotations

import sys

import typer

from stpl_deploy.errors import StplError

app = typer.Typer(
    name="stpl-deploy",
    help="Train spatiotemporal models, export them, and stream nowcasts at the edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; a user's mistake ends in one line and its exit code."""
    from stpl_deploy.cli import verbs

    verbs.register(app)
    try:
        app()
    except StplError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
