"""What this process's control groups allow it, CPU time and memory: version 2 and version 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """The least quota of the groups that this process is in, and of those above them.

    Args:
        membership: one line `ID:CONTROLLERS:PATH` for each hierarchy.
        root: where the hierarchies are mounted.

    Returns:
        CPUs, such as 1.5; None where nothing limits them.
    """
    found = [
        quota
        for folder in _folders(membership, root)
        if (quota := _version_2(folder) or _version_1(folder)) is not None
    ]
    return min(found, default=None)


def memory_room(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that the groups of this process may still take; None where nothing limits them.

    Args:
        membership: see `cpu_quota`.
        root: where the hierarchies are mounted.
    """
    rooms = []
    for folder in _folders(membership, root, "memory"):
        for limit, used in _MEMORY_FILES:
            most, taken = (_text(folder / name).strip() for name in (limit, used))
            if most.isdigit() and taken.isdigit() and int(most) < _UNLIMITED:
                reclaimable = _reclaimable(_text(folder / "memory.stat"))
                rooms.append(max(0, int(most) - max(0, int(taken) - reclaimable)))
    return min(rooms, default=None)


_MEMORY_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_UNLIMITED = 1 << 60
"""Version 1 writes a number near 2**63 where there is no limit."""


def _reclaimable(stat: str) -> int:
    """Bytes of files in memory that the system drops when a program asks for room."""
    rows = dict(line.split(" ", 1) for line in stat.splitlines() if " " in line)
    return int(rows.get("inactive_file", 0)) + int(rows.get("active_file", 0))


def _folders(membership: Path, root: Path, controller: str = "cpu") -> Iterator[Path]:
    """The groups' directories, from the process's own up to each hierarchy's root.

    Inside a container the path may be the host's, which is not there; the root then is its own.
    """
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            mounts = [root, root / "unified"]
        elif controller in controllers.split(","):
            mounts = [root / controllers, root / controller]
        else:
            continue
        parts = PurePosixPath(group).parts[1:]
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                yield mount.joinpath(*parts[:depth])


def _version_2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _version_1(folder: Path) -> float | None:
    quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    """`max` and -1 stand for no limit."""
    if not (quota.isdigit() and period.isdigit()) or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
