"""What the campaign found, each kept small: refused in one line from now on."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from datetime import datetime, timedelta, timezone
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
onnx = pytest.importorskip("onnx")
for library in ("netCDF4", "onnxruntime", "torch"):
    pytest.importorskip(library)

from stpl_core.bundle import open_bundle  # noqa: E402
from stpl_core.errors import (  # noqa: E402
    BundleError,
    EnvironmentFault,
    FrameError,
    RecipeError,
    RunError,
    StplError,
    UsageError,
)
from stpl_core.parts import INDEX, join, split  # noqa: E402
from stpl_core.readers.hdf5_attributes import check_attributes  # noqa: E402
from stpl_core.readers.hdf5_checks import open_hdf5  # noqa: E402
from stpl_core.readers.licences import spdx_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_core.readers.units import understood  # noqa: E402
from stpl_core.readers.zarr_checks import check_zarr  # noqa: E402
from stpl_deploy.cli import run  # noqa: E402
from stpl_runtime.engine import open_session  # noqa: E402
from stpl_runtime.forecast_memory import plan_memory  # noqa: E402
from stpl_runtime.ingest.playlist import read_playlist  # noqa: E402
from stpl_runtime.links.reconnect import reason_of  # noqa: E402
from stpl_train.models import build_model  # noqa: E402
from stpl_train.recipe import load_recipe  # noqa: E402
from stpl_train.run import open_run  # noqa: E402
from tests.fuzz.mutate import manifest_bytes, places  # noqa: E402
from tests.fuzz.test_bundles import TINY, put  # noqa: E402
from tests.fuzz.test_readers import cf  # noqa: E402


def test_dimensions_of_other_sizes_than_the_values(tmp_path: Path) -> None:
    """The NetCDF library wrote beyond its memory: SIGSEGV."""
    path = tmp_path / "a.nc"
    cf(path)
    with h5py.File(path, "r+") as file:
        del file["x"]
        file.create_dataset("x", (8, 8), "f4")
    with pytest.raises(FrameError, match=r"dimensions of .* and values of \(6, 24, 32\)"):
        open_frames(path)


@pytest.mark.parametrize("fault", ["dimensions", "number", "type", "type of an attribute"])
def test_what_the_netcdf_library_does_not_expect(tmp_path: Path, fault: str) -> None:
    """It took numbers for addresses, made lists of 2^31, read beyond its room: SIGSEGV, SIGABRT."""
    path = tmp_path / "a.nc"
    cf(path)
    with h5py.File(path, "r+") as file:
        if fault == "dimensions":
            del file["rain"].attrs["DIMENSION_LIST"]
            file["rain"].attrs["DIMENSION_LIST"] = np.full(3, 10**9)
        elif fault == "number":
            file["y"].attrs["_Netcdf4Dimid"] = 2**31
        elif fault == "type":
            file.create_dataset("z", (8, 8), "f2")
        else:
            file.attrs["version"] = np.float16(1)
    found = {"dimensions": "DIMENSION_LIST of /rain", "number": "_Netcdf4Dimid of /y"}
    with pytest.raises(FrameError, match=found.get(fault, "holds numbers of 16 bits")):
        open_frames(path)


@pytest.mark.parametrize("how", ["no size", "too many"])
def test_a_heap_of_hdf5_that_has_no_end(tmp_path: Path, how: str) -> None:
    """The library looked at its first object for ever."""
    path = tmp_path / "a.nc"
    cf(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL\x01") + 16

    if how == "no size":
        content[place : place + 16] = bytes(16)
    else:
        content += b"GCOL\x01\0\0\0" + (2**27).to_bytes(8, "little")
        content += (b"\1" + bytes(15)) * (2**22 + 1)
    path.write_bytes(content)
    with pytest.raises(FrameError, match="has no end"):
        open_frames(path)


def text_at(content: bytes, heap: int, number: int) -> int:
    """Where an attribute says that its text lies in a heap: length, address, number."""
    return content.index(heap.to_bytes(8, "little") + number.to_bytes(4, "little")) - 4


def with_text(path: Path, version: str) -> Path:
    with h5py.File(path, "w", libver=version) as file:
        for n in range(6):  # so many that one header holds them in several blocks
            file.require_group("what").attrs[f"text {n}"] = "COMP" * (n + 1)
    return path


@pytest.mark.parametrize("part", ["length", "address", "number"])
def test_a_text_of_hdf5_beside_its_heap(tmp_path: Path, part: str) -> None:
    """The library made room for what was said: up to 4 GB; of another number it took nothing."""
    path = with_text(tmp_path / "a.h5", "earliest")
    with open_hdf5(path) as file:
        assert file["what"].attrs["text 0"] == "COMP"
    content = bytearray(path.read_bytes())
    place = text_at(content, content.index(b"GCOL"), 1)
    at, value = {"length": (3, 0x67), "address": (7, 0xFF), "number": (12, 0x1F)}[part]
    content[place + at] = value
    path.write_bytes(content)
    with pytest.raises(FrameError, match="an attribute of /what points beside the heaps"):
        open_hdf5(path)


@pytest.mark.parametrize("version", ["earliest", "v110"])
def test_texts_are_found_in_headers_of_each_version(tmp_path: Path, version: str) -> None:
    """Those of the second have a checksum, which a test cannot leave right."""
    path = with_text(tmp_path / "a.h5", version)
    with h5py.File(path) as file, path.open("rb") as opened:
        content = mmap(opened.fileno(), 0, access=ACCESS_READ)
        with pytest.raises(FrameError, match="points beside the heaps"):
            check_attributes(file["what"], content, {}, 0, path)
        content.close()
    open_hdf5(path).close()


def test_an_attribute_of_many_numbers_of_any_length(tmp_path: Path) -> None:
    """h5py read beyond its room: SIGSEGV."""
    path = tmp_path / "a.h5"
    value = np.empty(1, object)
    value[0] = np.array([1], np.uint8)
    with h5py.File(path, "w") as file:
        file.create_group("what").attrs.create("date", value, (1,), h5py.vlen_dtype(np.uint8))
    with pytest.raises(FrameError, match="the attribute date of /what is of an odd type"):
        open_hdf5(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_says_that_it_is_longer(tmp_path: Path, zarr_format: int) -> None:
    """Blosc's library read beyond it: SIGSEGV."""
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("numcodecs")
    store = tmp_path / "a.zarr"
    values = np.arange(4096.0)
    if zarr_format == 2:
        from numcodecs import Blosc

        array = zarr.create_array(store, data=values, zarr_format=2, compressors=Blosc())
    else:
        array = zarr.create_array(store, data=values, compressors=zarr.codecs.BloscCodec())
    check_zarr(store)
    assert (zarr.open_array(store)[:] == values).all()
    (chunk,) = (path for path in store.rglob("*") if path.is_file() and path.stem in ("0", "c"))
    content = bytearray(chunk.read_bytes())
    content[12:16] = (2**30).to_bytes(4, "little")
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match=r"bytes says that it has 1073741824"):
        zarr.open_array(store)[:]
    assert array.shape == (4096,)


