"""`stpl-deploy new`: from a source to a folder that runs it, without a question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb


@dataclass(frozen=True)
class NewCommand:
    """The options of `new`."""

    folder: Annotated[Path, Option("Folder to make.", argument=True, metavar="FOLDER")]
    source: Annotated[
        str | None,
        Option(
            "Frames, an archive or a live source; without it, the frames that lie in the current "
            "folder.",
            argument=True,
            metavar="SOURCE",
        ),
    ] = None
    json: Json = False


@verb
def new(options: NewCommand) -> None:
    """Make a folder for a source: settings, recipe, systemd unit, and what to type in order."""
    from stpl_core.files import refuse_existing
    from stpl_deploy.cli.reports.output import print_json, say
    from stpl_deploy.starting.files import first_steps, write_folder
    from stpl_deploy.starting.sources import find_source

    folder = options.folder
    refuse_existing(folder, "FOLDER")
    if options.source is not None and not options.json:
        say(f"looking at {options.source}")
    found = find_source(options.source, Path())
    written = write_folder(folder, found)
    steps = first_steps(folder.resolve(), found)
    if options.json:
        print_json({"source": found.word, "holds": found.text, "recipe": found.recipe or None,
                    "files": [str(folder / name) for name in written], "next": steps})  # fmt: skip
        return
    print(f"found {found.word}: {found.text}")
    width = max(map(len, written))
    for name, about in written.items():
        print(f"  {folder / name!s:<{len(str(folder)) + 1 + width}}  {about}")
    first, *rest = steps or [f"less {folder / 'README.md'}"]
    print(f"next: {first}")
    for step in rest:
        print(f"      {step}")
