"""`--reader pysteps:NAME`: what pysteps' importers read is what our own readers read."""

from __future__ import annotations

import gzip
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.errors import EnvironmentFault, FrameError, UsageError
from stpl_core.reader import NO_DATA, NO_ECHO, ReadOptions

pytest.importorskip("xarray")

from benchmarks import readers_made
from stpl_core.readers.opening import open_frames
from stpl_core.readers.registry import load_reader
from tests.stories.every_reader import fmi_pgm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    interface = pytest.importorskip("pysteps.io.interface", reason="make venv-compare")

FACTS = {
    "unit": "mm/h", "transform": None, "zerovalue": 0.0, "yorigin": "upper",
    "projection": "+proj=laea +lat_0=55 +lon_0=10 +units=m", "cartesian_unit": "m",
    "x1": 0.0, "y1": 0.0, "x2": 4000.0, "y2": 6000.0, "institution": "nobody",
}  # fmt: skip
RAIN = np.array([[np.nan, 0, 1, 2], [0, 0, 3, 4], [5, 6, 7, 8]])


def test_radar_pictures_as_our_own_reader_reads_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    fmi_pgm(tmp_path / "in")
    for file in (tmp_path / "in").iterdir():  # what pysteps looks for besides
        more = b"# metersperpixel_x 1000\n# metersperpixel_y 1000\n# param "
        file.write_bytes(file.read_bytes().replace(b"# param ", more, 1))
    ours = open_frames(tmp_path / "in")
    theirs = open_frames(tmp_path / "in", "pysteps:fmi_pgm")
    for name in ("frames", "state", "time"):
        np.testing.assert_array_equal(theirs[name].values, ours[name].values)
    for name in ("x", "y"):
        np.testing.assert_allclose(theirs[name].values, ours[name].values, atol=1)
    assert theirs["frames"].attrs["units"] == ours["frames"].attrs["units"] == "dBZ"
    for key in ("cadence_s", "zr_a", "zr_b"):
        assert theirs.attrs[key] == ours.attrs[key]
    assert set(np.unique(theirs["state"])) >= {NO_DATA, NO_ECHO}
    for file in list((tmp_path / "in").iterdir()):
        Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = open_frames(tmp_path / "in", "pysteps:fmi_pgm")
    np.testing.assert_array_equal(packed["frames"].values, ours["frames"].values)


def test_a_plane_in_kilometres_becomes_one_in_metres(tmp_path: Path) -> None:
    path = readers_made.knmi(tmp_path / "RAD_202406011200.h5")
    options = ReadOptions(variable="DBZH")
    ours, theirs = open_frames(path), open_frames(path, "pysteps:knmi_hdf5", options)
    for name in ("x", "y"):
        np.testing.assert_allclose(theirs[name].values, ours[name].values, atol=1)
    known = ours["state"].values != NO_DATA
    np.testing.assert_array_equal(
        theirs["frames"].values[:, 0][known], ours["frames"].values[:, 0][known]
    )


def importing(monkeypatch: pytest.MonkeyPatch, values: Any, **facts: Any) -> None:
    """Let pysteps have an importer `made`."""
    monkeypatch.setitem(
        interface._importer_methods, "made", lambda path, **how: (values, None, FACTS | facts)
    )


def test_rows_from_the_south_are_turned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "f202601010000.bin"
    file.write_bytes(b"x")
    importing(monkeypatch, RAIN)
    upper = open_frames(file, "pysteps:made")
    importing(monkeypatch, RAIN[::-1], yorigin="lower")
    assert open_frames(file, "pysteps:made").equals(upper)
    np.testing.assert_array_equal(upper["y"].values, [5000, 3000, 1000])
    np.testing.assert_array_equal(upper["frames"].values[0, 0], RAIN)
    assert upper["state"].values[0, 0].tolist() == [NO_DATA, NO_ECHO, 0, 0]
    assert upper["frames"].attrs["units"] == "mm h-1"
    importing(monkeypatch, np.ma.masked_invalid(RAIN), projection=None)
    plain = open_frames(file, "pysteps:made")
    np.testing.assert_array_equal(plain["frames"].values, upper["frames"].values)


def test_what_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "f202601010000.bin"
    file.write_bytes(b"x")
    for values, facts, words in (
        (RAIN, {"transform": "BoxCox"}, "under the transform BoxCox"),
        (RAIN[None], {}, r"an array of shape \(1, 3, 4\)"),
    ):
        importing(monkeypatch, values, **facts)
        with pytest.raises(FrameError, match=words):
            open_frames(file, "pysteps:made")
    with pytest.raises(FrameError, match=r"f202601010000\.bin cannot be read as pysteps:fmi_pgm"):
        open_frames(file, "pysteps:fmi_pgm")
    with pytest.raises(UsageError, match=r"no importer nothing; expected one of .*fmi_pgm"):
        load_reader("pysteps:nothing")
    with pytest.raises(UsageError, match="or pysteps:NAME"):
        load_reader("nothing")
    with pytest.raises(FrameError):  # nobody is asked who was not named
        open_frames(file)
    monkeypatch.setitem(sys.modules, "pysteps.io", None)
    with pytest.raises(EnvironmentFault, match="try: pip install pysteps"):
        load_reader("pysteps:fmi_pgm")
