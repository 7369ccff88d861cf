"""Damaged files of every format, and arrays of any form: a FrameError, or frames."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

for library in ("av", "h5py", "netCDF4", "rasterio", "xarray", "zarr", "PIL"):
    pytest.importorskip(library)

from stpl_core.codec import FrameCodec  # noqa: E402
from stpl_core.errors import StplError  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_core.safety import budget  # noqa: E402
from stpl_runtime.ingest.decoding import Decoder  # noqa: E402
from stpl_runtime.source import SourceSpec  # noqa: E402
from tests.core.readers.hostile import odim  # noqa: E402
from tests.fuzz.mutate import damaged, few, mutated, mutated_npz  # noqa: E402

SEED = st.integers(0, 2**32)
VALUES = np.random.default_rng(0).integers(0, 255, (6, 24, 32)).astype(np.uint8)


def picture(path: Path) -> None:
    from PIL import Image

    Image.fromarray(VALUES[0]).save(path)


def film(path: Path) -> None:
    import av

    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(path.suffix[1:], "mpeg4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, width=32, height=24, pix_fmt="yuv420p")
        for values in VALUES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="gray8")))
        container.mux(stream.encode(None))


def cf(path: Path) -> None:
    import xarray as xr

    data = xr.Dataset(
        {"rain": (("time", "y", "x"), VALUES.astype(np.float32), {"units": "mm h-1"})},
        coords={
            "time": np.datetime64("2024-01-01", "ns") + np.arange(6) * np.timedelta64(5, "m"),
            "y": ("y", np.arange(24.0), {"units": "m"}),
            "x": ("x", np.arange(32.0), {"units": "m"}),
        },
    )
    if path.suffix == ".zarr":
        data.to_zarr(path, consolidated=True, zarr_format=2)
    else:
        data.to_netcdf(path, engine="netcdf4")


def tif(path: Path) -> None:
    import rasterio

    with rasterio.open(
        path, "w", driver="GTiff", height=24, width=32, count=1, dtype="uint8", crs="EPSG:3067",
        transform=rasterio.Affine(1000.0, 0.0, 0.0, 0.0, -1000.0, 0.0), compress="deflate",
    ) as file:  # fmt: skip
        file.write(VALUES[:1])


def npy(path: Path) -> None:
    np.save(path, VALUES)


def npz(path: Path) -> None:
    np.savez_compressed(path, frames=VALUES.astype(np.float32)[:, None], time=np.arange(6.0))


KINDS: dict[str, tuple[Callable[[Path], None], int]] = {
    "a_202401010000.png": (picture, 12),
    "a_202401010000.bmp": (picture, 12),
    "a_202401010000.jpg": (picture, 12),
    "a_202401010000.pgm": (picture, 12),
    "a.npy": (npy, 12),
    "a.npz": (npz, 12),
    "a.h5": (lambda path: odim(path, path, "", "plain"), 12),
    "a.nc": (cf, 12),
    "a_202401010000.tif": (tif, 12),
    "a.mp4": (film, 8),
    "a.mkv": (film, 8),
    "a.avi": (film, 8),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    for name, (make, _) in KINDS.items():
        make(folder / name)
    return {name: (folder / name).read_bytes() for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_files(whole: dict[str, bytes], tmp_path: Path, name: str) -> None:
    budget.set_most_pixels(2**22)
    path = tmp_path / name

    @few(KINDS[name][1])
    @given(seed=SEED)
    def check(seed: int) -> None:
        random = Random(seed)
        change = mutated_npz if name.endswith(".npz") else damaged
        path.write_bytes(change(whole[name], random))
        with suppress(StplError):
            open_frames(path).load()

    try:
        path.write_bytes(whole[name])
        assert open_frames(path).sizes["time"] >= 1
        check()
    finally:
        budget.set_most_pixels(None)


@few(25)
@given(seed=SEED)
def test_zarr_metadata(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    random = Random(seed)
    folder = tmp_path_factory.getbasetemp() / "zarr"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    cf(folder / "a.zarr")
    files = sorted(path for path in (folder / "a.zarr").rglob("*") if path.is_file())
    path = random.choice([file for file in files if file.name.startswith(".z")] * 3 + files)
    content = path.read_bytes()
    if path.name.startswith(".z") and random.randrange(4):
        document: Any = json.loads(content)
        path.write_text(json.dumps(mutated(document, random)))
    else:
        path.write_bytes(damaged(content, random))
    budget.set_most_pixels(2**22)
    try:
        with suppress(StplError):
            open_frames(folder / "a.zarr").load()
    finally:
        budget.set_most_pixels(None)


@few(60)
@given(seed=SEED)
def test_messages(whole: dict[str, bytes], seed: int) -> None:
    """Bytes under any name, as a queue brings them: frames or a FrameError, whatever they are."""
    random = Random(seed)
    decoder = Decoder(SourceSpec((1, 24, 32), FrameCodec(), cadence_s=300.0))
    content = damaged(whole[random.choice(list(whole))], random)
    name = random.choice([*whole, "message", "a\x1b[2J.png", "x" * 200, "..", "a.nc.gz"])
    with suppress(StplError):
        decoder.from_bytes(content, name)
