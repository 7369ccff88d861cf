"""A frame of a file comes to the model in one way: training, predict, evaluate and stream agree.

They are asked for the same frames of the same files and must give the same bits, in model units,
and the same masks.
"""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("xarray")
pytest.importorskip("torch")

from stpl_core.codec import FrameCodec
from stpl_core.frames import Frame
from stpl_core.readers.fit import Fit
from stpl_core.readers.registry import BUILT_IN
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.subject import Judged, Material, read_material
from stpl_runtime.ingest.archive import archive_spec, read_archive
from stpl_runtime.ingest.decoding import Decoder
from stpl_runtime.ingest.inputs import read_context
from stpl_runtime.nowcasting.window import Entry
from stpl_runtime.source import SourceSpec, open_source
from stpl_train.data import open_data
from stpl_train.data.sequences import masked_batch
from stpl_train.recipe import ArchiveSection, ArraySection
from tests.stories.every_reader import MAKERS, Archive


class Given(NamedTuple):
    """What a model is given."""

    frames: np.ndarray
    """`(T, C, H, W)`, model units."""
    observed: np.ndarray
    """`(T, H, W)`."""


def test_every_reader_has_a_case() -> None:
    assert set(MAKERS) == set(BUILT_IN)


def section_of(word: str, archive: Archive) -> ArchiveSection:
    return ArchiveSection(
        source="archive", path=archive.path, reader=word, frame=archive.frame, crop=archive.crop,
        context=1, horizon=1, split="time", validation_fraction=0.5, test_fraction=0.0,
        codec=archive.codec,
    )  # fmt: skip


def by_training(section: ArchiveSection) -> Given:
    """The first half are trained on, the second is the validation part: windows of two frames."""
    data = open_data(section, seed=0)
    assert data.training.count is not None
    trained, seen = masked_batch(data.training, np.arange(data.training.count))
    held, held_seen = data.validation, data.validation_observed

    def chain(windows: np.ndarray) -> np.ndarray:
        """Windows that overlap by one frame -> the frames."""
        return np.concatenate([windows[:1, 0], windows[:, 1]])

    def mask(windows: np.ndarray, observed: np.ndarray | None) -> np.ndarray:
        return (
            np.ones((*windows.shape[:2], *windows.shape[3:]), bool)
            if observed is None
            else observed
        )

    return Given(
        np.concatenate([chain(trained), chain(held)]),
        np.concatenate([chain(mask(trained, seen)), chain(mask(held, held_seen))]),
    )


def spec_of(word: str, section: ArchiveSection, archive: Archive) -> tuple[SourceSpec, Fit | None]:
    recipe = {"data": section.model_dump(exclude_none=True)}
    how = archive_spec(recipe, word, None)
    spec = SourceSpec(
        archive.frame, archive.codec, reader=word, fit=how.fit, options={"speed": "0"}
    )
    return spec, how.fit


def by_stream(word: str, section: ArchiveSection, archive: Archive) -> Given:
    """As the nowcaster gives them to the session, from a replay."""
    spec, _ = spec_of(word, section, archive)
    source = open_source(f"replay:{archive.path}", spec)
    items = [arrival.item for arrival in source.arrivals(threading.Event())]
    frames = [item for item in items if isinstance(item, Frame)]
    assert frames == items, items
    return as_the_nowcaster(frames, archive.codec)


def as_the_nowcaster(frames: list[Frame], codec: FrameCodec) -> Given:
    entries = [Entry(n, n, frame, None) for n, frame in enumerate(frames)]
    masks = [np.ones(f.data.shape[1:], bool) if f.mask is None else f.mask for f in frames]
    return Given(np.concatenate([e.model_frame(codec) for e in entries]), np.stack(masks))


def same(ours: Given, other: Given, way: str) -> None:
    np.testing.assert_array_equal(ours.observed, other.observed, err_msg=way)
    assert ours.frames.dtype == other.frames.dtype == np.float32
    np.testing.assert_array_equal(ours.frames, other.frames, err_msg=way)


def judge(archive: Archive, context: int, section: ArchiveSection | None) -> Judged:
    data = {} if section is None else section.model_dump(exclude_none=True)
    return Judged(
        name="none", how="none", context=context, horizon=1, frame=archive.frame,
        codec=archive.codec, cadence_s=None, forecast=lambda frames: frames,
        own=lambda: Material("nothing", np.zeros(0, np.float32)), data=data,
    )  # fmt: skip


