"""What `stream` and `serve` take beside the options of the stream itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from stpl_core.option import Option


@dataclass(frozen=True)
class SkillOptions:
    """How nowcasts are scored as the truth comes."""

    no_skill: Annotated[
        bool, Option("Do not score nowcasts as truth comes.", flag="--no-skill")
    ] = False
    flow: Annotated[
        bool,
        Option(
            "Score optical flow beside persistence too: rain moved along. Needs OpenCV.",
            flag="--flow",
        ),
    ] = False
    thresholds: Annotated[
        str | None,
        Option("CSI at these values, such as 0.1,1,5, in the frames' unit.", default="by the unit"),
    ] = None
    skill_window: Annotated[
        int, Option("Newest forecasts of each lead time in the rolling scores.", least=1)
    ] = 288
    alarm: Annotated[
        int | None,
        Option(
            "Warn when so many frames in a row were forecast worse than by persistence; exit "
            "code 3 where that holds when the source ends.",
            least=1,
        ),
    ] = None


@dataclass(frozen=True)
class PageOptions:
    """The page."""

    host: Annotated[str, Option("Address of the page; other than loopback needs a token.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Option("Port of the page; 0 takes a free one.", least=0, most=65535)] = (
        8765
    )
    token_file: Annotated[
        Path | None,
        Option("File with the page's token.", default="$STPL_TOKEN, or one is made and printed"),
    ] = None
    stale_after: Annotated[
        str | None,
        Option("Without a frame for so long, /healthz says stale: 90s, 15m.", default="3 cadences"),
    ] = None
    max_age: Annotated[
        str | None,
        Option(
            "With data older than this, /healthz says stale: 30m, 2h, or none.",
            default="6 cadences, at least 15m; none in a replay",
        ),
    ] = None
    overlays: Annotated[
        Sequence[str],
        Option(
            "GeoJSON file that the page's map shows too, such as warning areas; repeatable.",
            flag="--overlay",
            metavar="FILE",
        ),
    ] = ()
