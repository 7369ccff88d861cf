"""Films: their clock is the container's, from the first picture to the last; they stand upright."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("av", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)


from pathlib import Path

import av
import numpy as np

from stpl_core.errors import FrameError
from stpl_core.readers.opening import open_frames
from stpl_core.readers.store import convert
from stpl_core.readers.survey import survey_of
from tests.core.readers.films import HEIGHT, WIDTH, film, with_matrix

STEADY = [k / 10 for k in range(100)]
LOST = [k / 10 for k in range(100) if k % 7 != 3]
PAUSED = [k / 10 + (60 if k >= 64 else 0) for k in range(100)]
SLOWER = [k / 10 for k in range(20)] + [2 + k * 0.4 for k in range(30)]


def _seconds(path: Path) -> list[float]:
    """Of every frame, as we read them."""
    return _since_1970(open_frames(path)["time"].values)


def _since_1970(times: np.ndarray) -> list[float]:
    return (times.astype("datetime64[ns]").astype(np.int64) / 1e9).tolist()


def _decoded(path: Path) -> list[float]:
    """By FFmpeg: of every picture, from the first on."""
    with av.open(str(path)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


@pytest.mark.parametrize(
    "times", [STEADY, LOST, PAUSED, SLOWER], ids=["steady", "lost", "paused", "slower"]
)
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx"),
        ("a.mov", "mpeg4"),
        ("a.avi", "mjpeg"),
    ],
)
def test_every_picture_has_the_time_that_the_container_says(
    tmp_path: Path, name: str, codec: str, times: list[float]
) -> None:
    if name == "a.avi" and times is PAUSED:
        times = [time if time < 60 else time - 50 for time in PAUSED]  # FFmpeg writes no longer one
    path = film(tmp_path / name, times, codec)
    assert _seconds(path) == pytest.approx(_decoded(path), abs=2e-6)
    assert len(_seconds(path)) == len(times)


def test_a_pause_is_one_gap_and_survives_the_archive(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", PAUSED)
    convert(path, tmp_path / "a.zarr")
    convert(tmp_path / "a.zarr", tmp_path / "b.nc")
    for there in (path, tmp_path / "a.zarr", tmp_path / "b.nc"):
        opened = open_frames(there)
        survey = survey_of(opened)
        assert [(gap.missing, gap.after) for gap in survey.gaps] == [
            (600, "1970-01-01T00:00:06.3Z")
        ]
        assert _since_1970(opened["time"].values) == pytest.approx(PAUSED, abs=1e-6)


def test_two_films_are_two_sequences_one_after_the_other(tmp_path: Path) -> None:
    for name in ("cam_1.mkv", "cam_2.mkv"):
        film(tmp_path / name, PAUSED)
    opened = open_frames(tmp_path)
    second = _since_1970(opened["time"].values)[len(PAUSED) :]
    assert set(opened["sequence"].values[len(PAUSED) :].tolist()) == {1}
    assert [time - second[0] for time in second] == pytest.approx(PAUSED, abs=1e-6)
    assert second[0] > PAUSED[-1]


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_sound_that_goes_on_cuts_nothing(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, STEADY[:20], sound_s=8.0)
    assert len(_seconds(path)) == 20


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_film_that_lost_its_end_is_refused(tmp_path: Path, name: str) -> None:
    """Clusters and length as recorded, the last part of it overwritten with nothing."""
    path = film(tmp_path / name, LOST, "libvpx")
    content = path.read_bytes()
    cut = len(content) // 2
    path.write_bytes(content[:cut] + bytes(len(content) - cut))
    with pytest.raises(FrameError, match=r"ends after|cannot be read"):
        open_frames(path)


@pytest.mark.parametrize(
    "matrix",
    [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1)],
    ids=["as it is", "clockwise", "half", "anticlockwise", "mirrored", "upside down"],
)
def test_a_turned_film_stands_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    path = with_matrix(film(tmp_path / "a.mp4", STEADY[:3]), *matrix)
    taken, expected = cv2.VideoCapture(str(path)).read()
    assert taken
    ours = open_frames(path)["frames"].values[0, 0] * 255
    turned = matrix[0] == 0
    assert ours.shape == ((WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH))
    if matrix[0] * matrix[3] - matrix[1] * matrix[2] > 0:  # OpenCV turns, and mirrors nothing
        np.testing.assert_allclose(ours, expected[..., 0], atol=8)
    plain = open_frames(film(tmp_path / "b.mp4", STEADY[:3]))["frames"].values[0, 0] * 255
    a, b, c, d = matrix
    for y, x in ((2, 2), (20, 5), (20, 40)):
        row, column = b * x + d * y, a * x + c * y
        assert (
            abs(float(ours[row - (row < 0 or b + d < 0), column - (a + c < 0)]) - plain[y, x]) < 8
        )
