"""How many CPUs' worth of time this process's control groups allow it: version 2 and version 1."""

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


def _folders(membership: Path, root: Path) -> Iterator[Path]:
    """The groups' directories, from the process's own up to each hierarchy's root.

    Inside a container the path may be the host's, which is not there; the root then is its own.
    """
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            mounts = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / controllers, root / "cpu"]
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
