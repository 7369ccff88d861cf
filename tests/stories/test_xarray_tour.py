"""examples/xarray_tour.py as its docstring says: load, predict, plot, stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("xarray")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


def test_the_tour_from_start_to_end(tmp_path: Path) -> None:
    folder, picture = tmp_path / "in", tmp_path / "nowcast.png"
    folder.mkdir()
    for n, frame in enumerate(np.random.default_rng(1).random((6, 1, 16, 16), np.float32)):
        np.save(folder / f"f20260101{n:02d}00.npy", frame)
    bundle = ROOT / "tests" / "data" / "convlstm-tiny.bundle"
    words = [sys.executable, ROOT / "examples" / "xarray_tour.py", bundle, folder, picture]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 frames in" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "largest:" in line]
    assert [line[:16] for line in lines] == [f"2026-01-01 {hour:02d}:00" for hour in (3, 4, 5)]
    with Image.open(picture) as image:
        assert min(image.size) > 200
