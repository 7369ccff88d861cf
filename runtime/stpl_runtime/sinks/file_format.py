"""Kinds of files that nowcasts are written as, each in the file of its sink.

A sink's module that makes files has `FORMATS`. With its word in `stpl_runtime.sink.SINKS`, its
kinds are known wherever a nowcast becomes a file: `predict --out`, attachments, `/nowcast/latest`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from stpl_core.errors import UsageError
from stpl_core.readers.libraries import reads_with
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SINKS, sink_error, write_whole, write_whole_directory


@dataclass(frozen=True)
class FileFormat:
    """One kind of file; of `content` and `fill` it has one."""

    suffixes: tuple[str, ...]
    """Lower case, with the dot; the first is that of the files in a sink's directory."""
    content: Callable[[Nowcast], bytes] | None = None
    """Makes the bytes of a file. OSError: a library wants a file for a moment, and has no room."""
    fill: Callable[[Nowcast, Path], None] | None = None
    """Writes into an empty directory, where it is one."""
    extra: str = ""
    """Of pip, that brings its libraries."""
    libraries: tuple[str, ...] = ()
    """What is imported to write it; ours need none."""
    media_type: str = ""
    """Of HTTP; empty: it is not sent."""
    kind: Literal["data", "picture", "animation"] = "data"
    takes_batch: bool = False
    """Whether it holds several sequences, with one axis more."""
    holds_chances: bool = False
    """Whether it holds the chances of events beside the frames."""
    holds_members: bool = False
    """Whether it holds the members of an ensemble beside the frames."""

    @property
    def word(self) -> str:
        """Its first suffix without the dot."""
        return self.suffixes[0][1:]

    def check_installed(self) -> None:
        """Raise MissingExtraError where a library that it needs is not installed."""
        with reads_with(self.extra):
            for library in self.libraries:
                import_module(library)

    def bytes_of(self, nowcast: Nowcast) -> bytes:
        """The content of a file.

        Raises:
            UsageError: a batch, in a kind for one sequence.
            MissingExtraError: a library is not installed.
            OSError: see `content`.
        """
        assert self.content is not None, "a kind of directory"
        self._refuse_batch(nowcast)
        return self.content(nowcast)

    def write(self, path: Path, nowcast: Nowcast) -> None:
        """Write a nowcast; it is there whole or not at all.

        Raises:
            UsageError: a batch, in a kind for one sequence; or a directory that is there already.
            MissingExtraError: a library is not installed.
            SinkError: it could not be written.
        """
        fill = self.fill
        if fill is not None:
            self._refuse_batch(nowcast)
            write_whole_directory(path, lambda directory: fill(nowcast, directory))
            return
        try:
            content = self.bytes_of(nowcast)
        except OSError as error:
            raise sink_error(path, 0, error) from error
        write_whole(path, content)

    def _refuse_batch(self, nowcast: Nowcast) -> None:
        if nowcast.frames.ndim != 4 and not self.takes_batch:
            what = "file" if self.kind == "data" else "picture"
            raise UsageError(
                f"{len(nowcast.frames)} sequences for one {self.suffixes[0]} {what}",
                expected="one sequence (T, C, H, W)",
                fix="--out FILE.npz for many",
            )


def file_formats() -> list[FileFormat]:
    """Every kind, in the order of the sinks."""
    modules = dict.fromkeys(place.partition(":")[0] for place in SINKS.values())
    return [one for name in modules for one in getattr(import_module(name), "FORMATS", ())]


def file_suffixes() -> tuple[str, ...]:
    """The suffixes of every kind."""
    return tuple(suffix for one in file_formats() for suffix in one.suffixes)


def format_of(suffix: str) -> FileFormat:
    """The kind of files that end in one of `file_suffixes()`."""
    return next(one for one in file_formats() if suffix.lower() in one.suffixes)


def attachments() -> dict[str, FileFormat]:
    """Word -> kind, of those that go along with a message: what is sent, but for animations.

    The usual one, .npz, comes first.
    """
    found = {one.word: one for one in file_formats() if one.media_type and one.kind != "animation"}
    return {word: found[word] for word in sorted(found, key=lambda word: (word != "npz", word))}
