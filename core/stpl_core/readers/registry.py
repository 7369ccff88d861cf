"""Which reader reads a path: by `--reader`, by the end of the name, by a look inside."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from pathlib import Path
from typing import cast

from stpl_core.errors import FrameError, UsageError
from stpl_core.files import no_rights
from stpl_core.reader import Reader
from stpl_core.readers.hdf5 import unknown_layout
from stpl_core.readers.hdf5_checks import is_hdf5
from stpl_core.readers.libraries import decoding, refuse_empty
from stpl_core.readers.names import visible_files
from stpl_core.readers.packed import is_archive, is_packed, names_in, unpacked

GROUP = "stpl_deploy.readers"
"""The group of entry points of other packages."""

BUILT_IN = (
    "odim",
    "knmi",
    "radolan",
    "fmi_pgm",
    "mch_gif",
    "geotiff",
    "mrms",
    "era5",
    "netcdf",
    "zarr",
    "taxibj",
    "kth",
    "moving_mnist",
    "video",
    "meteonet",
    "arrays",
    "pictures",
)
"""Words of our own readers, each a module beside this one; of two that could read a file, the
first whose `recognises` agrees does."""


_LOOKED_AT = 20
"""Files of an archive that may be others, such as a README, before the first of frames."""


@dataclass(frozen=True)
class Choice:
    """What will be read, and by whom."""

    word: str
    reader: Reader
    paths: list[Path]
    """Files, or the one folder that belongs together."""


def words() -> list[str]:
    """Every word that `--reader` knows."""
    return [*BUILT_IN, *(point.name for point in _installed())]


@cache
def _installed() -> tuple[EntryPoint, ...]:
    """Readers of other packages; looked up once, which takes longer than to read a frame."""
    return tuple(entry_points(group=GROUP))


def load_reader(word: str) -> Reader:
    """The reader of a word.

    Raises:
        UsageError: there is none of this name, or another package's does not load.
    """
    if word in BUILT_IN:
        return cast(Reader, importlib.import_module(f"stpl_core.readers.{word}"))
    if word.startswith("pysteps:"):
        from stpl_core.readers.pysteps_importers import pysteps_reader

        return cast(Reader, pysteps_reader(word))
    for point in (one for one in _installed() if one.name == word):
        try:
            reader = point.load()
        except Exception as error:  # whatever another package's import raises
            raise UsageError(
                f"reader {word} ({point.value}) does not load: {error}",
                expected="a module with read, SUFFIXES and ABOUT",
                fix="repair or uninstall the package it comes from",
            ) from error
        return cast(Reader, reader)
    near = difflib.get_close_matches(word, words(), n=1)
    raise UsageError(
        f"no reader {word}",
        expected=f"one of {', '.join(words())}, or pysteps:NAME for an importer of pysteps",
        fix=f"--reader {near[0] if near else 'arrays'}",
    )


def choose(path: Path, word: str | None = None) -> Choice:
    """Find the reader of a file or folder, and the files it will read, in no order.

    Args:
        path: a file, or a folder whose files (of all subfolders) belong together.
        word: the user's choice.

    Raises:
        FrameError: nothing is there, or nobody or several could read it.
        UsageError: `word` is no reader.
    """
    if not path.exists():
        raise FrameError(f"no file or folder {path}", expected="data", fix="check the path")
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise no_rights(path)
    if word is not None:
        reader = load_reader(word)
        return Choice(word, reader, _paths(path, reader, word))
    readers = all_readers()
    if path.is_dir():
        for name, reader in readers.items():
            if _claims(reader, path):
                return Choice(name, reader, [path])
    files = [path] if path.is_file() else visible_files(path)
    if not files:
        raise FrameError(f"{path} holds no file", expected="frames", fix="check the path")
    if files == [path] and is_archive(path.name):
        refuse_empty(path)
        name = _by_what_it_packs(path)
        return Choice(name, readers[name], [path])
    known = {name: r for name, r in readers.items() if any(reads_name(r, f) for f in files)}
    name = _by_content(path, files, known)
    return Choice(name, readers[name], [f for f in files if reads_name(readers[name], f)])


def needs_unpacking(path: Path, reader: Reader) -> bool:
    """Whether a file is packed, and its reader does not unpack it itself."""
    unpacks_itself = path.name.lower().endswith(reader.SUFFIXES)
    return is_packed(path.name) and not unpacks_itself and path.is_file()


def all_readers() -> dict[str, Reader]:
    """Every reader there is, but for another package's that does not load: the rest still read."""
    readers: dict[str, Reader] = {}
    for word in words():
        with contextlib.suppress(UsageError):
            readers[word] = load_reader(word)
    return readers


