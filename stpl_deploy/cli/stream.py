"""`stpl-deploy stream`: live nowcasts from a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from stpl_core.log import LogOptions
from stpl_core.option import Option
from stpl_core.options import BundlePath, RunLimits, StreamOptions
from stpl_deploy.cli.live.options import PageOptions, SkillOptions
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.cli.options.trust import TrustOptions


@dataclass(frozen=True)
class StreamCommand:
    """The options of `stream`."""

    bundle: BundlePath
    stream: StreamOptions
    limits: RunLimits = field(default_factory=RunLimits)
    skill: SkillOptions = field(default_factory=SkillOptions)
    page: Annotated[bool, Option("Show a page, as `stpl-deploy serve` does.", flag="--page")] = (
        False
    )
    pages: PageOptions = field(default_factory=PageOptions)
    trust: TrustOptions = field(default_factory=TrustOptions)
    log: LogOptions = field(default_factory=LogOptions)
    json: Json = False


@verb
def stream(options: StreamCommand) -> None:
    """Watch a source and write a nowcast for each new frame; Ctrl-C ends it (exit code 0)."""
    from stpl_deploy.cli.live.live import Live
    from stpl_deploy.cli.live.run import run_live

    run_live(
        Live(
            options.bundle,
            options.stream,
            options.limits,
            options.skill,
            options.pages if options.page else None,
            trust=options.trust,
            log=options.log,
            json=options.json,
        )
    )