@pytest.mark.parametrize("word", list(MAKERS))
def test_the_four_give_the_same_bits(tmp_path: Path, word: str) -> None:
    archive = MAKERS[word](tmp_path)
    section = section_of(word, archive)
    trained = by_training(section)
    assert trained.frames.shape == (archive.count, *archive.frame)
    assert len(np.unique(trained.frames)) > 20

    same(trained, by_stream(word, section, archive), "stream")

    spec, fit = spec_of(word, section, archive)
    how = archive_spec({"data": section.model_dump(exclude_none=True)}, word, None)
    assert fit is not None
    assert fit.size == archive.frame[1:]
    for length in (archive.count, 3):
        context = read_archive(archive.path, length, spec, how)
        predicted = archive.codec.model_from_physical(context.frames[0])
        np.testing.assert_array_equal(predicted, trained.frames[-length:], err_msg="predict")
        newest = trained.observed[-1]
        seen = np.ones_like(newest) if context.observed is None else context.observed
        np.testing.assert_array_equal(seen, newest, err_msg="predict")

    material = archive_material(judge(archive, archive.count - 1, section), path=archive.path)
    (judged,) = archive.codec.model_from_physical(material.frames)
    np.testing.assert_array_equal(judged, trained.frames, err_msg="evaluate")
    always = trained.observed.all(axis=0)
    valid = np.ones_like(always) if material.valid is None else material.valid[0]
    np.testing.assert_array_equal(valid, always, err_msg="evaluate")


@pytest.mark.parametrize("word", ["odim", "fmi_pgm", "geotiff", "netcdf", "arrays"])
def test_the_cases_have_pixels_that_were_not_observed(tmp_path: Path, word: str) -> None:
    archive = MAKERS[word](tmp_path)
    observed = by_training(section_of(word, archive)).observed
    assert not observed.all()
    assert observed.any()


def test_a_pixel_without_data_in_one_channel_has_none_in_any(tmp_path: Path) -> None:
    """At the model's own size, where no area mean comes between."""
    archive = MAKERS["geotiff"](tmp_path)
    section = section_of("geotiff", archive).model_copy(update={"crop": None, "frame": (2, 12, 16)})
    archive = Archive(archive.path, archive.codec, (2, 12, 16))
    given = by_training(section)
    no_data = archive.codec.model_from_physical(np.full(1, np.nan, np.float32))
    assert (
        given.frames[~np.broadcast_to(given.observed[:, None], given.frames.shape)] == no_data
    ).all()
    same(given, by_stream("geotiff", section, archive), "stream")
    spec, _ = spec_of("geotiff", section, archive)
    context = read_archive(archive.path, 8, spec, archive_spec({}, "geotiff", None))
    predicted = archive.codec.model_from_physical(context.frames[0])
    np.testing.assert_array_equal(predicted, given.frames)


@pytest.mark.parametrize("kind", ["bytes", "numbers"])
def test_plain_arrays_too(tmp_path: Path, kind: str) -> None:
    """.npy without times or units: the numbers are in the codec's unit."""
    random = np.random.default_rng(1)
    codec = FrameCodec() if kind == "bytes" else FrameCodec(units="K", low=200.0, high=300.0)
    stored = random.integers(0, 256, (8, 1, 6, 8)).astype(np.uint8)
    if kind == "numbers":
        stored = (200 + stored / 2.56).astype(np.float32)
    path = tmp_path / "all.npy"
    np.save(path, stored)
    section = ArraySection(
        source="array", path=path, context=1, horizon=1, validation_fraction=0.5, codec=codec
    )
    data = open_data(section, seed=0)
    assert data.training.count is not None
    trained = data.training.batch(np.arange(data.training.count))  # (3, 2, 1, 6, 8)
    held = data.validation
    frames = np.concatenate([trained[:1, 0], trained[:, 1], held[:1, 0], held[:, 1]])

    spec = SourceSpec((1, 6, 8), codec)
    context = read_context(path, 8, spec)
    np.testing.assert_array_equal(codec.model_from_physical(context.frames[0]), frames)

    archive = Archive(path, codec, (1, 6, 8))
    material = read_material(path, judge(archive, 7, None))
    np.testing.assert_array_equal(codec.model_from_physical(material.frames[0]), frames)

    decoder, now = Decoder(spec), datetime(2024, 6, 1, tzinfo=timezone.utc)
    streamed = []
    for n, frame in enumerate(stored):
        np.save(tmp_path / f"f{n}.npy", frame)
        streamed += decoder.from_file(tmp_path / f"f{n}.npy", now)
    given = as_the_nowcaster(streamed, codec)
    assert given.observed.all()
    np.testing.assert_array_equal(given.frames, frames)

    folder = tmp_path / "folder"
    folder.mkdir()
    for n, frame in enumerate(stored):
        np.save(folder / f"f{n}.npy", frame)
    context = read_context(folder, 8, spec)
    np.testing.assert_array_equal(codec.model_from_physical(context.frames[0]), frames)
