r"""The newest version of each signed bundle that this machine opened: an older one is noticed.

One small file for each place of a bundle. It lies in the folder `versions` of the first of these:

    $STATE_DIRECTORY                    systemd's StateDirectory
    $XDG_STATE_HOME/stpl-deploy
    ~/.local/state/stpl-deploy          %LOCALAPPDATA%\\stpl-deploy on Windows

To go back on purpose, name the version once: `--min-version`. That version is remembered then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import sys
from pathlib import Path

from stpl_core.files import atomic_file

_log = logging.getLogger(__name__)
_MOST_BYTES = 4096


def remembered_version(bundle: Path) -> int:
    """The newest version that was opened at this place; 0 where none is known."""
    file = _file(bundle)
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise ValueError("it is not a file, or too long")
        version = json.loads(file.read_bytes())["version"]
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise ValueError("it holds no version")
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning("%s is not read, older bundles are not noticed: %s", file, error)
        return 0
    return version


def remember_version(bundle: Path, version: int) -> None:
    """Keep the version of a bundle that was opened; a warning where that cannot be written."""
    file = _file(bundle)
    document = {"bundle": os.path.abspath(bundle), "version": version}
    try:
        with atomic_file(file, private=True) as out:
            out.write((json.dumps(document) + "\n").encode())
    except OSError as error:
        _log.warning("%s is not written, older bundles will not be noticed: %s", file, error)


def _file(bundle: Path) -> Path:
    """Named after the place as it is given: a link `current` is one place, whatever it leads to."""
    place = hashlib.sha256(os.fsencode(os.path.abspath(bundle))).hexdigest()[:32]
    return _folder() / "versions" / f"{place}.json"


def _folder() -> Path:
    service, chosen = os.environ.get("STATE_DIRECTORY"), os.environ.get("XDG_STATE_HOME")
    if service:
        return Path(service.partition(":")[0])
    if chosen:
        return Path(chosen) / "stpl-deploy"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "stpl-deploy"
    return Path.home() / ".local" / "state" / "stpl-deploy"
