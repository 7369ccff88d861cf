"""`stpl-deploy serve`: live nowcasts from a source, and a page where they are watched."""

from __future__ import annotations

from dataclasses import dataclass, field

from stpl_core.log import LogOptions
from stpl_core.options import BundlePath, RunLimits, StreamOptions
from stpl_deploy.cli.live.options import PageOptions, SkillOptions
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.cli.options.trust import TrustOptions


@dataclass(frozen=True)
class ServeCommand:
    """The options of `serve`."""

    bundle: BundlePath
    stream: StreamOptions
    limits: RunLimits = field(default_factory=RunLimits)
    skill: SkillOptions = field(default_factory=SkillOptions)
    page: PageOptions = field(default_factory=PageOptions)
    trust: TrustOptions = field(default_factory=TrustOptions)
    log: LogOptions = field(default_factory=LogOptions)
    json: Json = False


@verb
def serve(options: ServeCommand) -> None:
    """Stream as `stpl-deploy stream` does, and show it on a page; Ctrl-C ends both.

    When the source ends, the page stays up.
    """
    from stpl_deploy.cli.live.live import Live
    from stpl_deploy.cli.live.run import run_live

    run_live(
        Live(
            options.bundle,
            options.stream,
            options.limits,
            options.skill,
            options.page,
            trust=options.trust,
            log=options.log,
            json=options.json,
            stays=True,
        )
    )
