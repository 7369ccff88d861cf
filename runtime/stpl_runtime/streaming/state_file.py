"""The state of one stream in a file: after kill -9 it goes on as if nothing had been.

One .npz file, replaced as a whole after each change: the window's frames with masks, times and
slots, the time grid, the carried state where there is one, and the counts. What was waiting
unread, or was still being written by a sink, is not in it: a source that keeps its data gives the
frames again, and the newest nowcast is made again with the same bits unless every sink had it.
"""

from __future__ import annotations

import errno
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import EnvironmentFault, UsageError
from stpl_core.files import atomic_file, check_writable
from stpl_core.frames import Frame
from stpl_core.grid import Grid
from stpl_core.readers.npz import open_npz
from stpl_runtime.engines.tiled import tiling_of
from stpl_runtime.ledger import Counts
from stpl_runtime.nowcasting.cadence import Between
from stpl_runtime.nowcasting.nowcaster import Nowcaster, NowcasterState, Tally
from stpl_runtime.nowcasting.past import PastState
from stpl_runtime.nowcasting.time_line_restart import Misfits
from stpl_runtime.nowcasting.window import Entry, WindowState
from stpl_runtime.streaming.state_checks import check_counts, check_state, check_window
from stpl_runtime.timing import TimeGrid

VERSION = 1
_SYNC_S = 5.0
"""A disk takes tens of milliseconds, and a camera's frames come as often."""
Arrays = dict[str, NDArray[Any]]


class StateFile:
    """Saves and restores one nowcaster; a file that cannot be used is never a crash."""

    def __init__(self, path: Path, nowcaster: Nowcaster) -> None:
        """Look at nothing yet; see `restore`."""
        self.path, self._nowcaster = path, nowcaster
        self._synced = float("-inf")
        self.restored = False
        """Whether there was a state, and it was taken up."""
        cadence_s = nowcaster.window.stated_s
        self._identity: dict[str, Any] = {
            "bundle": nowcaster.made_by["bundle"],
            "--horizon": nowcaster.horizon,
            "--context": nowcaster.mode,
            "--cadence": "learned" if cadence_s is None else cadence_s,
            "--grid": "x".join(map(str, nowcaster.manifest.frame[1:])),
        }
        tiling = tiling_of(nowcaster.session)
        if tiling is not None:
            self._identity["--overlap"] = tiling.overlap

    def restore(self) -> str:
        """Take up the state where there is one.

        Returns:
            What was found, in words.

        Raises:
            UsageError: it belongs to another bundle, or to other options; or it is no file, or
                may not be read.
            EnvironmentFault: nothing may be written where it lies.
        """
        _check_place(self.path)
        if not self.path.exists():
            return f"no state in {self.path} yet: the window starts empty"
        try:
            meta, arrays = _read(self.path)
            same = meta["identity"] if meta["version"] == VERSION else {"version": meta["version"]}
            same = dict(same)
        except (IsADirectoryError, PermissionError) as error:
            raise UsageError(
                f"{self.path} cannot be read: {error.strerror}",
                expected="a file that this user may read and write",
                fix=f"--state-file {self.path / 'stream.state' if self.path.is_dir() else 'FILE'}",
            ) from error
        except Exception as error:  # damaged bytes raise whatever they like
            return self._set_aside(error)
        self._check(same)
        try:
            found = _Found(meta, arrays)
            check_counts(found.counts, found.state.tally)
            check_window(found.window, self._nowcaster)
            check_state(found.state, found.past, self._nowcaster)
        except Exception as error:  # as above
            return self._set_aside(error)
        nowcaster = self._nowcaster
        nowcaster.window.state, nowcaster.state = found.window, found.state
        nowcaster.ledger.restore(found.counts)
        if found.past is not None:
            nowcaster.past.restore(found.past)
        self.restored = True
        return f"resuming from {self.path}: {len(found.window.entries)} frames in the window"

    def save(self, *, published: bool) -> None:
        """Write the state.

        A killed process loses nothing of it. A power cut may: once in five seconds the disk is
        waited for, and a file that was cut short is seen to be damaged.

        Args:
            published: every sink has dealt with the newest nowcast; else a restart makes it again.

        Raises:
            OSError: it cannot be written; what was there is untouched.
        """
        arrays: Arrays = {}
        meta = {"version": VERSION, "identity": self._identity, **self._facts(arrays, published)}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # names are ours
        now = time.monotonic()
        sync = now - self._synced >= _SYNC_S
        with atomic_file(self.path, sync=sync, private=True) as file:
            file.write(buffer.getbuffer())
        self._synced = now if sync else self._synced

    def _check(self, identity: Mapping[str, Any]) -> None:
        for name, ours in {**self._identity, "version": VERSION}.items():
            theirs = identity.get(name, VERSION if name == "version" else None)
            if theirs != ours:
                raise UsageError(
                    f"{self.path} is the state of a stream with {name} {theirs}",
                    expected=f"{name} {ours}",
                    fix="the same options as before, another --state-file, or remove it",
                )

    def _set_aside(self, error: Exception) -> str:
        kept = self.path.with_name(f"{self.path.name}.damaged")
        try:
            self.path.replace(kept)
        except OSError:
            kept = self.path
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{self.path} is damaged ({reason}); kept as {kept}: the window starts empty"

    def _facts(self, arrays: Arrays, published: bool) -> dict[str, Any]:
        nowcaster = self._nowcaster
        window, state = nowcaster.window.state, nowcaster.state
        tally, done = asdict(state.tally), state.done_slot
        if not published and done is not None and done == window.newest:
            done = done - 1
            filled = any(entry.how for entry in nowcaster.window.complete() or ())
            tally["issued"] = max(0, tally["issued"] - 1)
            tally["standing_in"] = max(0, tally["standing_in"] - filled)
        if state.last is not None:
            arrays["last"] = state.last[1]
        return {
            "grid": None if window.grid is None else _grid_facts(window.grid),
            "stated": window.stated,
            "newest": window.newest,
            "serial": window.serial,
            "gaps": window.gaps,
            "entries": [
                {"slot": e.slot, "serial": e.serial, "how": e.how}
                | _frame_facts(e.frame, f"e{n}", arrays)
                for n, e in enumerate(window.entries.values())
            ],
            "learning": [
                _frame_facts(frame, f"l{n}", arrays) for n, (frame, _) in enumerate(window.learning)
            ],
            "between": asdict(window.between),
            "misfits": [time.isoformat() for time in window.misfits.times],
            "tally": tally,
            "done": done,
            "last": None if state.last is None else state.last[0],
            "counts": asdict(nowcaster.ledger.snapshot()),
            "past": _past_facts(nowcaster.past.kept(), arrays),
        }