def test_a_picture_of_thousands_of_bands(tmp_path: Path) -> None:
    """Each is asked for by itself: minutes for a kilobyte."""
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    size = {"height": 1, "width": 1, "count": 5000, "dtype": "uint8"}
    place = rasterio.Affine(1000, 0, 0, 0, -1000, 0)
    with rasterio.open(path, "w", driver="GTiff", transform=place, **size):
        pass
    with pytest.raises(FrameError, match="has 5000 bands"):
        open_frames(path)


def test_a_model_of_thousands_of_layers() -> None:
    """It was being built for minutes."""
    with pytest.raises(RecipeError, match=r"model.layers = 25000; expected at most 256"):
        build_model("modernn", (1, 16, 16), {"layers": 25000})


def test_an_unlimited_dimension_may_be_longer_than_a_variable(tmp_path: Path) -> None:
    import netCDF4

    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("time", None), ("y", 4), ("x", 5)):
            file.createDimension(name, size)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "seconds since 2024-01-01"
        time[:] = [0.0, 300.0, 600.0]
        file.createVariable("quality", "f4", ("time",))[:1] = 1.0
        rain = file.createVariable("rain", "f4", ("time", "y", "x"))
        rain.units = "mm h-1"
        rain[:] = np.ones((3, 4, 5), np.float32)
    assert open_frames(path).sizes["time"] == 3


