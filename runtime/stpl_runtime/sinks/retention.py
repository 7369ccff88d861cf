"""Which nowcasts are no longer to be kept (`--keep`, `--keep-age`)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from stpl_runtime.sink import SinkSpec


def outdated(there: Iterable[datetime], newest: datetime, spec: SinkSpec) -> set[datetime]:
    """Issue times of the nowcasts that go.

    What is written last is the newest, whatever its time. Those dated after it were made before a
    clock was set back, or a sequence began again: they are older than all others. So they are the
    first to go by number, and by age they go with the first that is too old on the new time line.

    Args:
        there: issue times of what is there, in any order.
        newest: of the nowcast that was written last, or is about to be.
        spec: what is to be kept.
    """
    every = {*there, newest}
    ahead, behind = (sorted(t for t in every if (t > newest) is after) for after in (True, False))
    going: set[datetime] = set()
    if spec.keep is not None:
        going.update([*ahead, *behind][: -spec.keep])
    if spec.keep_s is not None:
        too_old = [time for time in behind if (newest - time).total_seconds() > spec.keep_s]
        going.update(too_old, ahead if too_old else ())
    return going
