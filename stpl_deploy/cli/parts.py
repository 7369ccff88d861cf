"""`stpl-deploy parts split | join`: a run or bundle as small files, and whole again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

parts = typer.Typer(help="Carry a run or a bundle in small files.", rich_markup_mode=None)


@parts.callback(invoke_without_command=True)
def _help_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@parts.command()
def split(
    directory: Annotated[Path, typer.Argument(help="Run or bundle.")],
    out: Annotated[Path, typer.Option(help="Directory of parts to make.")],
    size: Annotated[float, typer.Option(min=0.001, help="Most megabytes (2^20) of a part.")] = 15.0,
    json: _Json = False,
) -> None:
    """Cut a run or bundle into parts with checksums."""
    from stpl_core.parts import split as split_parts
    from stpl_deploy.cli.output import print_json

    index = split_parts(directory, out, max(1, int(size * 2**20)))
    count = sum(len(whole.parts) for whole in index.files)
    total = sum(whole.bytes for whole in index.files) / 1e6
    if json:
        print_json({"out": str(out), "parts": count, **index.model_dump(mode="json")})
        return
    print(f"{out}: {count} parts of {len(index.files)} files, {total:.1f} MB")
    print(f"next: stpl-deploy parts join {out} --out {index.name}")


@parts.command()
def join(
    directory: Annotated[Path, typer.Argument(help="Directory of parts.")],
    out: Annotated[Path, typer.Option(help="Directory to make again.")],
    json: _Json = False,
) -> None:
    """Put a run or bundle together again, byte for byte."""
    from stpl_core.parts import join as join_parts
    from stpl_deploy.cli.output import print_json

    index = join_parts(directory, out)
    total = sum(whole.bytes for whole in index.files) / 1e6
    if json:
        files = [{"path": whole.path, "bytes": whole.bytes} for whole in index.files]
        print_json({"out": str(out), "name": index.name, "files": files})
        return
    print(f"{out}: {len(index.files)} files, {total:.1f} MB, as they were in {index.name}")
    if any(whole.path == "training.safetensors" for whole in index.files):
        print(f"next: stpl-deploy train --resume --out {out}")
