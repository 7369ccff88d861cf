"""`stpl-deploy parts split | join`: a run or bundle as small files, and whole again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb

parts = typer.Typer(help="Carry a run or a bundle in small files.", rich_markup_mode=None)


@parts.callback(invoke_without_command=True)
def _help_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@dataclass(frozen=True)
class SplitCommand:
    """The options of `parts split`."""

    directory: Annotated[Path, Option("Run or bundle.", argument=True)]
    out: Annotated[Path, Option("Directory of parts to make.")]
    size: Annotated[float, Option("Most megabytes (2^20) of a part.", least=0.001)] = 15.0
    json: Json = False


@parts.command()
@verb
def split(options: SplitCommand) -> None:
    """Cut a run or bundle into parts with checksums."""
    from stpl_core.parts import split as split_parts
    from stpl_deploy.cli.reports.output import print_json

    out = options.out
    index = split_parts(options.directory, out, max(1, int(options.size * 2**20)))
    count = sum(len(whole.parts) for whole in index.files)
    total = sum(whole.bytes for whole in index.files) / 1e6
    if options.json:
        print_json({"out": str(out), "parts": count, **index.model_dump(mode="json")})
        return
    print(f"{out}: {count} parts of {len(index.files)} files, {total:.1f} MB")
    print(f"next: stpl-deploy parts join {out} --out {index.name}")


@dataclass(frozen=True)
class JoinCommand:
    """The options of `parts join`."""

    directory: Annotated[Path, Option("Directory of parts.", argument=True)]
    out: Annotated[Path, Option("Directory to make again.")]
    json: Json = False


@parts.command()
@verb
def join(options: JoinCommand) -> None:
    """Put a run or bundle together again, byte for byte."""
    from stpl_core.parts import join as join_parts
    from stpl_deploy.cli.reports.output import print_json

    out = options.out
    index = join_parts(options.directory, out)
    total = sum(whole.bytes for whole in index.files) / 1e6
    if options.json:
        files = [{"path": whole.path, "bytes": whole.bytes} for whole in index.files]
        print_json({"out": str(out), "name": index.name, "files": files})
        return
    print(f"{out}: {len(index.files)} files, {total:.1f} MB, as they were in {index.name}")
    if any(whole.path == "training.safetensors" for whole in index.files):
        print(f"next: stpl-deploy train --resume --out {out}")
