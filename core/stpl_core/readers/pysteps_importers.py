"""Files that one of pysteps' importers reads: `--reader pysteps:NAME`.

Nothing chooses these by itself: the user names the importer. What it reads is held to no limit of
size before it is decoded, so it is for files that the user trusts.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import EnvironmentFault, FrameError, UsageError
from stpl_core.grid import Grid, pixel_grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions
from stpl_core.readers.names import file_time
from stpl_core.readers.projections import wkt_of
from stpl_core.readers.units import cf_units, rain_or_echo
from stpl_core.safety.budget import check_pixels

PREFIX = "pysteps:"
"""Of a word of `--reader`."""

Fields = NDArray[np.float64]


@dataclass(frozen=True)
class PystepsReader:
    """The reader of one importer; see `stpl_core.reader.Reader`."""

    word: str
    importer: Callable[..., tuple[Any, Any, dict[str, Any]]]
    ABOUT: str
    SUFFIXES: tuple[str, ...] = ()
    NAMES: re.Pattern[str] = re.compile(r".*")
    """All files of a folder: the importer was named for them."""

    def read(self, path: Path, options: ReadOptions) -> Iterator[Piece]:
        """Yield the one frame of a file; its time is that of its name."""
        more = {} if options.variable is None else {"qty": options.variable}
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values, _, facts = self.importer(str(path), **more)
        field = np.ma.filled(np.ma.masked_invalid(np.ma.asarray(values, np.float64)), np.nan)
        if field.ndim != 2:
            raise FrameError(
                f"{path} gives {self.word} an array of shape {field.shape}",
                expected="one field (rows, columns)",
                fix="another --reader",
            )
        check_pixels(path, *field.shape)
        quantity = self._quantity(path, facts)
        field, grid = _placed(field, facts, path)
        state = np.full(field.shape, VALUE, np.uint8)
        if quantity.no_echo is not None:
            empty = field <= float(facts.get("zerovalue", 0.0))
            state[empty] = NO_ECHO
            field = np.where(empty, quantity.no_echo, field)
        state[np.isnan(field)] = NO_DATA
        stamp = file_time(path, options)
        yield Piece(
            frames=field.astype(np.float32)[None, None],  # (1, 1, H, W)
            state=state[None],
            grid=grid,
            quantity=quantity,
            source=str(path),
            time=None if stamp is None else np.array([stamp]),
            notes={key: str(facts[key]) for key in ("institution",) if facts.get(key)},
        )

    def _quantity(self, path: Path, facts: dict[str, Any]) -> Quantity:
        """What the values are.

        Raises:
            FrameError: rain or reflectivity under a transform.
        """
        units = cf_units(facts.get("unit"))
        usual = "dB" if units == "dBZ" else None
        if facts.get("transform") not in (None, usual):
            raise FrameError(
                f"{path} comes from {self.word} under the transform {facts['transform']}",
                expected="rain as it is, or reflectivity in dBZ",
                fix="another --reader",
            )
        zr = (float(facts["zr_a"]), float(facts["zr_b"])) if facts.get("zr_a") else None
        minutes = facts.get("accutime")
        known = rain_or_echo(units, zr, None if minutes is None else 60.0 * float(minutes))
        return known or Quantity(self.word.removeprefix(PREFIX), units)


def pysteps_reader(word: str) -> PystepsReader:
    """The reader of a word such as `pysteps:fmi_pgm`.

    Raises:
        EnvironmentFault: pysteps is not installed.
        UsageError: it has no such importer.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pysteps.io import interface
        except ModuleNotFoundError as error:
            raise EnvironmentFault(
                f"--reader {word}: {error.name} is not installed",
                expected="pysteps",
                fix="pip install pysteps, which takes a C compiler",
            ) from error
    known = interface._importer_methods
    name = word.removeprefix(PREFIX)
    if name not in known:
        raise UsageError(
            f"pysteps has no importer {name}",
            expected=f"one of {', '.join(known)}",
            fix=f"--reader {PREFIX}{next(iter(known))}",
        )
    return PystepsReader(word, known[name], f"what pysteps' importer {name} reads")


def _placed(field: Fields, facts: dict[str, Any], path: Path) -> tuple[Fields, Grid]:
    """The field with its northernmost row first, and where it lies."""
    if facts.get("yorigin") == "lower":
        field = field[::-1]
    height, width = field.shape
    projection, corners = facts.get("projection"), ("x1", "y1", "x2", "y2")
    if not projection or any(facts.get(key) is None for key in corners):
        return field, pixel_grid(height, width)
    scale = 1.0
    if facts.get("cartesian_unit") == "km":  # metres, as every other grid here
        scale = 1000.0
        projection = re.sub(r"\+(units|to_meter)=\S+", "", projection) + " +units=m"
    left, bottom, right, top = (scale * float(facts[key]) for key in corners)
    affine = (left, top, (right - left) / width, (bottom - top) / height)
    wkt = wkt_of(projection, str(path))
    degrees = str(facts.get("cartesian_unit", "")).startswith("degree")
    return field, Grid(affine, height, width, wkt, degrees)
