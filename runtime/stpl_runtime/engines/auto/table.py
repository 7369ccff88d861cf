"""What was measured of a bundle on this machine, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stpl_core import __version__
from stpl_core.bundle import MANIFEST, Bundle
from stpl_core.errors import UsageError
from stpl_core.files import atomic_file, cache_directory, sha256_of
from stpl_core.host.cgroup import cpu_quota
from stpl_core.machine import ORT_BUILDS, installed_version, usable_cpus
from stpl_runtime.engines.auto.candidates import Asked, Candidate, affinity
from stpl_runtime.engines.compiled_cache import cpu_identity

_log = logging.getLogger(__name__)
_SHARED = 0.5
"""A machine with so much other work for each CPU is a shared one."""
_NEARLY = 1.05
_FORMAT = 1
TIME_WAS_UP = "not measured: time was up"


@dataclass(frozen=True)
class Row:
    """One candidate and what became of it."""

    candidate: Candidate
    ms: float | None
    """Median time from a frame's arrival to its nowcast; None where it was not timed."""
    opened_s: float = 0.0
    note: str = ""
    """Why it was not timed; empty where it was."""


@dataclass(frozen=True)
class Table:
    """The rows of one bundle, for one way of asking, on one machine, quiet or shared."""

    rows: tuple[Row, ...]
    measured: str
    """ISO 8601, UTC."""
    load: str
    """`quiet` or `shared`."""
    graphs: tuple[str, ...]
    versions: dict[str, str]
    limit_s: float
    """How long measuring might take."""

    def holds_for(self, limit_s: float) -> bool:
        """Whether measuring again, for so long, would find no more."""
        whole = all(row.note != TIME_WAS_UP for row in self.rows)
        return whole or limit_s <= 2.0 * self.limit_s

    @property
    def best(self) -> Row | None:
        """Of those nearly as fast as the fastest, what opens soonest; None: nothing passed.

        An unrolled forecast takes far more memory and time to open than a step.
        """
        timed = [(row.ms, row) for row in self.rows if row.ms is not None]
        limit = _NEARLY * min((ms for ms, _ in timed), default=0.0)
        near = [row for ms, row in timed if ms <= limit]
        return min(near, key=lambda row: row.opened_s, default=None)


def load_now() -> str:
    """Whether other work shares this machine: `shared` or `quiet`."""
    return "shared" if _waiting() >= _SHARED * usable_cpus() else "quiet"


def free_cpus() -> int:
    """CPUs that other work leaves, at least one."""
    return max(1, usable_cpus() - round(_waiting()))


def _waiting() -> float:
    """Threads that compute or wait for a CPU, over the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on this system
        return 0.0


def versions() -> dict[str, str]:
    """Of all that a time depends on."""
    names = (*ORT_BUILDS, "openvino", "tensorrt", "tensorrt-rtx")
    found = {name: installed_version(name) for name in names}
    return {"stpl-deploy": __version__, **{k: v for k, v in found.items() if v}}


def read_table(bundle: Bundle, asked: Asked, load: str) -> Table | None:
    """The table that holds here and now; None where there is none."""
    return _read(_path(bundle, asked, load))


def tables_of(bundle: Bundle) -> Iterator[Table]:
    """Every table of a bundle that was measured with these versions on this machine."""
    folder, here = cache_directory("timed"), versions()
    for path in sorted(folder.glob(f"{_content(bundle)}-*.json")):
        table = _read(path)
        if table is not None and table.versions == here:
            yield table


def write_table(bundle: Bundle, asked: Asked, table: Table) -> None:
    """Keep it; where that fails a line says so, and the next start measures again."""
    path = _path(bundle, asked, table.load)
    document = {"format": _FORMAT, **asdict(table)}
    try:
        with atomic_file(path, sync=False, private=True) as file:
            file.write(json.dumps(document, indent=2).encode())
    except (OSError, UsageError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        _log.warning("%s: %s; the times of engines are not kept", path.parent, reason)


def _read(path: Path) -> Table | None:
    try:
        document = json.loads(path.read_bytes())
        if document.pop("format") != _FORMAT:
            return None
        rows = tuple(_row(row) for row in document.pop("rows"))
        table = Table(rows=rows, **document)
        return replace(table, graphs=tuple(table.graphs))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _row(row: dict[str, Any]) -> Row:
    return Row(**{**row, "candidate": Candidate(**row["candidate"])})


def _content(bundle: Bundle) -> str:
    return sha256_of(bundle.file(MANIFEST))[:16]  # it has the checksums of all files


def _path(bundle: Bundle, asked: Asked, load: str) -> Path:
    facts = {
        "asked": asdict(asked),
        "load": load,
        "versions": versions(),
        "cpu": cpu_identity(),
        "cpus": [affinity(), cpu_quota()],
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    return cache_directory("timed") / f"{_content(bundle)}-{key}.json"
