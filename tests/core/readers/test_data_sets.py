"""The data sets of the papers, videos, pictures and plain arrays, from small faithful files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xarray")

from PIL import Image

from stpl_core.errors import FrameError
from stpl_core.reader import NO_DATA, ReadOptions
from stpl_core.readers import taxibj
from stpl_core.readers.opening import joined_pieces, open_frames

DATA = Path(__file__).parents[3].parent / "shared" / "data"
VIDEO = DATA / "video" / "car-detection.mp4"
MNIST = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def moving_digits(count: int) -> np.ndarray:
    """Real digits, one pixel to the right in each frame: uint8 (20, N, 64, 64), time first."""
    if not MNIST.is_file():
        pytest.skip("no MNIST in ../shared/data")
    with gzip.open(MNIST) as file:
        file.read(struct.calcsize(">4I"))
        digits = np.frombuffer(file.read(count * 28 * 28), np.uint8).reshape(count, 28, 28)
    frames = np.zeros((20, count, 64, 64), np.uint8)
    for t in range(20):
        frames[t, :, 10:38, t : t + 28] = digits
    return frames


def test_moving_mnist_test_file(tmp_path: Path) -> None:
    stored = moving_digits(6)
    np.save(tmp_path / "mnist_test_seq.npy", stored)
    dataset = open_frames(tmp_path / "mnist_test_seq.npy")
    assert dataset["frames"].shape == (120, 1, 64, 64)
    for n in (0, 5):
        ours = dataset["frames"].values[dataset["sequence"].values == n, 0]
        np.testing.assert_array_equal(ours, stored[:, n].astype(np.float32) / 255)
    steps = np.diff(dataset["time"].values)
    same = np.diff(dataset["sequence"].values) == 0
    assert (steps[same] == np.timedelta64(1, "s")).all()
    assert (steps[~same] > np.timedelta64(1, "s")).all()  # the times show the break too
    assert dataset.attrs["time_is"] == "counted"


def test_moving_mnist_clips_of_the_authors(tmp_path: Path, rng: np.random.Generator) -> None:
    raw = rng.random((60, 1, 64, 64), dtype=np.float32)
    starts = np.array([40, 0, 20])  # sequences need not lie in order
    clips = np.stack(
        [np.stack([starts, np.full(3, 10)], 1), np.stack([starts + 10, np.full(3, 10)], 1)]
    )  # (2, N, 2)
    path = tmp_path / "moving-mnist-valid.npz"
    np.savez(path, clips=clips, dims=np.array([[1, 64, 64]]), input_raw_data=raw)
    dataset = open_frames(path)
    frames = dataset["frames"].values.reshape(3, 20, 1, 64, 64)
    np.testing.assert_array_equal(frames, raw.reshape(3, 20, 1, 64, 64)[[2, 0, 1]])
    assert dataset["sequence"].values.tolist() == [0] * 20 + [1] * 20 + [2] * 20


def test_moving_mnist_clips_that_point_outside(tmp_path: Path) -> None:
    clips = np.array([[[0, 10]], [[10, 10]]])
    np.savez(tmp_path / "a.npz", clips=clips, input_raw_data=np.zeros((19, 1, 8, 8)))
    with pytest.raises(FrameError, match=r"a\.npz has clips up to frame 20; expected at most 19"):
        open_frames(tmp_path / "a.npz")


def write_taxibj(path: Path, first: str, days: int, rng: np.random.Generator) -> np.ndarray:
    """As published: `data` (N, 2, 32, 32), `date` YYYYMMDDSS with SS 1 to 48."""
    h5py = pytest.importorskip("h5py")
    dates = [
        f"{day}{slot:02}".replace("-", "").encode()
        for day in (np.datetime64(first) + np.arange(days)).astype(str)
        for slot in range(1, 49)
    ]
    data = rng.integers(-1, 1000, (len(dates), 2, 32, 32)).astype(np.float64)
    with h5py.File(path, "w") as file:
        file["data"], file["date"] = data, np.array(dates)
    return data


def test_taxibj_times_negatives_and_incomplete_days(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "BJ13_M32x32_T30_InOut.h5"
    data = write_taxibj(path, "2013-07-01", 3, rng)
    with h5py.File(path, "r+") as file:  # the second day loses its slot 7
        keep = np.arange(144) != 48 + 6
        dates = file["date"][...][keep]
        del file["data"], file["date"]
        file["data"], file["date"] = data[keep], dates
    dataset = open_frames(path)
    assert dataset["frames"].shape == (96, 2, 32, 32)
    np.testing.assert_array_equal(
        dataset["frames"].values, np.maximum(np.concatenate([data[:48], data[96:]]), 0)
    )
    assert str(dataset["time"].values[0]).startswith("2013-06-30T16:00:00")  # midnight in Beijing
    assert str(dataset["time"].values[48]).startswith("2013-07-02T16:00:00")
    assert dataset.attrs["channels"] == "inflow\noutflow"
    assert dataset["frames"].attrs["units"] == "count"


def test_taxibj_published_split(tmp_path: Path, rng: np.random.Generator) -> None:
    """All years together; the last 1,344 windows of 8 contiguous half-hours are the test set."""
    write_taxibj(tmp_path / "BJ15_M32x32_T30_InOut.h5", "2015-01-01", 5, rng)
    write_taxibj(tmp_path / "BJ16_M32x32_T30_InOut.h5", "2016-01-01", 26, rng)
    dataset = open_frames(tmp_path)
    time, split = dataset["time"].values, dataset["split"].values
    windows = [
        n
        for n in range(len(time) - 7)
        if (np.diff(time[n : n + 8]) == np.timedelta64(30, "m")).all()
    ]
    assert sum(split[n] == 2 for n in windows) == taxibj.TEST_WINDOWS == 1344
    assert len(windows) == 5 * 48 + 26 * 48 - 2 * 7
    assert (np.diff(split) >= 0).all()
    assert dataset["source"].values[-1] == 1


def test_taxibj_npz_of_openstl(tmp_path: Path, rng: np.random.Generator) -> None:
    parts = {
        f"{part}_{name}": rng.uniform(-1, 1, (count, 4, 2, 32, 32)).astype(np.float32)
        for name, count in (("train", 5), ("test", 2))
        for part in "XY"
    }
    np.savez(tmp_path / "dataset.npz", **parts)
    dataset = open_frames(tmp_path / "dataset.npz")
    frames = dataset["frames"].values.reshape(7, 8, 2, 32, 32)
    np.testing.assert_array_equal(frames[:5, :4], (parts["X_train"] + 1) / 2)
    np.testing.assert_array_equal(frames[5:, 4:], (parts["Y_test"] + 1) / 2)
    assert dataset["split"].values.tolist() == [0] * 40 + [2] * 16
    assert dataset["sequence"].values[::8].tolist() == list(range(7))


def picture(path: Path, level: int, size: tuple[int, int] = (6, 5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path)


def test_kth_folders(tmp_path: Path) -> None:
    boxing = tmp_path / "kth" / "boxing" / "person16_boxing_d1_uncomp"
    for number in (1, 2, 3, 10, 11):
        picture(boxing / f"image_{number:04}.png", number)
    walking = tmp_path / "kth" / "walking" / "person17_walking_d2_uncomp"
    picture(walking / "image_0100.png", 100)
    dataset = open_frames(tmp_path / "kth")
    np.testing.assert_array_equal(
        dataset["frames"].values[:, 0, 0, 0], np.array([1, 2, 3, 10, 11, 100], np.float32) / 255
    )
    assert dataset["sequence"].values.tolist() == [0, 0, 0, 1, 1, 2]  # a number left out ends one
    assert dataset["split"].values.tolist() == [0, 0, 0, 0, 0, 2]  # persons 1 to 16 train
    assert dataset.attrs["cadence_s"] == pytest.approx(0.04)


def test_numbered_pictures_as_of_the_typhoon_set(tmp_path: Path) -> None:
    for n in (1, 2, 10, 11):
        picture(tmp_path / "a" / f"{n}.png", n)
    picture(tmp_path / "b" / "1.png", 50)
    dataset = open_frames(tmp_path)
    levels = (dataset["frames"].values[:, 0, 0, 0] * 255).round().astype(int).tolist()
    assert levels == [1, 2, 10, 11, 50]
    assert dataset["sequence"].values.tolist() == [0, 0, 1, 1, 2]


def test_dated_pictures_have_their_times(tmp_path: Path) -> None:
    for minute in (20, 0, 10):
        picture(tmp_path / f"sat_20240229{12:02}{minute:02}.png", minute)
    dataset = open_frames(tmp_path)
    assert dataset.attrs["time_is"] == "observed"
    assert dataset.attrs["cadence_s"] == 600
    assert str(dataset["time"].values[0]).startswith("2024-02-29T12:00:00")
    assert dataset["sequence"].values.tolist() == [0, 0, 0]


@pytest.mark.skipif(not VIDEO.is_file(), reason="no video in ../shared/data")
def test_video_as_opencv() -> None:
    pytest.importorskip("av")
    cv2 = pytest.importorskip("cv2")
    capture = cv2.VideoCapture(str(VIDEO))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    theirs = {}
    for n in range(40):
        theirs[n] = capture.read()[1][..., ::-1]  # (H, W, 3) RGB
    capture.release()
    pieces = joined_pieces(VIDEO, options=ReadOptions(variable="rgb"))
    first, _ = next(pieces)
    second, _ = next(pieces)
    pieces.close()
    for n in (0, 31, 39):
        part, row = (first, n) if n < 32 else (second, n - 32)
        ours = np.moveaxis(part.piece.frames[row], 0, -1) * 255
        # Both scale FFmpeg's YUV; the rounding of the conversion differs by a few levels.
        assert np.abs(ours - theirs[n]).mean() < 1.0
    assert count == 377
    times = np.concatenate([first.time, second.time])
    assert (np.diff(times) == np.timedelta64(80, "ms")).all()
    assert first.piece.quantity.channels == ("red", "green", "blue")


def test_video_grey_levels_and_count(tmp_path: Path, rng: np.random.Generator) -> None:
    """Lossless: what was written is what is read, frame by frame."""
    av = pytest.importorskip("av")
    stored = rng.integers(0, 256, (7, 48, 64)).astype(np.uint8)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for frame in stored:
            made = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    dataset = open_frames(tmp_path / "a.avi")
    np.testing.assert_array_equal(dataset["frames"].values[:, 0], stored.astype(np.float32) / 255)
    assert dataset.attrs["cadence_s"] == pytest.approx(0.1)
    assert dataset["time"].values[-1] == np.datetime64("1970-01-01T00:00:00.600")


@pytest.mark.parametrize(
    ("shape", "frames", "sequences"),
    [((5, 6), 1, 1), ((4, 5, 6), 4, 1), ((4, 2, 5, 6), 4, 1), ((3, 4, 2, 5, 6), 12, 3)],
)
def test_plain_arrays(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...], frames: int, sequences: int
) -> None:
    stored = rng.integers(0, 65536, shape).astype(np.uint16)
    np.save(tmp_path / "a.npy", stored)
    np.savez(tmp_path / "b.npz", anything=stored)
    for name in ("a.npy", "b.npz"):
        dataset = open_frames(tmp_path / name)
        assert dataset.sizes["time"] == frames
        assert int(dataset["sequence"].max()) + 1 == sequences
        expected = stored.astype(np.float32) / 65535
        np.testing.assert_array_equal(dataset["frames"].values.ravel(), expected.ravel())


def test_arrays_with_times_units_and_gaps_in_the_values(tmp_path: Path) -> None:
    frames = np.array([[[1.5, np.nan]], [[0.0, 3.0]]], np.float32)
    times = np.array([1_700_000_000, 1_700_000_300])
    np.savez(tmp_path / "a.npz", frames=frames, time=times, units=np.array("mm/h"))
    dataset = open_frames(tmp_path / "a.npz")
    assert dataset["frames"].attrs["units"] == "mm h-1"
    assert str(dataset["time"].values[1]).startswith("2023-11-14T22:18:20")
    assert dataset["state"].values[0].tolist() == [[0, NO_DATA]]


@pytest.mark.parametrize("ahead", [(), (1,), (1, 1)])
def test_a_folder_of_dated_arrays_is_one_sequence(tmp_path: Path, ahead: tuple[int, ...]) -> None:
    for minute in (10, 5, 0):
        field = np.full((*ahead, 3, 4), minute / 10)
        np.save(tmp_path / f"rain_20240101{0:02}{minute:02}.npy", field)
    dataset = open_frames(tmp_path)
    np.testing.assert_allclose(dataset["frames"].values[:, 0, 0, 0], [0, 0.5, 1.0])
    assert dataset.attrs["cadence_s"] == 300
    assert dataset["sequence"].values.tolist() == [0, 0, 0]
