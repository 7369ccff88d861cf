"""Frames per second that each loader gives beside those that the model takes; writes results/.

    python benchmarks/loader_throughput.py [--seconds 6] [--radar PATH] [--video FILE] [CASE ...]

Loaders run as in training: batches in the order of the recipe, made ahead in another thread. Each
case is measured three times over: the loader alone, one training iteration alone (untrained
weights), and both together, where the share of the time that the loop waits for data is what
counts. `radar` and `video` are read from the given files; without them, and for the other formats
always, frames of the usual size are made and written in that format. Run it on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from lightning_fabric import Fabric

from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_core.readers.store import convert
from stpl_core.windows import frames as archives
from stpl_deploy.cli.reports.output import document_text
from stpl_train.data import open_data
from stpl_train.data.sequences import masked_batch
from stpl_train.recipe import Recipe, load_recipe
from stpl_train.trainer import Trainer
from stpl_train.training import start_run, with_frame

RESULT = Path(__file__).parent / "results" / "loader-throughput.json"
MOST_BATCHES = 200
"""In one measurement."""
MINI = ["training.validate_every=1000000", "training.checkpoint_every=1000000"]


@dataclass(frozen=True)
class Files:
    """What the user has, and where frames are made."""

    folder: Path
    radar: Path | None
    video: Path | None
    small: bool
    """Fewer and smaller frames, for the tests."""


@dataclass(frozen=True)
class Case:
    """A recipe on a loader."""

    about: str
    recipe: str
    make: Callable[[Files], dict[str, Any]]
    """Writes or finds the data; gives `[data]` keys in place of the recipe's section."""
    in_memory: bool = True
    """False: as for an archive that memory does not hold."""