@pytest.mark.parametrize("where", ["recipe", "run"])
def test_a_key_of_thousands_of_parts(tmp_path: Path, where: str) -> None:
    """It takes the square of them to read: 20 s for 40 kB."""
    path = tmp_path / "recipe.toml"
    path.write_text("a" + ".a" * 3000 + " = 1\n")
    with pytest.raises((RecipeError, RunError), match="dots"):
        load_recipe(str(path)) if where == "recipe" else open_run(tmp_path)


def test_a_graph_that_cannot_compute(tmp_path: Path) -> None:
    """It was loaded, and ended with a traceback when it ran."""
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    model = onnx.load(bundle / "step.onnx", load_external_data=False)
    split = next(node for node in model.graph.node if node.op_type == "Split")
    next(one for one in split.attribute if one.name == "num_outputs").i = 127
    document = json.loads((bundle / "manifest.json").read_bytes())
    put(bundle, document, "step.onnx", model.SerializeToString())
    opened = open_bundle(bundle)
    session = open_session(opened, ["step"], threads=1)
    with pytest.raises(EnvironmentFault, match="cannot run the step graph"):
        session.step(np.zeros((1, *opened.manifest.frame), np.float32), session.zero_state())


@pytest.mark.parametrize("parts", [0, 1, 3, 2**31])
def test_a_split_into_other_parts_than_it_makes(tmp_path: Path, parts: int) -> None:
    """ONNX Runtime wrote beyond its memory (SIGABRT), or computed for ever."""
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    model = onnx.load(bundle / "step.onnx", load_external_data=False)
    split = next(node for node in model.graph.node if node.op_type == "Split")
    next(one for one in split.attribute if one.name == "num_outputs").i = parts
    document = json.loads((bundle / "manifest.json").read_bytes())
    put(bundle, document, "step.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match=f"a Split into {parts} makes 4 parts"):
        open_session(open_bundle(bundle), ["step"], threads=1)


def test_a_name_that_would_write_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\x1b[31m\nerror: forged.npy"
    np.save(path, np.zeros((4, 1, 8, 8), np.float32))
    assert run(["data", "inspect", str(path)]) == 0
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "\nerror: forged" not in told.out + told.err


def test_a_manifest_that_would_write_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words of its accuracy did: each text of a manifest is tried that may be any text."""
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    whole = json.loads((bundle / "manifest.json").read_bytes())
    tried = 0
    for place in places(whole):
        document = json.loads(json.dumps(whole))
        holder = document
        for key in place[:-1]:
            holder = holder[key]
        if not isinstance(holder[place[-1]], str):
            continue
        holder[place[-1]] = "\x1b[31m\nerror: forged"
        (bundle / "manifest.json").write_bytes(manifest_bytes(document))
        with contextlib.suppress(StplError):
            open_bundle(bundle)
            tried += 1
            assert run(["inspect", str(bundle)]) == 0
            printed = capsys.readouterr()
            assert "\x1b" not in printed.out + printed.err, place
            assert "\nerror: forged" not in printed.out + printed.err, place
    assert tried > 10


@pytest.mark.parametrize(
    "text", ["9**9**9**9 mm", "9^9^9^9 mm h-1", "mm " + "(" * 5000, "9**(9*9*9*9*9*9*9*9*9) mm"]
)
def test_a_unit_that_takes_for_ever_to_compute(text: str) -> None:
    assert understood(text, "rain rate").factor == 1.0


def test_texts_that_patterns_took_for_ever_to_read() -> None:
    """Each doubled the time with every word, or took the square of a megabyte."""
    assert spdx_of("by" + "noderiv" * 60) == ""
    assert spdx_of("cc by-nc-noderivatives 4.0") == "CC-BY-NC-ND-4.0"
    content = b"#EXTM3U\n#EXT-X-STREAM-INF:" + b"A" * 2**20 + b",RESOLUTION=32x24\na.m3u8\n"
    (variant,) = read_playlist(content, "http://a/b.m3u8", datetime.now(timezone.utc)).variants
    assert (variant.width, variant.height) == (32, 24)


@pytest.mark.parametrize("year", ["0001", "1899", "9999"])
def test_a_film_at_the_end_of_all_dates(year: str) -> None:
    """What follows it was counted on beyond what a date can be: a traceback."""
    now = datetime.now(timezone.utc)
    date = f"#EXT-X-PROGRAM-DATE-TIME:{year}-12-31T23:59:59.500Z\n"
    content = f"#EXTM3U\n{date}#EXTINF:9999999999,\na.ts\n#EXTINF:10,\nb.ts\n".encode()
    playlist = read_playlist(content, "http://a/b.m3u8", now)
    assert not playlist.dated
    assert [one.start for one in playlist.segments][1] == now - timedelta(seconds=10)


def test_a_clock_with_a_megabyte_of_blanks(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    cf(path)
    with h5py.File(path, "r+", libver="latest") as file:
        units = file["time"].attrs["units"]
        text = units if isinstance(units, str) else units.decode()
        file["time"].attrs["units"] = np.bytes_(text + " " * 60_000 + ".")
    with contextlib.suppress(FrameError):
        open_frames(path).load()


def test_what_a_server_says_of_itself_is_printed_in_one_line() -> None:
    """Its reason for a refusal wrote on the terminal; its headers filled the log."""
    assert reason_of(OSError("HTTP 429 \x1b[31m")) == "HTTP 429 \\x1b[31m"
    assert len(reason_of(OSError("illegal header " + "x" * 3000))) <= 500


@pytest.mark.parametrize(
    "content", [b"", b"\x3a\x02\x0a\x00", b"\x3a\xff\xff", b"\x3a\x04\x0a\x02\x12\x00"]
)
def test_memory_is_not_estimated_of_what_is_no_graph(tmp_path: Path, content: bytes) -> None:
    """`predict` and `stream` estimate before a graph is judged: a traceback."""
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    document = json.loads((bundle / "manifest.json").read_bytes())
    put(bundle, document, "step.onnx", content)
    assert plan_memory(open_bundle(bundle), "onnx", None) == ""


def test_memory_is_not_estimated_without_a_step(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    document = json.loads((bundle / "manifest.json").read_bytes())
    del document["graphs"]["step"]
    (bundle / "manifest.json").write_bytes(manifest_bytes(document))
    np.save(tmp_path / "frames.npy", np.zeros((4, 1, 16, 16), np.float32))
    out = tmp_path / "o.npz"
    assert run(["predict", str(bundle), str(tmp_path / "frames.npy"), "--out", str(out)]) in (2, 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_text_of_an_npz_that_is_no_text(tmp_path: Path, order: str) -> None:
    """numpy gave a str that could neither be printed nor read: SystemError in `verify`."""
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    with np.load(bundle / "reference.npz") as archive:
        kept = dict(archive)
    kept["data"] = np.array("digits", f"{order}U6")
    kept["data"].reshape(1).view(f"{order}u4")[2] = 0x110000
    np.savez(tmp_path / "reference.npz", **kept)
    document = json.loads((bundle / "manifest.json").read_bytes())
    put(bundle, document, "reference.npz", (tmp_path / "reference.npz").read_bytes())
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert run(["verify", str(bundle)]) == 2
    assert "data.npy holds text that is none" in err.getvalue()


def test_a_part_of_a_name_that_no_disk_holds(tmp_path: Path) -> None:
    split(TINY, tmp_path / "parts", 20_000)
    index = tmp_path / "parts" / INDEX
    document = json.loads(index.read_bytes())
    document["files"][0]["path"] = "x" * 300
    index.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="names files that cannot be made"):
        join(tmp_path / "parts", tmp_path / "joined")
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
