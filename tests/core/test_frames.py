"""Files that hold frames: what is read, and every way in which one can be bad."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError
from stpl_core.frames import read_array, read_sequences
from stpl_core.readers.libraries import decoding
from stpl_core.readers.plain import read_frame

SHAPE = (1, 8, 6)
CODEC = FrameCodec()
GREY = np.arange(48, dtype=np.uint8).reshape(8, 6) * 5


def save(path: Path, array: np.ndarray) -> Path:
    """Write an array in the format that the suffix names."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, frames=array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".PNG"])
def test_a_grey_picture_is_a_fraction_of_full_scale(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix.lower()}", GREY).rename(tmp_path / f"b{suffix}")
    frame = read_frame(path, SHAPE, CODEC)
    assert frame.dtype == np.float32
    assert frame.shape == SHAPE
    np.testing.assert_allclose(frame[0], GREY / 255, rtol=1e-6)


def test_sixteen_bits(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    for suffix in (".npy", ".png"):
        frame = read_frame(save(tmp_path / f"a{suffix}", deep), SHAPE, CODEC)
        np.testing.assert_allclose(frame[0], GREY / 255, rtol=1e-6)


def test_bytes_of_a_physical_quantity_are_physical(tmp_path: Path) -> None:
    codec = FrameCodec(quantity="reflectivity", units="dBZ", low=0, high=250)
    frame = read_frame(save(tmp_path / "a.npy", GREY), SHAPE, codec)
    assert frame.max() == GREY.max()


def test_colours_come_channels_first_without_opacity(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)
    for image in (colour[..., :3], colour):
        frame = read_frame(save(tmp_path / "a.png", image), (3, 8, 6), CODEC)
        np.testing.assert_allclose(frame, np.moveaxis(colour[..., :3], -1, 0) / 255, rtol=1e-6)


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY).convert("P").save(path)
    frame = read_frame(path, (3, 8, 6), CODEC)
    np.testing.assert_allclose(frame, np.stack([GREY] * 3) / 255, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_a_truncated_file_is_told_whatever_the_length(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"a{suffix}", GREY).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in range(0, len(whole) - 20, 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(FrameError) as caught:
            read_array(cut)
        assert str(cut) in str(caught.value)
        assert caught.value.exit_code == 2


def test_a_file_without_rights_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked to write a whole file again. (A superuser reads any: so it is raised.)"""
    path = save(tmp_path / "a.png", GREY)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refused)
    with pytest.raises(FrameError, match="Permission denied; expected a file that this user may"):
        read_array(path)
    with (
        pytest.raises(FrameError, match="Permission denied; expected a file that this user may"),
        decoding(path, "odim"),
    ):
        refused()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".npy", ".npz", ".png"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1),
)
def test_damaged_bytes_never_escape_as_another_error(
    tmp_path: Path, suffix: str, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(save(tmp_path / f"a{suffix}", GREY).read_bytes())
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(damaged)
    try:
        array = read_array(path)
    except FrameError:
        return
    assert array.dtype.kind in "uifb"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((8, 7), np.float32), r"shape \(1, 8, 7\)"),
        (np.zeros((2, 8, 6), np.float32), r"shape \(2, 8, 6\)"),
        (np.zeros(48, np.float32), r"shape \(48,\)"),
        (np.zeros((8, 6), np.complex64), "complex64"),
        (np.zeros((8, 6), bool), "bool"),
        (np.full((8, 6), "x"), "<U1"),
        (np.full((8, 6), np.nan, np.float32), "48 values that are NaN"),
        (np.full((8, 6), np.inf), "infinite"),
        (np.full((8, 6), 1e300), "infinite"),
        (np.full((8, 6), 200.0), "from 200 to 200"),
        (np.full((8, 6), -3, np.int16), "from -3"),
    ],
)
def test_a_frame_that_does_not_fit_is_reported(
    tmp_path: Path, array: np.ndarray, words: str
) -> None:
    path = save(tmp_path / "a.npy", array)
    with pytest.raises(FrameError, match=words) as caught:
        read_frame(path, SHAPE, CODEC)
    assert caught.value.expected
    assert caught.value.fix
    assert "\n" not in str(caught.value)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, suffix: str) -> None:
    trap = np.asarray([Trap(tmp_path / "sprung")], dtype=object)
    path = save(tmp_path / f"a{suffix}", trap)
    with pytest.raises(FrameError, match="holds Python objects"):
        read_array(path)
    bare = tmp_path / f"bare{suffix}"
    bare.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(FrameError, match="begins with"):
        read_array(bare)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("none.npy", "no file"), ("a.jpeg", "ends in"), ("bare", "ends in nothing")]
)
def test_other_files_are_reported(tmp_path: Path, name: str, words: str) -> None:
    if name != "none.npy":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FrameError, match=words):
        read_array(tmp_path / name)


def test_an_empty_file_and_a_directory_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.npy").touch()
    with pytest.raises(FrameError, match="is empty"):
        read_array(tmp_path / "a.npy")
    with pytest.raises(FrameError, match="no file"):
        read_array(tmp_path)


def test_an_archive_of_several_arrays_needs_the_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=GREY, other=GREY + 1)
    assert (read_array(tmp_path / "a.npz") == GREY).all()
    np.savez(tmp_path / "b.npz", first=GREY, second=GREY)
    with pytest.raises(FrameError, match="first, second"):
        read_array(tmp_path / "b.npz")


def test_sequences_in_the_accepted_layouts(tmp_path: Path) -> None:
    many = np.random.default_rng(0).random((3, 5, *SHAPE), dtype=np.float32)
    whole = read_sequences(save(tmp_path / "a.npz", many), SHAPE, CODEC)
    np.testing.assert_array_equal(whole, many)
    one = read_sequences(save(tmp_path / "b.npy", many[0]), SHAPE, CODEC)
    np.testing.assert_array_equal(one, many[:1])
    digits = np.random.default_rng(0).integers(0, 256, (20, 7, 64, 64), dtype=np.uint8)
    moved = read_sequences(save(tmp_path / "mnist_test_seq.npy", digits), (1, 64, 64), CODEC)
    assert moved.shape == (7, 20, 1, 64, 64)
    np.testing.assert_allclose(moved[3, 5, 0], digits[5, 3] / 255, rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 6), (3, 0, 1, 8, 6), (3, 5, 1, 8, 7), (1, 1, 1, 1, 8, 6)])
def test_sequences_of_another_shape_are_reported(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.npy", np.zeros(shape, np.float32))
    with pytest.raises(FrameError, match="has shape"):
        read_sequences(path, SHAPE, CODEC)
