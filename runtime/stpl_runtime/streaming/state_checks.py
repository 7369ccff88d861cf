"""Whether what a state file holds fits the stream that takes it up.

The file checks its own bytes, but it is no secret how: what another wrote into it may have any
form. Whatever does not fit is damage, and the window starts empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.frames import Frame
from stpl_runtime.ledger import Counts

if TYPE_CHECKING:
    from stpl_runtime.nowcasting.nowcaster import Nowcaster, NowcasterState, Tally
    from stpl_runtime.nowcasting.past import PastState
    from stpl_runtime.nowcasting.window import WindowState

_MOST = 2**53
_HOW = ("", "held", "bridged")


def check_counts(counts: Counts, tally: Tally) -> None:
    """Refuse counts that are no counts.

    Raises:
        ValueError: one is not.
    """
    for name, value in {**asdict(counts), **asdict(tally)}.items():
        if not _is_whole(value) or value < 0:
            raise ValueError(f"{name} is {value!r}")


def check_window(window: WindowState, nowcaster: Nowcaster) -> None:
    """Refuse frames of another shape, times off their slots, slots that are none.

    Raises:
        ValueError, OverflowError: there is one.
    """
    grid = window.grid
    if grid is not None:
        if not isinstance(grid.cadence_s, (int, float)) or not 0 < grid.cadence_s < 1e9:
            raise ValueError(f"the cadence is {grid.cadence_s!r}")
        _check_time(grid.phase)
    if not isinstance(window.stated, bool) or (window.entries and grid is None):
        raise ValueError("frames without a grid of time")
    _check_numbers(serial=window.serial, gaps=window.gaps)
    _check_numbers_or_none(newest=window.newest)
    if window.newest is not None and window.newest not in window.entries:
        raise ValueError(f"the newest slot, {window.newest}, has no frame")
    for slot, entry in window.entries.items():
        _check_numbers(slot=slot, serial=entry.serial)
        assert grid is not None, "checked above"
        _check_frame(entry.frame, nowcaster)
        if entry.how not in _HOW or window.newest is None or slot > window.newest:
            raise ValueError(f"the frame of slot {slot} is not of this window")
        # What only the reserve keeps may be of an earlier time line, with slots of its own.
        in_window = slot > window.newest - nowcaster.window.context
        if in_window and abs(grid.offset(entry.frame.valid_time) - slot) > 1:
            raise ValueError(f"the frame of slot {slot} is of another time")
    if grid is not None and window.newest is not None:
        _check_time(grid.phase + timedelta(seconds=grid.cadence_s * (window.newest + 1)))
    for frame, _ in window.learning:
        _check_frame(frame, nowcaster)
    between = window.between
    if not _is_whole(between.parts) or not _is_whole(between.count):
        raise ValueError(f"frames between the slots are counted as {between.count!r}")
    if not isinstance(between.fitted, bool):
        raise ValueError(f"whether a frame fitted is {between.fitted!r}")
    for time in window.misfits.times:
        _check_time(time)


def check_state(state: NowcasterState, past: PastState | None, nowcaster: Nowcaster) -> None:
    """Refuse a newest nowcast or a carried state of another form.

    Raises:
        ValueError: there is one.
    """
    _check_numbers_or_none(done=state.done_slot)
    if state.last is not None:
        slot, frames = state.last
        _check_numbers(last=slot)
        shape = (nowcaster.horizon, *nowcaster.manifest.frame)
        _check_array("last", frames, shape, np.dtype(np.float32))
    if past is None:
        return
    _check_numbers_or_none(ahead=past.ahead_serial)
    _check_numbers(slot=past.slot)
    session = nowcaster.session
    zero = session.state_arrays(session.zero_state(1))
    for arrays in (past.state, *((past.ahead,) if past.ahead else ())):
        if arrays.keys() != zero.keys():
            raise ValueError("a carried state with other names")
        for name, expected in zero.items():
            _check_array(name, arrays[name], expected.shape, expected.dtype)


def _check_frame(frame: Frame, nowcaster: Nowcaster) -> None:
    shape = nowcaster.manifest.frame
    _check_time(frame.valid_time)
    if frame.mask is not None:
        _check_array("a mask", frame.mask, shape[1:], np.dtype(np.bool_))
    _check_array("a frame", frame.data, shape, np.dtype(np.float32), frame.mask)
    texts = (frame.standard_name, frame.source_id, *frame.notes, *frame.notes.values())
    if not isinstance(frame.notes, Mapping) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a frame with notes that are no text")
    grid = frame.grid
    if grid is not None:
        fits = (grid.height, grid.width) == shape[1:] and isinstance(grid.crs_wkt, str)
        numbers = all(isinstance(n, (int, float)) and math.isfinite(n) for n in grid.affine)
        if not (fits and numbers and len(grid.affine) == 4 and isinstance(grid.geographic, bool)):
            raise ValueError("a frame on another grid")


def _check_array(
    name: str,
    array: NDArray[Any],
    shape: tuple[int, ...],
    kind: np.dtype[Any],
    mask: NDArray[np.bool_] | None = None,
) -> None:
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {kind} {shape}")
    seen = array if mask is None else array[:, mask]
    if kind.kind == "f" and not np.isfinite(seen).all():
        raise ValueError(f"{name} holds values that are NaN or infinite")


def _check_time(time: Any) -> None:
    if time.tzinfo is None or not 1 < time.year < 9999:
        raise ValueError(f"the time {time}")


def _check_numbers(**numbers: object) -> None:
    for name, number in numbers.items():
        if not _is_whole(number):
            raise ValueError(f"{name} is {number!r}")


def _check_numbers_or_none(**numbers: object) -> None:
    _check_numbers(**{name: number for name, number in numbers.items() if number is not None})


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST
