"""Which dimension of a CF variable is what: y and x, time, channels, and what must be chosen."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.errors import FrameError, UsageError

if TYPE_CHECKING:
    import xarray as xr

    Pair = tuple[xr.Dataset, xr.DataArray]

_NAMES = {
    "Y": (
        *("y", "yc", "lat", "latitude", "rlat", "south_north", "nj", "ny", "row", "rows", "height"),
        *("j", "line", "lines", "northing", "nrows"),
    ),
    "X": (
        *("x", "xc", "lon", "longitude", "rlon", "west_east", "ni", "nx", "column", "col", "width"),
        *("i", "columns", "cols", "pixel", "pixels", "easting", "ncols"),
    ),
}
_OF_A_PROJECTION = re.compile(r"[xy]_(geostationary|osgb|laea|utm|proj\w*)")
"""Names that end in the projection."""
_ENDS = {
    "Y": ("latitude", "_y_coordinate", "_y_angular_coordinate"),
    "X": ("longitude", "_x_coordinate", "_x_angular_coordinate"),
}
_DEGREES = {"Y": ("degrees_north", "degree_north"), "X": ("degrees_east", "degree_east")}
_CHANNELS = ("channel", "channels", "band", "bands", "variable", "feature", "features")
_SHOWN = 6


def horizontal_dims(opened: xr.Dataset, values: xr.DataArray) -> tuple[str, str]:
    """Names of the dimensions along y and x; two empty strings where a variable is no field.

    What attributes say decides; a name counts only where no dimension has such attributes, and the
    dimension itself says nothing else.
    """
    found = {}
    for axis in ("Y", "X"):
        stated = [str(dim) for dim in values.dims if _stated_axis(opened, dim) == axis]
        named = [
            str(dim)
            for name in _NAMES[axis]
            for dim in values.dims
            if _plain_name(dim) == name and _stated_axis(opened, dim) == ""
        ]
        found[axis] = next(iter(stated or named), "")
    y, x = found["Y"], found["X"]
    return (y, x) if y and x and y != x else ("", "")


def _plain_name(dim: Any) -> str:
    name = str(dim).lower()
    return name[0] if _OF_A_PROJECTION.fullmatch(name) else name


def _stated_axis(opened: xr.Dataset, dim: Any) -> str:
    """`Y` or `X`; another letter where attributes say otherwise; empty where they are silent."""
    attributes = opened[dim].attrs if dim in opened.variables else {}
    if attributes.get("axis"):
        return str(attributes["axis"]).upper()
    units, standard = (str(attributes.get(key, "")) for key in ("units", "standard_name"))
    for axis in ("Y", "X"):
        if standard.endswith(_ENDS[axis]) or units.lower() in _DEGREES[axis]:
            return axis
    if " since " in units:
        return "T"
    return "Z" if standard or attributes.get("positive") else ""


def chosen(pair: Pair, select: tuple[tuple[str, str], ...], where: str) -> tuple[Pair, set[str]]:
    """What the user chose along dimensions; and those of which several labels were chosen.

    Raises:
        UsageError: no such dimension or label.
    """
    opened, values = pair
    several: set[str] = set()
    for name, text in select:
        if name not in values.dims:
            raise UsageError(
                f"--select {name}={text}, and {where} has {values.name} over "
                f"{', '.join(map(str, values.dims))}",
                expected="one of these dimensions",
                fix="leave it out, or name another",
            )
        rows: Any = [_row(opened, values, name, word.strip(), where) for word in text.split(",")]
        if len(rows) > 1:
            several.add(name)
        at = {name: rows if len(rows) > 1 else rows[0]}
        opened, values = opened.isel(at), values.isel(at)
    return (opened, values), several


def _row(opened: xr.Dataset, values: xr.DataArray, name: str, word: str, where: str) -> int:
    labels = label_texts(opened, values, name)
    if word in labels:
        return labels.index(word)
    with suppress(ValueError):  # labels or word that are no numbers
        near = np.isclose([float(label) for label in labels], float(word), rtol=1e-6, atol=0)
        if near.any():
            return int(near.argmax())
    raise UsageError(
        f"--select {name}={word} is not along {name} of {where}",
        expected=f"one of {_shown(labels)}",
        fix=f"--select {name}={labels[0]}",
    )


def label_texts(opened: xr.Dataset, values: xr.DataArray, name: str) -> list[str]:
    """The labels along a dimension; numbers from 0 where it has none."""
    if name not in opened.variables or opened[name].ndim != 1:
        return [str(n) for n in range(values.sizes[name])]
    found = opened[name].values
    if found.dtype.kind == "f":
        return [f"{label:g}" for label in found.astype(np.float64)]
    return [label.decode() if isinstance(label, bytes) else str(label) for label in found]


def squeezed(pair: Pair, plane: tuple[str, str]) -> Pair:
    """Without the dimensions of one, other than y and x; their coordinates become scalars."""
    opened, values = pair
    lone = {dim: 0 for dim in values.dims if dim not in plane and values.sizes[dim] == 1}
    along = {dim: 0 for dim in lone if dim in opened.dims}
    return opened.isel(along), values.isel(lone)


def with_channels(
    opened: xr.Dataset,
    values: xr.DataArray,
    plane: tuple[str, str],
    several: set[str],
    where: str,
) -> tuple[xr.DataArray, tuple[str, ...]]:
    """Values (time, channel, y, x) and the channels' names.

    Raises:
        FrameError: another dimension, such as levels or members, of which one must be chosen.
    """
    others = [str(dim) for dim in values.dims if dim not in ("time", *plane)]
    unclear = [dim for dim in others if dim not in several and not _is_channel(opened, dim)]
    if not unclear and len(others) > 1:
        unclear = others[1:]
    if unclear:
        dim = unclear[0]
        labels = label_texts(opened, values, dim)
        channels_already = [other for other in others if other not in unclear[:1]]
        free = not any(one in several or _is_channel(opened, one) for one in channels_already)
        raise FrameError(
            f"{where} has {values.name} over {', '.join(map(str, values.dims))}: "
            f"{len(labels)} along {dim} ({_shown(labels)})",
            expected="one of them" + (", or several as channels" if free else ""),
            fix=f"--select {dim}={labels[0]}"
            + (f", or --select {dim}={','.join(labels)}" if free and len(labels) <= _SHOWN else ""),
        )
    if not others:
        return values.expand_dims("channel").transpose("time", "channel", *plane), ("",)
    names = tuple(label_texts(opened, values, others[0]))
    return values.transpose("time", others[0], *plane), names


def _is_channel(opened: xr.Dataset, dim: str) -> bool:
    worded = dim in opened.variables and opened[dim].dtype.kind in "OSU"
    return dim.lower() in _CHANNELS or worded


def _shown(labels: list[str]) -> str:
    return ", ".join(labels[:_SHOWN]) + (", ..." if len(labels) > _SHOWN else "")
