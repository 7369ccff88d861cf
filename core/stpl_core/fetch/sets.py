"""The public data sets that `stpl-deploy data fetch` knows; they stand in sets.json beside this."""

from __future__ import annotations

import difflib
import functools
import json
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stpl_core.errors import UsageError
from stpl_core.fetch.checked import Fetched, PublicFile, fetch_file
from stpl_core.fetch.transfer import OnProgress, Wait
from stpl_core.files import atomic_file

RECORD = ".fetched.json"
"""In the folder: what came from where, with its licence."""

OnFile = Callable[[str, int, int], OnProgress]
"""Called with each file's name, its number from 1 and how many there are; returns its progress."""


class PublicSet(BaseModel):
    """A public data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    about: str
    licence: str
    origin: str
    """Whose it is, or where it is described."""
    size: str = ""
    """In words, where the sizes of the files are not known."""
    use: str
    """What to type next; {folder} is where it lies."""
    mirrors: tuple[str, ...]
    files: tuple[PublicFile, ...]

    @property
    def size_text(self) -> str:
        """Megabytes, or in words."""
        sizes = [file.bytes for file in self.files]
        if self.size or None in sizes:
            return self.size or "size not known"
        return f"{sum(size or 0 for size in sizes) / 1e6:,.1f} MB"

    @property
    def checked(self) -> bool:
        """Whether the bytes of every file are known beforehand."""
        return all(file.digest for file in self.files)


@functools.cache
def public_sets() -> dict[str, PublicSet]:
    """All of them, by name."""
    text = (resources.files("stpl_core.fetch") / "sets.json").read_text("utf-8")
    return {
        name: PublicSet.model_validate(one | {"name": name})
        for name, one in json.loads(text).items()
    }


def public_set(name: str) -> PublicSet:
    """One of them.

    Raises:
        UsageError: no such set; the nearest name is suggested.
    """
    known = public_sets()
    if name not in known:
        near = [word for word in known if name and word.startswith(name.lower())]
        near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise UsageError(
            f"no data set {name}",
            expected=f"one of {', '.join(known)}",
            fix=f"stpl-deploy data fetch {near[0]}" if near else "stpl-deploy data fetch --list",
        )
    return known[name]


def fetch_set(
    one: PublicSet, folder: Path, on_file: OnFile | None = None, wait: Wait = time.sleep
) -> list[Fetched]:
    """Fetch every file of a set that is not yet there, and write down where each came from.

    Raises:
        UsageError: `folder` is a file.
        ChecksumError, EnvironmentFault, SinkError: see `fetch_file`; what came before is kept.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", expected="a folder", fix="another --out")
    had = _record(folder)
    done: list[Fetched] = []
    for n, file in enumerate(one.files):
        kept = had.get(file.name)
        if kept is not None and _still_there(kept, file, folder):
            done.append(kept.model_copy(update={"url": ""}))
            continue
        on_progress = on_file(file.name, n + 1, len(one.files)) if on_file else _no_progress
        new = fetch_file(file, folder, one.mirrors, on_progress, wait)
        done.append(new)
        if new.url:
            had[file.name] = new
            _write_record(folder, one, had)
    return done


def _no_progress(done: int, total: int | None) -> None:
    """Report nothing."""


def _still_there(kept: Fetched, file: PublicFile, folder: Path) -> bool:
    """Whether what has no promised digest of its own is as it was fetched."""
    if file.unpack != "zip":
        return file.digest is None and (folder / file.name).is_file()
    sizes = {name: folder / name for name in kept.members}
    return file.digest in (None, kept.digest) and all(
        path.is_file() and path.stat().st_size == kept.members[name] for name, path in sizes.items()
    )


def _record(folder: Path) -> dict[str, Fetched]:
    try:
        files = json.loads((folder / RECORD).read_text())["files"]
        return {entry["name"]: Fetched.model_validate(entry) for entry in files}
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return {}


def _write_record(folder: Path, one: PublicSet, files: dict[str, Fetched]) -> None:
    document = {
        "set": one.name,
        "licence": one.licence,
        "origin": one.origin,
        "files": [file.model_dump() for file in files.values()],
    }
    with atomic_file(folder / RECORD) as file:
        file.write((json.dumps(document, indent=2) + "\n").encode())
