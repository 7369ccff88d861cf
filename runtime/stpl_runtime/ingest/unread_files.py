"""Files that a source sees and does not read: reported once by their kinds, then counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

from stpl_core.errors import FrameError
from stpl_core.readers.names import UNFINISHED
from stpl_core.readers.registry import words

_KINDS = 5
"""Kinds that are named; `others` stands for what comes after."""

_RECURSIVE = "--source-option recursive=yes reads"


@dataclass(frozen=True)
class UnreadCount:
    """What was passed over so far."""

    files: int = 0
    kinds: tuple[str, ...] = ()
    """Ends of their names, in the order in which they were met."""
    folders: int = 0

    @property
    def count(self) -> int:
        """Files and folders."""
        return self.files + self.folders

    def __str__(self) -> str:
        """Such as `3 files (.log, .xyz) and 1 subfolder`."""
        kinds = [*self.kinds[:_KINDS], *(["others"] if len(self.kinds) > _KINDS else [])]
        parts = [f"{_counted(self.files, 'file')} ({', '.join(kinds)})"] if self.files else []
        parts += [_counted(self.folders, "subfolder")] if self.folders else []
        return " and ".join(parts) or "nothing"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@runtime_checkable
class HasUnreadFiles(Protocol):
    """A source that chooses by the ends of names."""

    unread_files: Unread


class Unread:
    """Counts names of one source that it does not read; `listed` is for its thread alone."""

    def __init__(self, reads: Sequence[str]) -> None:
        """Start with none.

        Args:
            reads: the ends of the names that are read.
        """
        self.reads = tuple(reads)
        self._now = UnreadCount()
        self._there: set[int] = set()  # hashes of names: no more than the newest listing has

    def now(self) -> UnreadCount:
        """What was passed over so far."""
        return self._now

    def listed(self, names: Iterable[tuple[str, bool]]) -> None:
        """Count what was not there before.

        Args:
            names: each name (or path) of a whole listing that is not read, and whether it is a
                folder.
        """
        before, self._there = self._there, set()
        files, folders = self._now.files, self._now.folders
        kinds = dict.fromkeys(self._now.kinds)
        for name, is_folder in names:
            if name.lower().endswith(UNFINISHED):
                continue
            key = hash(name)
            self._there.add(key)
            if key in before:
                continue
            folders, files = folders + is_folder, files + (not is_folder)
            if not is_folder and len(kinds) <= _KINDS:
                kinds.setdefault(PurePosixPath(name).suffix.lower() or "no ending")
        self._now = UnreadCount(files, tuple(kinds), folders)

    def line(self, name: str) -> str:
        """What to log of the source `name`."""
        text = f"{name}: passes over {self._now}; it reads {', '.join(self.reads)}"
        return f"{text}; {_RECURSIVE} subfolders too" if self._now.folders else text

    def nothing_else(self, name: str) -> FrameError:
        """The error of a source that has nothing but these."""
        fix = "check the path, or convert the files first"
        if self._now.folders:
            fix = f"{_RECURSIVE} subfolders too; or {fix}"
        return FrameError(
            f"{name} holds {self._now}, and no frame",
            expected=f"what one of these readers reads: {', '.join(words())}",
            fix=fix,
        )
