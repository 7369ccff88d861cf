"""The reference of the verbs: what `--help` prints, for all of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from docs.from_code.markdown import code, plain, table

_INTRODUCTION = """# Verbs

Every verb explains itself with `--help` (`-h`). Options can also stand in a file or in the
environment: [settings](../streaming.md#settings-file-environment-command-line). Exit codes:
[errors](errors.md).
"""


def page() -> str:
    """Every verb with its arguments, options and examples."""
    import typer.main

    from stpl_deploy.cli import app, verbs

    verbs.register(app)
    root: Any = typer.main.get_command(app)
    listed = [(f"[`{verb}`](#{verb})", plain(about)) for verb, about in verbs.VERBS.items()]
    parts = [_INTRODUCTION, table(("verb", "what it does"), listed)]
    for verb in verbs.VERBS:
        parts += _verb([verb], root.commands[verb], verbs.EXAMPLES.get(verb, ()))
    return "\n".join(parts)


def _verb(words: list[str], command: Any, examples: tuple[str, ...]) -> Iterator[str]:
    import typer

    name = " ".join(words)
    yield f"{'#' * (1 + len(words))} {name}\n"
    yield plain(inspect.cleandoc(command.help or "")) + "\n"
    if hasattr(command, "commands"):
        for word, below in command.commands.items():
            yield from _verb([*words, word], below, ())
        return
    context = typer.Context(command, info_name=f"stpl-deploy {name}")
    usage = " ".join(command.get_usage(context).split()).removeprefix("Usage: ")
    yield f"    {usage}\n"
    for kind in ("argument", "option"):
        records = [
            one.get_help_record(context) for one in command.params if one.param_type_name == kind
        ]
        rows = [(code(flags), *_about(text)) for flags, text in filter(None, records)]
        if rows:
            yield table((kind, "", "default"), rows)
    if examples:
        lines = "\n".join(f"    stpl-deploy {name} {line}" for line in examples)
        yield f"Examples:\n\n{lines}\n"


def _about(text: str) -> tuple[str, str]:
    """A help text without the brackets at its end, and the default or limits that stand there."""
    found = re.fullmatch(r"(.*?)(?:\s*\[(?:default: )?([^\[]*)\])?", text, re.DOTALL)
    assert found is not None
    return plain(found.group(1)), plain(found.group(2) or "")
