"""Files beside a frame, and references inside it, that its format allows: they are never opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

for library in ("rasterio", "av"):
    pytest.importorskip(library)

from tests.core.readers.hostile import film_elsewhere, vrt  # noqa: E402
from tests.core.readers.test_reaching_out import READING  # noqa: E402


def read_traced(path: Path) -> tuple[str, str]:
    """Why it was refused (empty: it was read), and what the process opened."""
    trace = path.with_name("trace")
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "300", "-o", str(trace), "-e", "trace=openat,open,connect",
         sys.executable, "-c", READING, str(path)],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: str = json.loads(done.stdout)["found"][path.name]
    return found, trace.read_text(errors="replace")


@pytest.fixture(autouse=True)
def _strace() -> None:
    import shutil

    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")


@pytest.mark.parametrize("masked", [False, True])
def test_a_geotiff_beside_what_gdal_would_open(tmp_path: Path, masked: bool) -> None:
    """A mask beside the file is part of it, as a GeoTIFF and not as what names other files."""
    import rasterio

    path, secret = tmp_path / "rain_202401010000.tif", tmp_path / "secret"
    secret.write_bytes(bytes(64))
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8",
                       crs="EPSG:3067", transform=(1e3, 0, 0, 0, -1e3, 0)) as file:  # fmt: skip
        file.write(np.ones((1, 8, 8), np.uint8))
    for end in ("ovr", "msk") if masked else ("ovr",):
        path.with_name(f"{path.name}.{end}").write_text(vrt(str(secret), raw=True))
    path.with_name(f"{path.name}.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI>'
        "</Metadata></PAMDataset>"
    )
    refused, opened = read_traced(path)
    assert ("tif.msk' not recognized" in refused) if masked else refused == ""
    assert f'{secret}"' not in opened
    assert not [end for end in (".ovr", ".aux.xml") if f'{path.name}{end}", ' in opened]


@pytest.mark.parametrize("how", ["url", "alis"])
def test_a_film_whose_samples_lie_elsewhere(tmp_path: Path, how: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"SECRET" * 64)
    film_elsewhere(tmp_path / "film.mp4", secret, "", how)
    refused, opened = read_traced(tmp_path / "film.mp4")
    assert "\n" not in refused
    assert not refused.startswith("not in one line")
    assert f'{secret}"' not in opened
