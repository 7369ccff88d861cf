"""Frames: files of every kind, Zarr stores and GRIB messages: changed, then read."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz import formats
from tests.fuzz.attempts import MOST_PIXELS, SHARED, Attempt, outcome
from tests.fuzz.mutate import damaged, mutated

READERS = (
    "a_202401010000.png", "a_202401010000.bmp", "a_202401010000.jpg", "a_202401010000.pgm",
    "a.npy", "a.npz", "a.h5", "a.nc", "a_202401010000.tif", "a.mp4", "a.mkv", "a.avi",
    "201609281445_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz",
    "RAD_NL25_RAP_5min_201008260000.h5", "PrecipRate_00.00_20190610-000000.grib2",
)  # fmt: skip


def reader(name: str, folder: Path) -> Attempt:
    """Files of one kind, read as a stream does; every eighth as an archive, into one dataset."""
    from stpl_core.reader import ReadOptions
    from stpl_core.readers import registry
    from stpl_core.readers.opening import open_frames, read_pieces
    from stpl_core.safety import budget

    budget.set_most_pixels(MOST_PIXELS)
    content = example(name, folder)
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    plain = gzip.decompress(content) if name.endswith(".gz") else content
    within = formats.CHANGES.get(path.suffix[1:] if path.suffix != ".gz" else path.suffixes[-2][1:])
    path.write_bytes(content)
    assert open_frames(path).sizes["time"] >= 1

    def attempt(seed: int) -> str:
        random = Random(seed)
        change = within if within is not None and random.randrange(3) else damaged
        found = change(plain, random)
        path.unlink()  # a library that still holds the last one must not see this one in it
        path.write_bytes(gzip.compress(found, 1) if name.endswith(".gz") else found)
        if seed % 8 == 0:
            return outcome(lambda: open_frames(path).load().close())
        return outcome(lambda: list(read_pieces(registry.choose(path), path, ReadOptions())))

    return attempt


def example(name: str, folder: Path) -> bytes:
    """A whole, small file of this name."""
    from tests.fuzz.test_readers import KINDS

    radar = SHARED / "data" / "radar"
    if name in KINDS:
        KINDS[name][0](folder / name)
        return (folder / name).read_bytes()
    if name.endswith(".pgm.gz"):
        head = b"P5\n# obstime 201609281445\n# param CorrectedReflectivity\n"
        real = gzip.decompress(next((radar / "fmi_pgm").rglob("*.gz")).read_bytes())
        comments = b"".join(line + b"\n" for line in real.split(b"\n")[:60] if line[:1] == b"#")
        return gzip.compress((b"P5\n" + comments if comments else head) + b"32 24\n255\n"
                             + bytes(range(256)) * 3)  # fmt: skip
    if name.startswith("RAD_NL25"):
        return small_knmi(next((radar / "knmi_hdf5").rglob("*.h5")), folder / name)
    if name.startswith("PrecipRate"):
        return small_grib()
    raise ValueError(name)


def small_knmi(whole: Path, path: Path) -> bytes:
    """A field of 24x32 values as KNMI writes them, from the corner of a whole one."""
    import h5py

    shutil.copy(whole, path)
    with h5py.File(path, "r+") as file:
        image = file["image1/image_data"]
        values, facts = image[:24, :32], dict(image.attrs)
        del file["image1/image_data"]
        small = file.create_dataset("image1/image_data", data=values, compression=6)
        small.attrs.update(facts)
        rows, columns = (file["geographic"].attrs[f"geo_number_{n}"] for n in ("rows", "columns"))
        file["geographic"].attrs["geo_number_rows"] = np.full_like(rows, 24)
        file["geographic"].attrs["geo_number_columns"] = np.full_like(columns, 32)
    return path.read_bytes()


_SMALL_GRIB = """
import sys, eccodes, numpy
with open(sys.argv[1], "rb") as file:
    message = eccodes.codes_grib_new_from_file(file)
eccodes.codes_set(message, "packingType", "grid_simple")
eccodes.codes_set(message, "Ni", 32)
eccodes.codes_set(message, "Nj", 24)
eccodes.codes_set_values(message, numpy.arange(768.0) % 50)
sys.stdout.buffer.write(eccodes.codes_get_message(message))
"""


def small_grib() -> bytes:
    """A field of 24x32 values as MRMS writes them, but for the packing."""
    whole = next((SHARED / "data" / "radar" / "mrms_grib2").rglob("*.grib2"))
    # eccodes brings its own PROJ, which pyproj does not bear in one process.
    made = subprocess.run(
        [sys.executable, "-c", _SMALL_GRIB, str(whole)], capture_output=True, check=True
    )
    return made.stdout


def zarr_stores(folder: Path) -> Attempt:
    """Metadata and chunks of a store."""
    from stpl_core.readers.opening import open_frames
    from stpl_core.safety import budget
    from tests.fuzz.test_readers import cf

    budget.set_most_pixels(MOST_PIXELS)
    cf(folder / "whole.zarr")
    store = folder / "a.zarr"
    files = [p.relative_to(folder / "whole.zarr") for p in (folder / "whole.zarr").rglob("*")]
    files = sorted(file for file in files if (folder / "whole.zarr" / file).is_file())
    heads = [file for file in files if file.name.startswith(".z")]
    shutil.copytree(folder / "whole.zarr", store)

    def attempt(seed: int) -> str:
        random = Random(seed)
        inside = random.choice(heads * 3 + files)
        content = (folder / "whole.zarr" / inside).read_bytes()
        if inside.name.startswith(".z") and random.randrange(4):
            found = formats.json_text(mutated(json.loads(content), random), random)
        else:
            found = damaged(content, random)
        (store / inside).write_bytes(found)
        try:
            return outcome(lambda: open_frames(store).load().close())
        finally:
            (store / inside).write_bytes(content)

    return attempt


def grib_messages(folder: Path) -> Attempt:
    """What the decoding process does, in this one: a process for each takes a second."""
    from stpl_core.readers.grib_process import send_messages

    content = small_grib()

    def attempt(seed: int) -> str:
        random = Random(seed)
        (folder / "a.grib2").write_bytes((formats.grib if seed % 3 else damaged)(content, random))
        try:
            with (folder / "a.grib2").open("rb") as file:
                send_messages(file, io.BytesIO(), MOST_PIXELS)
        except Exception:  # reported by the process in one line, whatever it is
            return "refused"
        return "used"

    return attempt