def cells(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Rain cells that wander, `(count, height, width)` in [0, 1]; about a third is dry."""
    coarse = rng.random((count + 8, height // 16 + 2, width // 16 + 2), dtype=np.float32)
    calm: np.ndarray = np.mean([coarse[n : n + count] for n in range(8)], axis=0)  # changes slowly
    fine = calm.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    return np.clip((fine - 0.45) * 4, 0, 1)


def array(files: Files) -> dict[str, Any]:
    """Sequences in one .npy of bytes, as papers' sets are published."""
    shape = (40 if files.small else 500, 20, 1, 64, 64)
    path = files.folder / "sequences.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return {"source": "array", "path": str(path)}


def radar(files: Files) -> dict[str, Any]:
    """A compact Zarr store of radar composites: what `data convert` writes."""
    store = files.folder / "radar.zarr"
    if not store.exists():
        source = files.radar
        if source is None:
            import xarray as xr

            shape = (48, 160, 192) if files.small else (60, 1226, 760)
            rates = 20 * cells(np.random.default_rng(1), *shape) ** 3
            source = files.folder / "made.nc"
            times = np.datetime64("2024-06-01", "ns") + np.arange(shape[0]) * np.timedelta64(
                300, "s"
            )
            frames = xr.DataArray(
                (rates / 0.05).round() * 0.05, dims=("time", "y", "x"),
                coords={"time": times, "y": 1000.0 * np.arange(shape[1])[::-1],
                        "x": 1000.0 * np.arange(shape[2])},
                attrs={"units": "mm h-1", "standard_name": "rainfall_rate"},
            )  # fmt: skip
            frames.to_dataset(name="rain").to_netcdf(source)
        convert(source, store)
    # Parts of a short archive that hold a window each.
    return {"path": str(store), "validation_fraction": 0.32, "test_fraction": 0.3}


def taxibj(files: Files) -> dict[str, Any]:
    """Half-hourly counts as the TaxiBJ files have them."""
    import h5py

    days = 10 if files.small else 60
    path = files.folder / "BJ13_M32x32_T30_InOut.h5"
    counts = np.random.default_rng(2).integers(0, 800, (48 * days, 2, 32, 32)).astype(np.float32)
    first = np.datetime64("2013-07-01")
    dates = [
        f"{str(first + day).replace('-', '')}{slot:02d}".encode()
        for day, slot in itertools.product(range(days), range(1, 49))
    ]
    with h5py.File(path, "w") as file:
        file["data"], file["date"] = counts, np.array(dates)
    codec = {"quantity": "taxi flow", "units": "count", "low": 0.0, "high": 1300.0, "clip": True}
    return {"source": "archive", "path": str(path), "context": 4, "horizon": 4, "codec": codec,
            "split": "time"}  # fmt: skip


def video(files: Files) -> dict[str, Any]:
    """A fixed camera, by area means to 64x64."""
    path = files.video
    if path is None:
        import av

        path = files.folder / "camera.mp4"
        shape = (120, 64, 80) if files.small else (377, 432, 768)
        pictures = (255 * cells(np.random.default_rng(3), *shape)).astype(np.uint8)
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg4", rate=10)
            stream.height, stream.width, stream.pix_fmt = *shape[1:], "yuv420p"
            for picture in pictures:
                grey = av.VideoFrame.from_ndarray(picture, format="gray")
                out.mux(stream.encode(grey.reformat(format="yuv420p")))
            out.mux(stream.encode())
    return {"source": "archive", "path": str(path), "frame": [1, 64, 64]}


def kth(files: Files) -> dict[str, Any]:
    """Folders of pictures of 160x120, by area means to 64x64."""
    from PIL import Image

    people, length = (4, 12) if files.small else (8, 120)
    root = files.folder / "kth"
    shape = (length, 120, 160)
    for person in range(people):
        for action in ("walking", "boxing"):
            number = person + 1 if person < people // 2 else person + 17  # both published parts
            folder = root / action / f"person{number:02d}_{action}_d1_1"
            folder.mkdir(parents=True)
            grey = (255 * cells(np.random.default_rng(person), *shape)).astype(np.uint8)
            for n, picture in enumerate(grey):
                Image.fromarray(picture).save(folder / f"image_{n + 1:04d}.png")
    return {"source": "archive", "path": str(root), "frame": [1, 64, 64]}


CASES = {
    "digits-mini": Case("the generator, 32x32", "modernn-mini", lambda _: {}),
    "digits-mmnist": Case(
        "the generator, 64x64", "modernn-mmnist", lambda _: {"images": "scikit-learn"}
    ),
    "array-mmnist": Case("sequences in a .npy of bytes", "modernn-mmnist", array),
    "radar-zarr": Case("Zarr of radar, tiles, kept in memory", "predrnn-nowcast", radar),
    "radar-zarr-disk": Case(
        "Zarr of radar, tiles, read as needed", "predrnn-nowcast", radar, in_memory=False
    ),
    "taxibj": Case("TaxiBJ HDF5", "modernn-mini", taxibj),
    "video": Case("MP4 of a camera", "modernn-mini", video),
    "kth": Case("folders of pictures", "modernn-mini", kth),
}


def recipe_of(case: Case, files: Files) -> Recipe:
    """The case's recipe on its data; a made source takes the place of the whole section."""
    keys = case.make(files)
    recipe = load_recipe(case.recipe, MINI)
    data = recipe.data.model_dump(exclude_none=True)
    if keys.get("source", data["source"]) != data["source"]:
        data = {"context": data["context"], "horizon": data["horizon"]}
    document = recipe.model_dump(exclude_none=True) | {"data": data | keys}
    if files.small:
        document["data"] |= {"context": 2, "horizon": 2}
        if data.get("tiles"):
            document["data"] |= {"frame": [1, 32, 32], "least_echo": 0.0}
        document["training"] |= {"batch": 2}
        document["model"] |= {"hidden": 4, "layers": 2}
    return Recipe.model_validate(document)


def timed(work: Iterator[Any], seconds: float) -> list[float]:
    """Seconds of each item, for `seconds`; the first is left out where there are more."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < MOST_BATCHES + 1:
        began = time.perf_counter()
        if next(work, None) is None:
            break
        took.append(time.perf_counter() - began)
        if time.perf_counter() > end:
            break
    return took[1:] or took


def rate(took: list[float], frames: int) -> dict[str, float | int]:
    """Frames per second: median and spread over batches."""
    slow, middle, fast = (float(frames / np.percentile(took, p)) for p in (95, 50, 5))
    return {"median": middle, "p05": slow, "p95": fast, "rounds": len(took)}


def measure(name: str, files: Files, seconds: float) -> dict[str, Any]:
    """One case."""
    case = CASES[name]
    recipe = recipe_of(case, files)
    torch.set_num_threads(recipe.training.threads or torch.get_num_threads())
    most = archives._IN_MEMORY if case.in_memory else 0
    with mock.patch.object(archives, "_IN_MEMORY", most):
        began = time.perf_counter()
        data = open_data(recipe.data, 0)
        opened = time.perf_counter() - began
    recipe = with_frame(recipe, data)
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(Path(folder) / "run", recipe, data)
        trainer = Trainer(Fabric(accelerator="cpu", devices=1), run, data)
        batch, mask = masked_batch(data.training, np.zeros(recipe.training.batch, np.int64))
        frames = batch.shape[0] * batch.shape[1]
        loader = timed(trainer._batches(), seconds)
        step = timed((trainer._iterate(n, batch, mask) for n in itertools.count()), seconds)
        waited, worked = together(trainer, seconds)
    return {
        "case": name,
        "loader": case.about,
        "files": "the user's" if _own(name, files) else "made",
        "recipe": case.recipe,
        "frame": list(data.frame),
        "batch": int(batch.shape[0]),
        "frames_per_sequence": int(batch.shape[1]),
        "opening_s": round(opened, 2),
        "loader_frames_per_s": rate(loader, frames),
        "model_frames_per_s": rate(step, frames),
        "loader_over_model": round(float(np.median(step) / np.median(loader)), 2),
        "waited_share": round(waited / (waited + worked), 4),
    }


def _own(name: str, files: Files) -> bool:
    return (name.startswith("radar") and files.radar is not None) or (
        name == "video" and files.video is not None
    )


def together(trainer: Trainer, seconds: float) -> tuple[float, float]:
    """Train, and add up the seconds of waiting for a batch and of work, but for the first."""
    waited = worked = 0.0
    batches = trainer._batches()
    first, (batch, mask) = next(batches)
    trainer._iterate(first, batch, mask)
    while waited + worked < seconds:
        began = time.perf_counter()
        item = next(batches, None)
        if item is None:
            break
        got = time.perf_counter()
        iteration, (batch, mask) = item
        trainer._iterate(iteration, batch, mask)
        waited += got - began
        worked += time.perf_counter() - got
    batches.close()
    return waited, max(worked, 1e-9)


def main(words: list[str] | None = None, result: Path = RESULT) -> None:
    """Measure the cases and write them with the machine's description."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--radar", type=Path, help="radar composites of any format")
    parser.add_argument("--video", type=Path, help="a video")
    parser.add_argument("--small", action="store_true", help="tiny frames, to try the script")
    asked = parser.parse_args(words)
    unknown = set(asked.cases) - CASES.keys()
    if unknown:
        parser.error(f"no case {unknown.pop()}; there are {', '.join(CASES)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder), asked.radar, asked.video, asked.small)
        for name in asked.cases or CASES:
            row = measure(name, files, asked.seconds)
            rows.append(row)
            sys.stdout.write(
                f"{name:16} loader {row['loader_frames_per_s']['median']:9,.0f} frames/s, "
                f"model {row['model_frames_per_s']['median']:9,.0f} frames/s, "
                f"{row['loader_over_model']:7.1f} times; waited {row['waited_share']:.2%}\n"
            )
            sys.stdout.flush()
    with atomic_file(result) as file:
        file.write(document_text({"machine": describe(), "rows": rows}).encode())


if __name__ == "__main__":
    main()
