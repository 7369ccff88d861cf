"""HLS over HTTP, against a real server and FFmpeg's films."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

pytest.importorskip("httpx")
av = pytest.importorskip("av")

from stpl_core.codec import FrameCodec  # noqa: E402
from stpl_core.errors import FrameError, UsageError  # noqa: E402
from stpl_runtime.ingest.playlist import read_playlist  # noqa: E402
from stpl_runtime.source import SourceSpec, open_source  # noqa: E402
from tests.runtime.sources.source_reader import SourceReader  # noqa: E402
from tests.runtime.sources.web_camera import (  # noqa: E402
    NOW,
    Camera,
    Live,
    film,
    levels,
    offsets,
    serve_folder,
    spec,
)


@pytest.mark.parametrize("kind", ["mpegts", "fmp4"])
def test_a_film_that_has_an_end(camera: Camera, tmp_path: Path, kind: str) -> None:
    film(tmp_path, 30, hls_segment_type=kind, hls_flags="program_date_time")
    text = (tmp_path / "live.m3u8").read_text()
    stated = re.search(r"DATE-TIME:(\S+)", text)
    assert stated is not None
    start = read_playlist(text.encode(), "http://h/live.m3u8", NOW).segments[0].start
    serve_folder(camera, tmp_path)
    with SourceReader(open_source(f"http://{camera.root}/live.m3u8", spec(speed="0"))) as reader:
        reader.wait_for_end()
    assert reader.source.health.now().state == "ended"
    assert offsets(reader.frames, start) == [n / 10 for n in range(30)]
    wanted = [20 + 5 * n for n in range(30)]
    assert all(abs(a - b) <= 4 for a, b in zip(levels(reader), wanted, strict=True))


@pytest.mark.parametrize("path", ["/live.m3u8", "/watch?id=1"])
def test_a_playlist_that_slides(camera: Camera, tmp_path: Path, path: str) -> None:
    live = Live(tmp_path, 70)
    live.serve(camera, path)
    before = datetime.now(timezone.utc)
    with SourceReader(open_source(f"http://{camera.root}{path}", spec())) as reader:
        reader.wait_for(55)
        assert reader.source.health.now().state == "up"
    frames = reader.frames[:55]
    first = frames[0].valid_time
    # The newest piece counts as having ended when the playlist came.
    assert abs((first - before).total_seconds() + 3.0) < 2.0
    assert offsets(frames, first) == [n / 10 for n in range(55)]
    asked = [path for path, _, _ in camera.seen if path.endswith(".ts")]
    assert asked == sorted(set(asked))  # each piece once


def test_a_server_that_goes_away_under_a_film(camera: Camera, tmp_path: Path) -> None:
    live = Live(tmp_path, 40)
    live.serve(camera)
    port = camera.server_address[1]
    word = f"hls+http://{camera.root}/live.m3u8"
    with SourceReader(open_source(word, spec(timeout="1"))) as reader:
        reader.wait_for(25)
        camera.close()
        reader.wait_for_state("down")
        count = len(reader.items)
        again = Camera(port)
        live.serve(again)
        reader.wait_for(count + 5)
        reader.wait_for_state("up")
        again.close()


def test_the_form_that_fills_the_grid_is_taken(camera: Camera, tmp_path: Path) -> None:
    film(tmp_path, 10)
    master = "#EXTM3U\n" + "".join(
        f"#EXT-X-STREAM-INF:BANDWIDTH={size},RESOLUTION={size}x{size}\n{name}\n"
        for size, name in ((8, "small.m3u8"), (64, "live.m3u8"), (1080, "large.m3u8"))
    )
    (tmp_path / "master.m3u8").write_text(master)
    serve_folder(camera, tmp_path)
    word = f"http://{camera.root}/master.m3u8"
    with SourceReader(open_source(word, spec(speed="0"))) as reader:
        reader.wait_for_end()
    assert len(reader.frames) == 10
    assert not any("small" in path or "large" in path for path, _, _ in camera.seen)


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("file:///etc/hostname", "the playlist names file:///etc/hostname"),
        ("http://169.254.169.254/latest/meta-data", "own network"),
        ("crypto+http://127.0.0.1/x.ts", "the playlist names crypto"),
        ("gopher://h/x.ts", "Invalid data"),  # FFmpeg takes no such name
        ("concat:/etc/hostname", "Invalid data"),
    ],
)
def test_a_playlist_opens_nothing_else(camera: Camera, named: str, reason: str) -> None:
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{named}\n#EXT-X-ENDLIST\n"
    camera.answer = lambda handler: handler.give(200, text.encode())
    source = open_source(f"http://{camera.root}/live.m3u8", spec(timeout="1"))
    with SourceReader(source) as reader:
        assert reason in reader.wait_for_state("down").reason
    assert not reader.items


def test_pieces_on_another_host_are_asked_without_credentials(
    camera: Camera, tmp_path: Path
) -> None:
    other = Camera()
    film(tmp_path, 10)
    serve_folder(other, tmp_path)
    text = (tmp_path / "live.m3u8").read_text()
    text = text.replace("live0.ts", f"http://localhost:{other.server_address[1]}/live0.ts")
    camera.password = "geheim"
    camera.answer = lambda handler: handler.give(200, text.encode())
    word = f"http://olga:geheim@{camera.root}/live.m3u8"
    with SourceReader(open_source(word, spec(speed="0"))) as reader:
        reader.wait_for_end()
    assert len(reader.frames) == 10
    assert [given for _, given, _ in other.seen] == [""]
    other.close()


def test_an_encrypted_film_is_refused_in_one_line(camera: Camera) -> None:
    text = '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:1,\na.ts\n'
    camera.answer = lambda handler: handler.give(200, text.encode())
    with SourceReader(open_source(f"http://{camera.root}/live.m3u8", spec())) as reader:
        assert "is encrypted" in reader.wait_for_state("down").reason


def test_times_in_a_playlist() -> None:
    """By the dates in it, before or after EXTINF; without, the newest piece ends now."""
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:4"]
    for n, seconds in enumerate((4, 3, 2)):
        lines += [f"#EXTINF:{seconds}.0,", f"a{n}.ts"]
    found = read_playlist("\n".join(lines).encode(), "http://h/x/live.m3u8?y", NOW)
    assert [segment.url for segment in found.segments] == [f"http://h/x/a{n}.ts" for n in range(3)]
    starts = [(segment.start - NOW).total_seconds() for segment in found.segments]
    assert starts == [-9.0, -5.0, -2.0]
    assert (found.dated, found.ended) == (False, False)
    lines.insert(5, "#EXT-X-PROGRAM-DATE-TIME:2026-03-01T10:00:00.500+01:00")
    found = read_playlist("\n".join([*lines, "#EXT-X-ENDLIST"]).encode(), "http://h/l", NOW)
    stated = datetime(2026, 3, 1, 9, 0, 0, 500_000, timezone.utc)
    assert [segment.start for segment in found.segments] == [
        stated - timedelta(seconds=4),
        stated,
        stated + timedelta(seconds=3),
    ]
    assert (found.dated, found.ended) == (True, True)
    ranged = (
        "#EXTM3U\n#EXT-X-BYTERANGE:100@0\n#EXTINF:1,\nx.ts\n#EXT-X-BYTERANGE:50\n#EXTINF:1,\nx.ts\n"
    )
    pieces = read_playlist(ranged.encode(), "http://h/l", NOW).segments
    assert [piece.offset for piece in pieces] == [0, 100]
    with pytest.raises(FrameError, match="no playlist"):
        read_playlist(b"<html>", "http://h/l", NOW)


def test_a_model_of_rain_refuses_film() -> None:
    rain = FrameCodec(units="mm h-1", low=0.0, high=50.0)
    with pytest.raises(UsageError, match="gives grey or colour pictures"):
        open_source("hls+http://h/l.m3u8", SourceSpec((1, 8, 8), rain))
