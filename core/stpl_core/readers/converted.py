"""Our own datasets read back: from Zarr, NetCDF or .npz to pieces again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import CREDITS, Piece, Quantity
from stpl_core.readers.dataset import METRES_WKT
from stpl_core.readers.libraries import reads_with
from stpl_core.readers.npz import open_npz
from stpl_core.safety.budget import check_pixels

if TYPE_CHECKING:
    import xarray as xr

_NOTES = (*CREDITS, "split_rule")
_SAME = 1e-3
"""Of a pixel: less is rounding."""


def pieces_of_dataset(opened: xr.Dataset, block_values: int) -> Iterator[Piece]:
    """Yield the frames of a dataset of ours in blocks of about `block_values` values."""
    frames = opened["frames"]
    facts, quantity, grid = opened.attrs, quantity_of(opened), grid_of(opened)
    files = files_of(opened)
    columns = {
        name: opened[name].values for name in ("sequence", "source", "split") if name in opened
    }
    time = opened["time"].values.astype("datetime64[ns]")
    observed = facts["time_is"] == "observed"
    check_pixels("the dataset", *frames.shape[1:])
    block = max(1, block_values // max(1, int(np.prod(frames.shape[1:]))))
    began = 0  # where the sequence did
    for start, stop in _runs(columns, len(time), block):
        rows = slice(start, stop)
        begins = np.zeros(stop - start, bool)
        begins[0] = start == 0 or columns["sequence"][start] != columns["sequence"][start - 1]
        began = start if begins[0] else began
        yield Piece(
            frames=frames[rows].values,
            state=opened["state"][rows].values,
            grid=grid,
            quantity=quantity,
            source=files[start],
            time=time[rows] if observed else None,
            elapsed_s=None if observed else (time[rows] - time[began]).astype(np.int64) / 1e9,
            cadence_s=facts.get("cadence_s"),
            begins=begins,
            split=int(columns["split"][start]) if "split" in columns else None,
            notes={key: str(facts[key]) for key in _NOTES if key in facts},
        )


def _runs(columns: dict[str, Any], count: int, block: int) -> Iterator[tuple[int, int]]:
    """Stretches of at most `block` frames in which no column changes."""
    changes = np.zeros(count, bool)
    for values in columns.values():
        changes[1:] |= values[1:] != values[:-1]
    edges = [0, *np.flatnonzero(changes).tolist(), count]
    for low, high in pairwise(edges):
        for start in range(low, high, block):
            yield start, min(start + block, high)


def quantity_of(opened: xr.Dataset) -> Quantity:
    """What the numbers of a dataset mean."""
    frame, facts = opened["frames"].attrs, opened.attrs
    zr = (float(facts["zr_a"]), float(facts["zr_b"])) if "zr_a" in facts else None
    return Quantity(
        name=str(frame["long_name"]),
        units=str(frame["units"]),
        standard_name=str(frame.get("standard_name", "")),
        no_echo=float(frame["no_echo_value"]) if "no_echo_value" in frame else None,
        channels=tuple(str(facts["channels"]).split("\n")),
        zr=zr,
        accumulation_s=float(facts["accumulation_s"]) if "accumulation_s" in facts else None,
    )


def files_of(opened: xr.Dataset) -> list[str]:
    """The file that each frame of a dataset came from, `T` of them, as the user would name it."""
    files = str(opened.attrs["files"]).split("\n")
    return [files[line] for line in opened["source"].values.tolist()]


def grid_of(opened: xr.Dataset) -> Grid:
    """Where the pixels of a dataset, or of a part that was cut out of it, lie."""
    left, top, width, height = (float(value) for value in opened.attrs["affine"])
    mapping = opened["crs"].attrs if "crs" in opened.variables else {}
    wkt = str(mapping.get("crs_wkt", mapping.get(METRES_WKT, "")))
    # Of a geostationary grid the coordinates are angles, and the affine is in metres.
    metres = float(mapping["perspective_point_height"]) if METRES_WKT in mapping else 1.0
    left, width = _edge_and_step(opened["x"].values * metres, left, width)
    top, height = _edge_and_step(opened["y"].values * metres, top, height)
    geographic = opened["x"].attrs.get("standard_name") in ("longitude", "grid_longitude")
    rows, columns = opened["frames"].shape[-2:]
    return Grid((left, top, width, height), rows, columns, wkt, geographic)


def _edge_and_step(centres: NDArray[np.float64], edge: float, step: float) -> tuple[float, float]:
    """Of the pixels at `centres`: those given, to the bit, unless a part was cut out or thinned."""
    if len(centres) > 1:
        found = float(centres[-1] - centres[0]) / (len(centres) - 1)
        step = step if abs(found - step) <= _SAME * abs(step) else found
    first = float(centres[0]) - step / 2
    return (edge if abs(first - edge) <= _SAME * abs(step) else first), step


def check_zarr_whole(path: Path, promised: int) -> None:
    """Refuse a store of ours that lost bytes: Zarr would read a lost chunk as no data.

    Raises:
        FrameError: names the store, and how many bytes it has and should have.
    """
    found = chunk_bytes(path)
    if found != int(promised):
        raise FrameError(
            f"{path} has {found} bytes of frames",
            expected=f"{promised}, a whole store",
            fix="copy it again, or stpl-deploy data convert once more",
        )


def chunk_bytes(store: Path) -> int:
    """Bytes of the files that hold frames and their states."""
    return sum(
        Path(folder, name).stat().st_size
        for array in ("frames", "state")
        for folder, _, names in os.walk(store / array)
        for name in names
        if not name.startswith(".z") and name != "zarr.json"
    )


def dataset_of_npz(path: Path) -> xr.Dataset:
    """The dataset that `data convert` wrote as .npz, all of it in memory."""
    with reads_with("frames"):
        import xarray as xr
    with open_npz(path) as archive:
        described = json.loads(str(archive["dataset"]))
        arrays = {name: archive[name] for name in described["variables"]}
    variables = {
        name: (tuple(facts["dims"]), arrays[name], facts["attrs"])
        for name, facts in described["variables"].items()
    }
    opened = xr.Dataset(variables, attrs=described["attrs"])
    return opened.set_coords([name for name in variables if name not in ("frames", "state")])
