"""Graphs as an engine compiled them, kept in the user's cache folder from one start to the next.

An entry is a file of its own: the SHA-256 of its content, then the content. It is written whole or
not at all, so that two processes may write the same one; what is cut or changed is dropped and
compiled again. The folder holds at most `STPL_CACHE_MB` megabytes (2000 without that variable, 0
for no cache); what was not used for longest goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stpl_core import __version__
from stpl_core.bundle import REFERENCE, GraphName, Manifest
from stpl_core.errors import UsageError
from stpl_core.files import atomic_file, cache_directory
from stpl_core.machine import cpu_name

_log = logging.getLogger(__name__)

VARIABLE = "STPL_CACHE_MB"
MOST_MB = 2000
_DIGEST = hashlib.sha256().digest_size
_SUFFIX = ".compiled"
_ABANDONED_S = 3600.0
"""A temporary file of this age belongs to a process that was killed."""


class CompiledCache:
    """One folder of entries by key."""

    def __init__(self, folder: Path | None = None, most_mb: float | None = None) -> None:
        """Look at nothing yet.

        Args:
            folder: where entries lie; None takes the user's cache folder.
            most_mb: bound of all entries together; None takes `STPL_CACHE_MB`.

        Raises:
            UsageError: `STPL_CACHE_MB` is no number.
        """
        self.folder = folder or cache_directory("compiled")
        self._most_bytes = int(1e6 * (_stated_mb() if most_mb is None else most_mb))
        self._complained = False

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._most_bytes > 0

    def read(self, key: str) -> bytes | None:
        """The content of an entry; None where there is none, or it is damaged."""
        if not self._most_bytes:
            return None
        path = self._path(key)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        content = whole[_DIGEST:]
        if hashlib.sha256(content).digest() != whole[:_DIGEST]:
            self._complain(f"{path} is damaged; it is compiled again")
            self.drop(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used
        return content

    def write(self, key: str, content: bytes) -> None:
        """Keep an entry; where that fails the next start compiles again, and a line says so."""
        if len(content) + _DIGEST > self._most_bytes:
            return
        try:
            self._make_room(len(content) + _DIGEST)
            with atomic_file(self._path(key), sync=False, private=True) as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
        except (OSError, UsageError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._complain(f"{self.folder}: {reason}; compiled graphs are not kept")

    def drop(self, key: str) -> None:
        """Forget an entry."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def megabytes(self) -> float:
        """What all entries take."""
        return sum(size for _, size, _ in self._entries()) / 1e6

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _make_room(self, needed: int) -> None:
        """Remove the oldest entries until so many bytes fit, and what killed writers left."""
        for path in self.folder.glob(f".*{_SUFFIX}.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
        entries = sorted(self._entries())
        over = sum(size for _, size, _ in entries) + needed - self._most_bytes
        for _, size, path in entries:
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= size

    def _entries(self) -> list[tuple[float, int, Path]]:
        """When each was used last, its bytes, its file."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # another process removed it meanwhile
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        return found

    def _complain(self, line: str) -> None:
        if not self._complained:
            _log.warning("%s", line)
        self._complained = True


def graph_key(manifest: Manifest, graph: GraphName, how: Mapping[str, Any]) -> str:
    """What a compiled graph depends on, as the name of its entry.

    All that `CheckedGraphs` judges is in it: an entry stands for a graph that was found good.

    Args:
        manifest: of the bundle.
        graph: which of its graphs.
        how: engine, version, precision and whatever else the compiler was given.
    """
    apart = {REFERENCE, *(spec.file for spec in manifest.graphs.values())}
    apart |= {spec.file for spec in manifest.engines}
    files = {name: spec.sha256 for name, spec in manifest.files.items() if name not in apart}
    spec = manifest.graphs[graph]
    facts = {
        "stpl-deploy": __version__,
        "graph": manifest.files[spec.file].sha256,
        "names": spec.model_dump(mode="json"),
        "weights": files,
        "shapes": [manifest.context, manifest.horizon, manifest.frame],
        "state": [part.model_dump(mode="json") for part in manifest.state],
        "cpu": cpu_identity(),
        **how,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def cpu_identity() -> str:
    """The processor's name and what it can do: names alone are shared in virtual machines."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not on this system
        text = ""
    features = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{cpu_name()} {' '.join(sorted(features[1].split())) if features else ''}".strip()


def _stated_mb() -> float:
    text = os.environ.get(VARIABLE, str(MOST_MB))
    try:
        stated = float(text)
    except ValueError:
        stated = -1.0
    if not 0.0 <= stated < float("inf"):
        raise UsageError(
            f"{VARIABLE}={text}", expected="megabytes, 0 for no cache", fix=f"{VARIABLE}={MOST_MB}"
        )
    return stated
