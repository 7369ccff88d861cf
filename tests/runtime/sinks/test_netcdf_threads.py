"""NetCDF from several threads at once: the library crashes the process without a lock."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("xarray")
pytest.importorskip("netCDF4")

PROGRAM = """
import tempfile, threading
from pathlib import Path
from stpl_core.reader import ReadOptions
from stpl_core.readers.cf import read
from stpl_core.readers.opening import open_frames
from stpl_core.readers.store import convert
from stpl_runtime.sinks.netcdf import netcdf_bytes
from tests.runtime.watching.test_skill import made_at

nowcast, counts = made_at(5), []
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "n.nc"
    path.write_bytes(netcdf_bytes(nowcast))
    own = Path(folder) / "own.nc"
    convert(path, own)  # opened as it lies: values are read as needed

    def write():
        counts.append(sum(len(netcdf_bytes(nowcast)) > 1000 for _ in range(60)))

    def look():
        counts.append(sum(len(list(read(path, ReadOptions()))) for _ in range(60)))

    def look_later():
        opened = (open_frames(own)["frames"] for _ in range(60))
        counts.append(sum(frames[0].values.ndim == 3 for frames in opened))

    works = (write, look, look_later, write, look, look_later)
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(counts)
"""


def test_sources_sinks_and_the_page_share_the_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, f"{[60] * 6}\n"), done.stderr[-2000:]