class _Found:
    """What a file holds, made into the objects it came from."""

    def __init__(self, meta: Mapping[str, Any], arrays: Arrays) -> None:
        self.window = WindowState(
            grid=_map(meta["grid"], lambda g: TimeGrid(g["cadence_s"], _time(g["phase"]))),
            stated=meta["stated"],
            newest=meta["newest"],
            serial=meta["serial"],
            gaps=meta["gaps"],
            entries={
                e["slot"]: Entry(e["slot"], e["serial"], _frame(e, arrays), None, e["how"])
                for e in meta["entries"]
            },
            learning=[(_frame(facts, arrays), None) for facts in meta["learning"]],
            # Files of earlier versions have neither.
            between=Between(**meta.get("between", {})),
            misfits=Misfits(map(_time, meta.get("misfits", ()))),
        )
        last = _map(meta["last"], lambda slot: (slot, arrays["last"]))
        self.state = NowcasterState(Tally(**meta["tally"]), meta["done"], last=last)
        counts = Counts(**meta["counts"])
        waiting = counts.pending - len(self.window.learning)  # these are gone
        facts = {**meta["counts"], "received": counts.received - waiting}
        self.counts = Counts(**{**facts, "pending": len(self.window.learning)})
        if not self.counts.add_up:
            raise ValueError("the counts do not add up")
        self.past: PastState | None = _map(
            meta["past"],
            lambda past: PastState(
                past["slot"],
                {name: arrays[f"state.{name}"] for name in past["names"]},
                past["ahead"],
                {} if past["ahead"] is None else {n: arrays[f"ahead.{n}"] for n in past["names"]},
            ),
        )


def _check_place(path: Path) -> None:
    """Refuse a place without rights at the start: found out after a crash, it is too late.

    A full disk is no reason: it may have room again before the state is needed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path.parent)
    except OSError as error:
        wrong = (PermissionError, NotADirectoryError, FileExistsError)
        if isinstance(error, wrong) or error.errno == errno.EROFS:
            raise EnvironmentFault(
                f"{path} cannot be written: {error.strerror}",
                expected="a folder that this user may write to",
                fix="--state-file FILE in such a folder",
            ) from error


def _map(value: Any, make: Callable[[Any], Any]) -> Any:
    return None if value is None else make(value)


def _read(path: Path) -> tuple[dict[str, Any], Arrays]:
    with open_npz(path) as archive:
        arrays = {name: archive[name] for name in archive.files}  # the checksums are checked here
    return json.loads(bytes(arrays.pop("meta"))), arrays


def _grid_facts(grid: TimeGrid) -> dict[str, Any]:
    return {"cadence_s": grid.cadence_s, "phase": grid.phase.isoformat()}


def _past_facts(past: PastState | None, arrays: Arrays) -> dict[str, Any] | None:
    if past is None:
        return None
    arrays |= {f"state.{name}": array for name, array in past.state.items()}
    arrays |= {f"ahead.{name}": array for name, array in past.ahead.items()}
    return {"slot": past.slot, "names": list(past.state), "ahead": past.ahead_serial}


def _frame_facts(frame: Frame, name: str, arrays: Arrays) -> dict[str, Any]:
    arrays[name] = frame.data
    if frame.mask is not None:
        arrays[f"{name}.mask"] = frame.mask
    return {
        "name": name,
        "time": frame.valid_time.isoformat(),
        "grid": None if frame.grid is None else asdict(frame.grid),
        "standard_name": frame.standard_name,
        "notes": dict(frame.notes),
        "source_id": frame.source_id,
    }


def _frame(facts: Mapping[str, Any], arrays: Arrays) -> Frame:
    return Frame(
        valid_time=_time(facts["time"]),
        data=arrays[facts["name"]],
        mask=arrays.get(f"{facts['name']}.mask"),
        grid=_map(facts["grid"], lambda grid: Grid(**{**grid, "affine": tuple(grid["affine"])})),
        standard_name=facts["standard_name"],
        notes=facts["notes"],
        source_id=facts["source_id"],
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
