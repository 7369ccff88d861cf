"""Memory: how much this process may still take, and errors that mean there was no more."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from stpl_core.errors import EnvironmentFault
from stpl_core.host.cgroup import memory_room

_SIGNS = re.compile(
    r"DefaultCPUAllocator|can't allocate memory|cannot allocate memory|bad_alloc|bad allocation"
    r"|Failed to allocate memory|CUDA out of memory|failed to map segment|Unable to allocate"
    r"|can't start new thread|std::length_error|not enough memory",
    re.IGNORECASE,
)
"""How libraries word it: PyTorch, ONNX Runtime, NumPy, the dynamic linker, C++, Python."""
_AMOUNT = re.compile(
    r"(?:allocate|buffer of size|requested)\D{0,40}?(\d+(?:\.\d+)?) ?(bytes|[KMGT]iB|[KMGT]B)?",
    re.IGNORECASE,
)
WORTH_A_LINE = 500e6
"""Bytes from which a plan is printed."""
_HEAPS = 400 * 10**6
"""Addresses beyond the memory that is used, for libraries, threads' heaps and arenas: up to 384 MB
were measured."""
_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def memory_room_bytes() -> int | None:
    """Bytes that this process may still take: the machine's, its control group's, `ulimit -v`."""
    limits = [_of_machine(), memory_room(), _of_ulimit()]
    return min((room for room in limits if room is not None), default=None)


def amount(size: float) -> str:
    """`size` bytes as people write them, such as 1.5 GB."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size:.0f} bytes"


def memory_fault(error: BaseException) -> EnvironmentFault | None:
    """The lack of memory behind an error, wherever in its chain; None where it is none."""
    for link in _chain(error):
        text = " ".join(str(link).split())
        if not _lacks_memory(link, text):
            continue
        asked = _asked(text)
        room = memory_room_bytes()
        left = "" if room is None else f", {amount(room)} left"
        found = f"asked for {amount(asked)}" if asked else text[:160] or "no block is left"
        return EnvironmentFault(
            f"out of memory: {found}{left}",
            expected="room for the model, its states and its batch",
            fix="a smaller batch, grid or tile, fewer --threads, a higher ulimit -v or memory "
            "limit, or stop other programs",
        )
    return None


def require_memory(
    needed: float, what: str, fix: str | Callable[[float], str], room: float | None = None
) -> str:
    """One line on what is needed and there; refuses what cannot fit.

    Args:
        needed: bytes beside what this process takes already, estimated.
        what: what needs it.
        fix: the setting that needs less; or what finds it, given the bytes that are there.
        room: bytes that are there; None: what this process may still take; infinity: nothing is
            refused.

    Raises:
        EnvironmentFault: more is needed than there is.
    """
    if room is None:
        room = memory_room_bytes()
    if room is not None and needed > room:
        raise EnvironmentFault(
            f"{what} needs about {amount(needed)} of memory",
            expected=f"at most {amount(room)}, which are left",
            fix=fix if isinstance(fix, str) else fix(room - _reserved()),
        )
    there = "" if room is None or math.isinf(room) else f" of {amount(room)}"
    return f"memory: about {amount(needed)}{there} for {what}"


def _reserved() -> int:
    """What `ulimit -v` counts and nobody uses; a setting that is suggested must fit beside it."""
    return 0 if _of_ulimit() is None else _HEAPS


def _lacks_memory(link: BaseException, text: str) -> bool:
    if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError":
        return True
    if isinstance(link, OSError) and link.errno == errno.ENOMEM:
        return True
    machine = isinstance(link, (RuntimeError, ImportError, OSError))
    foreign = type(link).__module__.startswith("onnxruntime")
    return (machine or foreign) and _SIGNS.search(text) is not None


def _asked(text: str) -> float | None:
    found = _AMOUNT.search(text)
    if found is None:
        return None
    unit = (found[2] or "bytes").lower()
    return float(found[1]) * _UNITS.get(unit[0], 1)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _of_machine() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    free = re.findall(r"^(?:MemAvailable|SwapFree):\s+(\d+) kB", text, re.MULTILINE)
    return sum(map(int, free)) * 1024 if "MemAvailable" in text else None


def _of_ulimit() -> int | None:
    try:
        import resource
    except ImportError:  # not on this system
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return limit
    return max(0, limit - pages * resource.getpagesize())
