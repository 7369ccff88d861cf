"""What a killed process leaves beside its files: hidden names, mended or removed at the next start.

.NAME.8hex.tmp, .NAME.8hex.partial   half-written
.NAME.newer                          a directory, whole, that was about to take its place
.NAME.older                          the directory that had stepped aside for it
.NAME.going                          a directory that was being deleted
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from pathlib import Path

from stpl_core.errors import SinkError
from stpl_core.safety.half_written import remove_and_tell

_log = logging.getLogger(__name__)
_STALE_S = 3600.0
"""Another process may be writing beside us: what is younger is left alone, but for what is half
written: that is held by a process that lives."""
_HALF_WRITTEN = re.compile(r".*\.[0-9a-f]{8}\.(tmp|partial)")


def sweep(folder: Path, names: str) -> None:
    """Bring back directories that had stepped aside, remove what is hidden and stale, and say so.

    Args:
        folder: where the files are; may be missing, or not ours to read.
        names: regular expression of the names that are ours.
    """
    left = re.compile(rf"\.+({names})(?:\.(newer|older|going))?(?:\.[0-9a-f]{{8}}\.\w+)?")
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        match = left.fullmatch(path.name)
        if match is None:
            continue
        try:
            if path.name == f".{match[1]}.older" and not (folder / match[1]).exists():
                path.rename(folder / match[1])
                _log.warning("brought back %s, which a killed process had set aside",
                             folder / match[1])  # fmt: skip
            elif _HALF_WRITTEN.fullmatch(path.name):
                remove_and_tell(path)
            elif time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                _log.warning("removed %s, which a killed process left", path)
        except OSError:
            continue  # in use or not ours to remove; it hinders nobody


def remove(path: Path) -> None:
    """Delete a file or a directory; a directory leaves its name at once.

    Raises:
        SinkError: it cannot be deleted.
    """
    try:
        if path.is_dir():
            going = path.with_name(f".{path.name}.going")
            shutil.rmtree(going, ignore_errors=True)
            path.rename(going)
            shutil.rmtree(going)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise SinkError(
            f"cannot delete {path}: {error.strerror or error}",
            expected="rights to delete what is no longer to be kept",
            fix="delete it yourself, or keep nowcasts elsewhere",
        ) from error
