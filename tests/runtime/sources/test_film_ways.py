"""A film has the same pictures at the same times, whichever way it comes in."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("av", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)


from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from stpl_core.codec import FrameCodec
from stpl_core.readers.opening import open_frames
from stpl_runtime.ingest.decoding import Decoder
from stpl_runtime.source import SourceSpec, open_source
from tests.core.readers.films import film, with_matrix
from tests.runtime.sources.source_reader import SourceReader

START = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
PAUSED = [k / 10 + (60 if k >= 40 else 0) for k in range(70)]
LOST = [k / 10 for k in range(70) if k % 7 != 3]


@pytest.mark.parametrize("times", [PAUSED, LOST], ids=["paused", "lost"])
@pytest.mark.parametrize("name", ["cam.mp4", "cam.mkv"])
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_the_archive_the_folder_and_the_stream_agree(
    tmp_path: Path, name: str, times: list[float], turned: bool
) -> None:
    path = film(tmp_path / name, times)
    if turned:
        if name == "cam.mkv":
            pytest.skip("the matrix is written into an MP4")
        with_matrix(path, 0, 1, -1, 0)
    opened = open_frames(path)
    frames = opened["frames"].values
    since = (opened["time"].values - opened["time"].values[0]).astype(np.int64) / 1e9
    assert since == pytest.approx(times, abs=1e-6)

    spec = SourceSpec(frames.shape[1:], FrameCodec(), options={"start": "2024-06-01T12:00:00Z"})
    with SourceReader(open_source(f"video:{path}", spec)) as reader:
        reader.wait_for(len(times))
    streamed = reader.frames
    files = Decoder(SourceSpec(frames.shape[1:], FrameCodec())).from_file(path, START)
    for found in (streamed, files):
        assert [(one.valid_time - START).total_seconds() for one in found] == pytest.approx(
            times, abs=1e-5
        )
        np.testing.assert_array_equal(np.stack([one.data for one in found]), frames)