def _paths(path: Path, reader: Reader, word: str) -> list[Path]:
    if path.is_file():
        return [path]
    if _claims(reader, path):
        return [path]
    files = [file for file in visible_files(path) if reads_name(reader, file)]
    if not files:
        raise FrameError(
            f"{path} holds no file for the reader {word}",
            expected=f"names that end in {', '.join(reader.SUFFIXES) or 'anything it knows'}",
            fix="check the path, or name another --reader",
        )
    return files


def _by_content(path: Path, files: list[Path], known: dict[str, Reader]) -> str:
    """Of the readers whose suffixes fit, the one that recognises the first file it would read."""
    if not known:
        inside = [Path(name) for file in files[:_LOOKED_AT] for name in names_in(file)]
        endings = sorted({"".join(one.suffixes[-2:]) or one.name for one in inside})
        found = f"holds files that end in {', '.join(endings[:5])}"
        if path.is_file():
            found = f"ends in {endings[0]}" if path.suffix else "is of no kind that is known"
        raise FrameError(
            f"{path} {found}",
            expected=f"what one of these readers reads: {', '.join(words())}",
            fix=_way_on(path)
            or "--reader WORD if it is one of these under another name, or numpy.save the numbers",
        )
    groups = {
        frozenset(file for file in files if reads_name(reader, file)) for reader in known.values()
    }
    if len(groups) > 1:
        able = [name for name, reader in known.items() if _reads_some(reader, files)] or list(known)
        raise FrameError(
            f"{path} holds files for the readers {', '.join(able)}",
            expected="files of one kind",
            fix=f"--reader {able[0]} reads only its own, or another of these words",
        )
    sample = min(next(iter(groups)))
    refuse_empty(sample)
    if is_packed(sample.name) and not all(
        sample.name.lower().endswith(reader.SUFFIXES) for reader in known.values()
    ):
        return _by_what_it_packs(sample)
    for name, reader in known.items():
        recognises = getattr(reader, "recognises", None)
        with decoding(sample, name):
            if recognises is None or recognises(sample):
                return name
    if is_hdf5(sample):
        raise unknown_layout(sample, list(known))
    raise FrameError(
        f"{sample} is nothing that the readers {_either(known)} recognise",
        expected=" or ".join(reader.ABOUT for reader in known.values()),
        fix=_way_on(sample)
        or f"--reader {next(iter(known))} if it should be that, or another --reader",
    )


def _way_on(path: Path) -> str:
    """What to type for pictures that may move, which no reader reads; empty for other files."""
    end = path.suffix.lower()
    if end in (".gif", ".apng"):
        return f"ffmpeg -i {path.name} -c:v ffv1 film.mkv, or as PNG if it is one picture"
    if end == ".webp":
        made = f"{path.stem}.png"
        code = f"Image.open({path.name!r}).save({made!r}, save_all=True)"
        return f'python -c "from PIL import Image; {code}"'
    return ""


def _reads_some(reader: Reader, files: list[Path]) -> bool:
    """Whether it recognises the first of the files that its names fit."""
    recognises = getattr(reader, "recognises", None)
    first = min(file for file in files if reads_name(reader, file))
    try:
        return recognises is None or is_packed(first.name) or bool(recognises(first))
    except Exception:  # a broken file is nobody's
        return False


def _by_what_it_packs(sample: Path) -> str:
    """The reader of the first file in a packed one that has a reader."""
    with unpacked(sample) as files:
        first: FrameError | None = None
        for file in islice(files, _LOOKED_AT):
            found = _word_or_error(file)
            if isinstance(found, str):
                return found
            first = first or found
        raise first or FrameError(f"{sample} holds no file", expected="frames", fix="check it")


def _word_or_error(file: Path) -> str | FrameError:
    try:
        return choose(file).word
    except FrameError as error:
        return error


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)


def reads_name(reader: Reader, path: Path) -> bool:
    """By its name, or that of a file in it."""
    names = (path.name, *names_in(path)) if is_packed(path.name) else (path.name,)
    pattern: re.Pattern[str] | None = getattr(reader, "NAMES", None)
    return any(
        (bool(reader.SUFFIXES) and name.lower().endswith(reader.SUFFIXES))
        or (pattern is not None and pattern.fullmatch(name) is not None)
        for name in names
    )


def _claims(reader: Reader, folder: Path) -> bool:
    recognises = getattr(reader, "recognises", None)
    return recognises is not None and bool(recognises(folder))
