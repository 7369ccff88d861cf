"""The options of `data inspect`, for files and for live sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from stpl_core.option import Option
from stpl_core.options import ReadingOptions
from stpl_deploy.cli.options.common import Json


@dataclass(frozen=True)
class LookOptions:
    """How a live source is looked at."""

    seconds: Annotated[
        float, Option("How long to look at a live source.", least=0.1, most=86400)
    ] = 10.0
    cadence: Annotated[
        float | None,
        Option(
            "Of a live source: seconds between files of a URL with a time in it.", default="none"
        ),
    ] = None
    source_options: Annotated[
        Sequence[str],
        Option(
            "Of a live source, as `stream` has it; repeatable.",
            flag="--source-option",
            metavar="NAME=VALUE",
        ),
    ] = ()


@dataclass(frozen=True)
class InspectCommand:
    """The options of `data inspect`."""

    path: Annotated[
        str,
        Option("File or folder of frames, or a live source, such as a URL.", argument=True),
    ]
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    live: LookOptions = field(default_factory=LookOptions)
    picture: Annotated[Path | None, Option("Write first and last frame as a picture.")] = None
    recipe: Annotated[
        str | None, Option("Say what is missing for this recipe; exit 2 if anything.")
    ] = None
    json: Json = False
