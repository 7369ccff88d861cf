"""What a source holds, as far as its recipe and settings need it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stpl_core.errors import FrameError, UsageError
from stpl_core.frames import FrameShape
from stpl_core.readers.names import visible_files
from stpl_core.readers.opening import joined_pieces
from stpl_core.readers.survey import Survey, Surveyor
from stpl_runtime.ingest.decoding import file_suffixes
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.sources.look import LiveLook, fitting_recipe, look_at

_ENOUGH = 24
"""Frames of an archive that are looked at."""
_SECONDS = 10.0
_MOST_LISTED = 5


@dataclass(frozen=True)
class FoundSource:
    """A source, looked at."""

    word: str
    """As `stpl-deploy serve` takes it: an absolute path, or an address without a password."""
    archive: Path | None
    """Where frames lie that can be trained on; None: a live source keeps none."""
    quantity: str
    units: str
    shape: FrameShape
    cadence_s: float | None
    """None: not known yet."""
    low: float | None
    high: float | None
    recipe: str
    """Of ours, whose codec fits; empty where none does."""
    codec: dict[str, Any]
    """One that fits the values in their own unit."""
    secret: bool = False
    """The address came with a password, which `word` leaves out."""

    @property
    def text(self) -> str:
        """What it holds, in one line."""
        size = "x".join(map(str, self.shape))
        unit = "" if self.units == "1" else f" in {self.units}"
        pace = "" if self.cadence_s is None else f", {self.cadence_s:g} s apart"
        return f"{self.quantity}{unit}, frames of {size}{pace}"


def find_source(word: str | None, here: Path) -> FoundSource:
    """Look at a source; without a word, at the only one that lies in a folder.

    Args:
        word: as `stpl-deploy serve` takes it, or None.
        here: where to look without one.

    Raises:
        UsageError: there is none, or there are several.
        StplError: what lies there cannot be read, or nothing comes.
    """
    if word is None:
        word = str(_only(candidates(here), here))
    if (path := Path(word).expanduser()).exists():
        if not str(path.resolve()).isprintable():
            raise UsageError(
                f"{str(path)!r} cannot be written into a settings file",
                expected="a path of printable characters",
                fix="a link to it of another name",
            )
        return _from_survey(path.resolve(), _survey(path))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", word):
        return _from_look(word, look_at(word, _SECONDS))
    raise FrameError(
        f"no file or folder {word}",
        expected="a folder of frames, an archive, or an address such as rtsp://HOST/PATH",
        fix="check the path",
    )


def candidates(here: Path) -> list[Path]:
    """Folders and files right below `here` that hold what readers read; hidden ones are left out.

    A bundle, a run and what earlier commands wrote hold a manifest or a recipe, and are none.
    """
    ends = file_suffixes()
    found = []
    for path in sorted(here.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() or path.suffix == ".zarr":
            holds = path.name.lower().endswith(ends) or path.suffix == ".zarr"
        else:
            ours = any((path / name).exists() for name in ("manifest.json", "recipe.toml"))
            holds = not ours and any(
                file.name.lower().endswith(ends) for file in visible_files(path)
            )
        if holds:
            found.append(path)
    return found


def _only(found: Sequence[Path], here: Path) -> Path:
    if len(found) == 1:
        return found[0]
    where = "this folder" if here == Path() else str(here)
    if not found:
        raise UsageError(
            f"no frames in {where}",
            expected="a folder of frames or an archive here, or the source on the command line",
            fix="stpl-deploy new FOLDER SOURCE; frames to try it with: stpl-deploy data fetch",
        )
    named = ", ".join(path.name for path in found[:_MOST_LISTED])
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    raise UsageError(
        f"several sources in {where}: {named}{more}",
        expected="one",
        fix=f"stpl-deploy new FOLDER {shlex.quote(found[0].name)}",
    )


def _survey(path: Path) -> Survey:
    """Of the first frames; archives may hold years."""
    surveyor, count = Surveyor(), 0
    with closing(joined_pieces(path)) as pieces:
        for part, files in pieces:
            surveyor.add(part, files)
            count += len(part.time)
            if count >= _ENOUGH:
                break
    return surveyor.survey()


def _from_survey(path: Path, survey: Survey) -> FoundSource:
    quantity = survey.quantity
    recipe, codec = fitting_recipe(quantity.name, quantity.units, survey.low, survey.high)
    return FoundSource(
        word=str(path),
        archive=path,
        quantity=quantity.name,
        units=quantity.units,
        shape=survey.shape,
        cadence_s=survey.cadence_s if survey.observed else None,
        low=survey.low,
        high=survey.high,
        recipe=recipe,
        codec=codec,
    )


def _from_look(word: str, look: LiveLook) -> FoundSource:
    plain = without_credentials(word)
    return FoundSource(
        word=plain,
        archive=None,
        quantity=look.quantity,
        units=look.units,
        shape=look.shapes[0],
        cadence_s=look.cadence_s or look.arrivals_s,
        low=look.low,
        high=look.high,
        recipe=look.recipe,
        codec=look.codec,
        secret=plain != word,
    )
