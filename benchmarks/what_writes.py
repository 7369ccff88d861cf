"""What writes, on small models, and whether what it wrote is whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "tests" / "data"
TINY, RUN = DATA / "convlstm-tiny.bundle", DATA / "modernn-mini"
_FRAMES = 40
_SINKS = ("npz", "nc", "zarr", "tif", "png", "gif", "mp4", "jsonl")


@dataclass(frozen=True)
class Work:
    """A command line that writes, and how its results are judged."""

    words: list[str]
    whole: Callable[[Path], None]
    """Raises where something under its final name is not whole."""
    fresh: bool = True
    """Its results are removed before the next try; else it goes on with them."""
    again: list[str] = field(default_factory=list)
    """To go on after a kill, where that is another command."""


def frames(room: Path) -> Path:
    """An archive with times, 5 minutes apart."""
    import xarray as xr

    values = np.random.default_rng(0).random((_FRAMES, 16, 16)).astype(np.float32)
    time_ = np.datetime64("2024-01-01", "ns") + np.arange(_FRAMES) * np.timedelta64(5, "m")
    data = xr.Dataset(
        {"value": (("time", "y", "x"), values, {"units": "1"})}, coords={"time": time_}
    )
    data.to_netcdf(room / "in.nc", engine="netcdf4")
    return room / "in.nc"


def works(room: Path) -> dict[str, Work]:
    """All that writes, on small models."""
    source = str(frames(room))
    out = str(room / "out")
    stream = ["stream", str(TINY), source, "--threads", "1", "--policy", "pace",
              "--engine", "onnx", "--source-option", "speed=0"]  # fmt: skip
    found: dict[str, Work] = {
        "export": Work(["export", str(RUN), "--out", f"{out}/b"], bundle_is_whole),
        "parts split": Work(["parts", "split", str(RUN), "--out", f"{out}/p"], parts_are_whole),
        "parts join": Work(["parts", "join", f"{room}/parts", "--out", f"{out}/j"], run_is_whole),
        "train": Work(
            ["train", str(room / "small.toml"), "--out", f"{out}/run"], trained_is_whole,
            fresh=False, again=["train", "--resume", "--out", f"{out}/run"],
        ),
        "backfill": Work(
            ["backfill", str(TINY), source, "--out", f"{out}/back.zarr", "--engine", "onnx"],
            results_are_whole, fresh=False,
        ),
        "state file": Work(
            [*stream, "--state-file", f"{out}/s.state", "--sink", f"jsonl:{out}/a.jsonl"],
            results_are_whole, fresh=False,
        ),
    }  # fmt: skip
    for word in _SINKS:
        place = f"{out}/n.jsonl" if word == "jsonl" else f"{out}/{word}"
        words = [*stream, "--sink", f"{word}:{place}"]
        found[f"stream to {word}"] = Work(words, results_are_whole, fresh=False)
    for end in ("nc", "npz", "zarr"):
        words = ["data", "convert", source, "--out", f"{out}/c.{end}"]
        found[f"data convert to {end}"] = Work(words, results_are_whole)
    return found


def bundle_is_whole(out: Path) -> None:
    """Opened with every checksum."""
    from stpl_core.bundle import open_bundle

    if (out / "b").exists():
        open_bundle(out / "b")


def parts_are_whole(out: Path) -> None:
    """Joined again."""
    from stpl_core.parts import join

    if (out / "p").exists():
        with tempfile.TemporaryDirectory() as folder:
            join(out / "p", Path(folder, "j"))


def run_is_whole(out: Path) -> None:
    """Every byte is there."""
    for path in RUN.iterdir():
        if (out / "j").exists():
            assert (out / "j" / path.name).read_bytes() == path.read_bytes(), path.name


def trained_is_whole(out: Path) -> None:
    """What is there opens."""
    from safetensors import safe_open

    from stpl_train.run import open_run

    run = out / "run"
    if run.exists():
        open_run(run)
        for path in visible(run):
            if path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    assert list(file.keys())
            if path.suffix == ".npz":
                np.load(path).close()


def results_are_whole(out: Path) -> None:
    """Every file is read to its end by another library."""
    for path in visible(out):
        end = path.suffix
        if end == ".npz":
            with np.load(path) as archive:
                for name in archive.files:
                    archive[name]
        elif end == ".nc":
            import netCDF4

            with netCDF4.Dataset(path) as file:
                for variable in file.variables.values():
                    variable[...]
        elif end in (".png", ".gif"):
            from PIL import Image

            with Image.open(path) as picture:
                for n in range(getattr(picture, "n_frames", 1)):
                    picture.seek(n)
                    picture.load()
        elif end == ".mp4":
            import av

            with av.open(str(path)) as film:
                assert sum(1 for _ in film.decode(video=0)) > 0
        elif end in (".tif", ".tiff"):
            import rasterio

            with rasterio.open(path) as file:
                file.read()
        elif end == ".jsonl":
            for line in path.read_text().splitlines():
                json.loads(line)
    for store in out.rglob("*.zarr"):
        if not any(part.startswith(".") for part in store.relative_to(out).parts):
            import xarray as xr

            with xr.open_zarr(store) as data:
                data.load()


def visible(out: Path) -> list[Path]:
    """Files under final names."""
    inside = [path for path in out.rglob("*") if path.is_file()]
    return [
        path for path in inside
        if not any(part.startswith(".") or part.endswith(".zarr")
                   for part in path.relative_to(out).parts)
    ]  # fmt: skip


_RECIPE = """
[model]
name = "convlstm"
hidden = [4]
kernel = 3
patch = 2
[data]
source = "moving-mnist"
frame = [1, 8, 8]
digit_size = 4
context = 3
horizon = 3
digits = 1
validation_sequences = 4
[training]
iterations = {iterations}
batch = 4
lr = 1e-2
validate_every = {validate_every}
checkpoint_every = {checkpoint_every}
"""


def tiny_recipe(iterations: int, validate_every: int, checkpoint_every: int) -> str:
    """A recipe in TOML that trains in seconds, and writes often."""
    return _RECIPE.format(
        iterations=iterations, validate_every=validate_every, checkpoint_every=checkpoint_every
    )
