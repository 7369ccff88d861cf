"""Nowcasts as .npz: one file for each issue time."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec, make_directory, write_whole


class NpzSink:
    """Writes `DIR/nowcast_<issue time>.npz`."""

    def __init__(self, rest: str, spec: SinkSpec | None = None) -> None:
        """Make the directory `rest`."""
        path = Path(rest)
        make_directory(path)
        self.path, self.name = path, f"npz:{path}"

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`."""
        write_whole(self.path / f"{nowcast.name}.npz", npz_bytes(nowcast))

    def close(self) -> None:
        """Nothing is open."""


def npz_bytes(nowcast: Nowcast) -> bytes:
    """A nowcast as an .npz file.

    It holds `frames` and `context` in physical units, `units`, `quantity`, `made_by` (JSON), and,
    where the frames carry times, `issue_time`, `valid_times` and `context_times` (datetime64, UTC);
    where they carry a grid, `affine` (left, top, pixel width, pixel height) and `crs_wkt`; where a
    part was not observed, `observed` (H, W).
    """
    arrays: dict[str, Any] = {
        "frames": nowcast.frames,
        "context": nowcast.context,
        "units": np.asarray(nowcast.units),
        "quantity": np.asarray(nowcast.quantity),
        "made_by": np.asarray(json.dumps(nowcast.made_by)),
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
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _times(times: tuple[datetime, ...]) -> NDArray[np.datetime64]:
    naive = [time.astimezone(timezone.utc).replace(tzinfo=None) for time in times]
    return np.asarray(naive, dtype="datetime64[us]")
