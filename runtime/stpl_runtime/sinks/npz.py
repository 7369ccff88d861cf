"""Nowcasts as .npz, which numpy reads without pickle; and .npy, for `predict`."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_runtime.chances import CHANCE
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.file_format import FileFormat
from stpl_runtime.timing import naive_utc


def npz_bytes(nowcast: Nowcast) -> bytes:
    """A nowcast as an .npz file.

    It holds `frames` and `context` in physical units, `units`, `quantity`, `standard_name`,
    `made_by` and `notes` (JSON), `source_id`, `stand_ins` (of each frame of the context: empty,
    `held` or `bridged`), and, where the frames carry times, `issue_time`, `valid_times` and
    `context_times` (datetime64, UTC); where they carry a grid, `affine` (left, top, pixel width,
    pixel height) and `crs_wkt`; where a part was not observed, `observed` (H, W) of the newest
    frame and `context_observed` (T, H, W). Where chances were asked for, `thresholds` (Q,) and
    `probability_of_exceedance` ([N,] K, Q, C, H, W); an ensemble, `members` ([N,] M, K, C, H, W).
    """
    arrays: dict[str, Any] = {
        "frames": nowcast.frames,
        "context": nowcast.context,
        "units": np.asarray(nowcast.units),
        "quantity": np.asarray(nowcast.quantity),
        "standard_name": np.asarray(nowcast.standard_name),
        "made_by": np.asarray(json.dumps(nowcast.made_by)),
        "notes": np.asarray(json.dumps(dict(nowcast.notes))),
        "source_id": np.asarray(nowcast.source_id),
        "stand_ins": np.asarray(nowcast.context_fill or ("",) * len(nowcast.context), "U8"),
    }
    if nowcast.issue_time is not None:
        arrays["issue_time"] = _times((nowcast.issue_time,))[0]
        arrays["valid_times"] = _times(nowcast.valid_times)
        arrays["context_times"] = _times(nowcast.context_times)
    if nowcast.grid is not None:
        arrays["affine"] = np.asarray(nowcast.grid.affine)
        arrays["crs_wkt"] = np.asarray(nowcast.grid.crs_wkt)
    if nowcast.observed is not None:
        arrays["observed"] = nowcast.observed
    if nowcast.context_observed is not None:
        arrays["context_observed"] = nowcast.context_observed
    if nowcast.chances is not None:
        arrays["thresholds"] = np.asarray(nowcast.chances.thresholds)
        arrays[CHANCE] = nowcast.chances.values
    if nowcast.members is not None:
        arrays["members"] = nowcast.members
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy_bytes(nowcast: Nowcast) -> bytes:
    """The predicted frames alone, as an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, nowcast.frames)
    return buffer.getvalue()


NPZ = FileFormat(
    (".npz",),
    npz_bytes,
    media_type="application/x-npz",
    takes_batch=True,
    holds_chances=True,
    holds_members=True,
)
NPY = FileFormat((".npy",), npy_bytes, takes_batch=True)
FORMATS = (NPZ, NPY)


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`npz:DIR` or `npz:FILE.npz`."""
    return DirectorySink("npz", NPZ, rest, spec)


def _times(times: tuple[datetime, ...]) -> NDArray[np.datetime64]:
    return np.asarray([naive_utc(time) for time in times], dtype="datetime64[us]")
