"""What sinks write, and that a failure leaves nothing behind."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_core.drawing import pictures
from stpl_core.drawing.colours import NO_DATA_ON_DARK, STAND_IN, colour_map
from stpl_core.errors import MissingExtraError, SinkError, UsageError
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SINKS, open_sink, write_whole
from stpl_runtime.sinks.drawing import animation
from stpl_runtime.sinks.drawing import legend as legend_sink
from stpl_runtime.sinks.drawing import picture as picture_sink
from stpl_runtime.sinks.drawing.legend import legend
from stpl_runtime.sinks.drawing.picture import tiles, title
from stpl_runtime.sinks.file_format import attachments
from stpl_runtime.sinks.gif import gif_bytes
from stpl_runtime.sinks.npz import npz_bytes
from stpl_runtime.sinks.png import png_bytes
from tests.runtime.conftest import Cli, picture, slot_time


def make_nowcast(channels: int = 1, side: int = 16, minutes: int = 0) -> Nowcast:
    shape = (channels, side, side)
    return Nowcast(
        frames=np.stack([picture(n, shape) for n in range(3)]),
        context=np.stack([picture(10 + n, shape) for n in range(4)]),
        units="mm h-1",
        quantity="rain rate",
        low=0.0,
        high=1.0,
        issue_time=slot_time(minutes / 5),
        cadence_s=300.0,
        context_times=tuple(slot_time(n) for n in range(-3, 1)),
        made_by={"engine": "onnx"},
    )


def test_npz_has_everything_and_needs_no_pickle(tmp_path: Path) -> None:
    nowcast = make_nowcast()
    open_sink(f"npz:{tmp_path}/deep/er").write(nowcast)
    (path,) = (tmp_path / "deep" / "er").iterdir()
    assert path.name == "nowcast_20260131T235000Z.npz"
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["frames"], nowcast.frames)
        np.testing.assert_array_equal(archive["context"], nowcast.context)
        assert str(archive["units"]) == "mm h-1"
        assert archive["issue_time"] == np.datetime64("2026-01-31T23:50:00")
        assert list(archive["valid_times"]) == [
            np.datetime64(f"2026-{t}") for t in ("01-31T23:55", "02-01T00:00", "02-01T00:05")
        ]
        assert archive["context_times"][-1] == archive["issue_time"]
        assert json.loads(str(archive["made_by"])) == {"engine": "onnx"}


def test_png_is_one_strip_of_past_and_forecast(tmp_path: Path) -> None:
    open_sink(f"png:{tmp_path}").write(make_nowcast())
    with Image.open(tmp_path / "nowcast_20260131T235000Z.png") as image:
        strip = np.asarray(image)
    assert strip.shape[2] == 3
    # The borders, which are the longest rows of their colour, and not the grey pixels within.
    forecast = strip[-8:] == (235, 120, 20)
    past = strip[-8:] == (150, 150, 150)
    forecast, past = forecast.all(axis=2), past.all(axis=2)
    assert forecast.sum() >= 3 * 100
    assert past.sum() >= 4 * 100
    assert np.flatnonzero(past.any(axis=0)).max() < np.flatnonzero(forecast.any(axis=0)).min()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_show_the_values(channels: int) -> None:
    nowcast = replace(make_nowcast(channels, side=96), units="1")
    with Image.open(io.BytesIO(png_bytes(nowcast))) as image:
        strip = np.asarray(image).astype(float)
    shown = nowcast.frames[-1] if channels == 3 else nowcast.frames[-1][:1]
    wanted = np.broadcast_to(np.moveaxis(np.rint(shown * 255), 0, -1), (96, 96, 3))
    found = [
        (y, x)
        for y in range(20, strip.shape[0] - 95)
        for x in range(strip.shape[1] - 115, strip.shape[1] - 95)
        if np.array_equal(strip[y : y + 96, x : x + 96], wanted)
    ]
    assert len(found) == 1


def test_pictures_mark_what_was_not_observed() -> None:
    """A frame that stands in has a border of its own; so have pixels that were not seen."""
    observed = np.ones((16, 16), bool)
    observed[:8] = False
    nowcast = replace(
        make_nowcast(), observed=observed, context_fill=("", "held", "bridged", ""), stream="north"
    )
    with Image.open(io.BytesIO(png_bytes(nowcast))) as image:
        strip = np.asarray(image)
    side = 96 + 4
    marked = (strip == STAND_IN).all(axis=2)
    borders = np.flatnonzero(marked.sum(axis=0) >= side)
    assert len(borders) == 2 * 2 * 2  # two frames, left and right, two pixels wide
    unseen = (strip == NO_DATA_ON_DARK).all(axis=2)
    # Now, and three frames of forecast; and the legend.
    assert unseen.sum() == 4 * 96 * 48 + 12 * 12
    assert len(tiles(nowcast)) == 7
    assert title(nowcast).startswith("north: rain rate")
    assert title(nowcast).endswith("2 of 4 frames not observed")


def test_past_frames_mark_what_was_not_observed() -> None:
    """Each by its own mask: what a radar did not see is no dry weather, in PNG, GIF and .npz."""
    seen = np.ones((4, 16, 16), bool)
    seen[0, :4], seen[2, :, :8] = False, False
    nowcast = replace(make_nowcast(), context_observed=seen)
    with Image.open(io.BytesIO(png_bytes(nowcast))) as image:
        unseen = (np.asarray(image) == NO_DATA_ON_DARK).all(axis=2)
    assert unseen.sum() == (4 * 16 + 16 * 8) * 6 * 6 + 12 * 12  # and the legend's box
    with Image.open(io.BytesIO(gif_bytes(nowcast))) as film:
        counts = []
        for n in range(7):
            film.seek(n)
            page = np.asarray(film.convert("RGB")).astype(int)
            near = np.abs(page - NO_DATA_ON_DARK).max(axis=2) < 12  # a GIF has few colours
            counts.append(int(near[-110:].sum()))
    assert [count > 1000 for count in counts] == [True, False, True, *[False] * 4]
    with np.load(io.BytesIO(npz_bytes(nowcast)), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["context_observed"], seen)


def test_an_animation_has_a_legend_and_valid_times(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    draw = pictures.write_text

    def note(image: Image.Image, at: tuple[int, int], text: str, colour: object = None) -> None:
        written.append(text)
        draw(image, at, text, colour)  # type: ignore[arg-type]

    for module in (animation, picture_sink, legend_sink):
        monkeypatch.setattr(module, "write_text", note)
    big = make_nowcast(side=500)
    with Image.open(io.BytesIO(gif_bytes(big))) as film:
        assert film.height >= 500  # its own pixels, not fewer
        assert film.n_frames == 7
    assert "+5 min, 2026-01-31T23:55:00Z" in written
    assert "-15 min, 2026-01-31T23:35:00Z" in written
    assert "now, 2026-01-31T23:50:00Z" in written
    assert any("or more" in text for text in written)
    assert "mm h-1" in written


def test_npz_says_what_stood_in() -> None:
    notes = {"licence": "CC BY 4.0"}
    made = replace(make_nowcast(), context_fill=("", "held", "", ""), notes=notes)
    with np.load(io.BytesIO(npz_bytes(made)), allow_pickle=False) as archive:
        assert archive["stand_ins"].tolist() == ["", "held", "", ""]
        assert json.loads(str(archive["notes"])) == {"licence": "CC BY 4.0"}


def test_gif_shows_past_and_forecast(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(gif_bytes(make_nowcast()))) as image:
        assert image.n_frames == 7  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
    latest = tmp_path / "a" / "latest.gif"
    sink = open_sink(f"gif:{latest}")
    for minutes in (0, 5):
        sink.write(make_nowcast(minutes=minutes))
    assert [path.name for path in latest.parent.iterdir()] == ["latest.gif"]
    each = open_sink(f"gif:{tmp_path}/each")
    for minutes in (0, 5):
        each.write(make_nowcast(minutes=minutes))
    assert len(list((tmp_path / "each").iterdir())) == 2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("pgn:x", "unknown sink pgn; .*try: --sink png:x"),
        ("npy", "unknown sink npy; .*try: --sink npz:DIRECTORY"),
        ("zar:x", "unknown sink zar; .*try: --sink zarr:x"),
        ("gif", "--sink gif says not where to; .*try: --sink gif:nowcasts"),
        ("gif:", "--sink gif: says not where to; .*try: --sink gif:nowcasts"),
        ("png", "--sink png says not where to; expected png:PATH; try: --sink png:nowcasts"),
        (
            "webhook:",
            (
                "--sink webhook: says not where to; expected webhook:URL; "
                "try: --sink webhook:https://HOST/PATH"
            ),
        ),
        (
            "mqtt",
            "--sink mqtt says not where to; expected mqtt:URL; try: --sink mqtt:mqtt://HOST/TOPIC",
        ),
    ],
)
def test_what_to_type_where_a_sinks_word_is_wrong(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_sink(word)


def test_a_file_in_the_way_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="a file is in the way"):
            open_sink(f"npz:{path}")


def test_a_directory_that_went_away_is_made_again(tmp_path: Path) -> None:
    sink = open_sink(f"npz:{tmp_path}/out")
    (tmp_path / "out").rmdir()
    sink.write(make_nowcast())
    assert len(list((tmp_path / "out").iterdir())) == 1


FULL = """
import resource, sys
from pathlib import Path
from stpl_core.errors import SinkError
from stpl_runtime.sink import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the disk is full after 1000 bytes
try:
    write_whole(Path(sys.argv[1]), bytes(5000))
except SinkError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "nowcast.npz"
    target.write_bytes(b"older")
    done = subprocess.run(
        [sys.executable, "-c", FULL, target], capture_output=True, text=True, check=True
    )
    assert str(target) in done.stdout
    assert "bytes free" in done.stdout
    assert "5,000 bytes" in done.stdout
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_is_a_directory_is_a_sink_error(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot write"):
        write_whole(tmp_path, b"x")
    assert not list(tmp_path.iterdir())


def test_rain_has_the_colours_of_every_other_picture_of_it() -> None:
    rate = np.zeros((1, 32, 32), np.float32)
    rate[0, 8:24, 8:24] = 3.0  # of a codec up to 100 mm/h: nearly black as a grey level
    nowcast = replace(
        make_nowcast(),
        frames=rate[None],
        context=rate[None],
        units="mm h-1",
        high=100.0,
    )
    with Image.open(io.BytesIO(png_bytes(nowcast))) as image:
        found = {colour: n for n, colour in image.convert("RGB").getcolors(1 << 20) or []}
    none, some = colour_map("mm h-1", 0.0, 100.0).picture(np.asarray([[0.0, 3.0]], np.float32))[0]
    box = 12 * 12  # in the legend
    assert found[tuple(map(int, some))] == 2 * 48 * 48 + box
    assert found[tuple(map(int, none))] == 2 * (96 * 96 - 48 * 48) + box


def test_a_picture_says_what_its_colours_mean() -> None:
    """Every class of rain, the ends of a ramp, nothing for a colour picture."""
    rain = replace(make_nowcast(), units="mm h-1", observed=np.eye(16, dtype=bool))
    key = legend(rain, 2000)
    assert key is not None
    pixels = np.asarray(key)
    rates = np.asarray([[0.0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100]], np.float32)
    colours = [*colour_map("mm h-1", 0.0, 1.0).picture(rates)[0], NO_DATA_ON_DARK]
    at = [np.flatnonzero((pixels == colour).all(axis=2).any(axis=0)) for colour in colours]
    assert [len(columns) for columns in at] == [12] * 11
    assert all(one.max() < other.min() for one, other in pairwise(at))
    folded = legend(rain, 100)
    assert folded is not None
    assert folded.height >= 2 * key.height
    assert folded.width <= 480
    ramp = legend(replace(make_nowcast(), units="K"), 2000)
    assert ramp is not None
    assert len(np.unique(np.asarray(ramp)[10].reshape(-1, 3), axis=0)) > 60
    assert legend(replace(make_nowcast(channels=3), units="1"), 2000) is None


def test_a_strip_of_large_frames_still_opens() -> None:
    large = np.zeros((2, 1, 1226, 760), np.float32)
    nowcast = replace(make_nowcast(), frames=large, context=large)
    with Image.open(io.BytesIO(png_bytes(nowcast))) as image:
        assert image.height < 500


@pytest.mark.parametrize(("past", "future"), [(6, 12), (10, 10), (1, 20), (4, 1)])
def test_many_large_frames_become_a_sheet(past: int, future: int) -> None:
    """About square, every frame on it, the forecast below the past."""
    frames = np.zeros((past + future, 1, 400, 420), np.float32)
    nowcast = replace(make_nowcast(), context=frames[:past], frames=frames[past:])
    with Image.open(io.BytesIO(png_bytes(nowcast))) as image:
        sheet = np.asarray(image)
    height, width, _ = sheet.shape
    if past + future > 5:
        assert 0.5 < width / height < 1.9
    counts = {}
    for name, colour in (("past", (150, 150, 150)), ("forecast", (235, 120, 20))):
        border = (sheet == colour).all(axis=2)
        rows = np.flatnonzero(border.sum(axis=1) >= 400)
        # Two lines above and two below each frame.
        counts[name] = border[rows].sum() // (4 * 407)
        if name == "past":
            lowest = rows.max()
        else:
            assert rows.min() > lowest
    assert counts == {"past": past, "forecast": future}


TEXT = """
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.file_format import FileFormat

FORMATS = (
    FileFormat((".txt",), lambda nowcast: nowcast.name.encode(), media_type="text/plain"),
    FileFormat((".odd",), lambda nowcast: b"", extra="video", libraries=("no_such_library",)),
)


def open_sink(rest, spec=None):
    return DirectorySink("txt", FORMATS[0], rest, spec)
"""


def test_one_file_and_one_word_add_a_sink(
    tmp_path: Path, cli: Cli, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every place knows it where a nowcast becomes a file."""
    (tmp_path / "text_sink.py").write_text(TEXT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SINKS, "txt", "text_sink:open_sink")
    made, text = make_nowcast(), b"nowcast_20260131T235000Z"
    open_sink(f"txt:{tmp_path}/out").write(made)
    assert (tmp_path / "out" / "nowcast_20260131T235000Z.txt").read_bytes() == text
    assert attachments()["txt"].bytes_of(made) == text
    np.save(tmp_path / "frames.npy", np.stack([picture(n) for n in range(4)]))
    words = ("predict", bundle.path, tmp_path / "frames.npy", "--out")
    assert cli(*words, tmp_path / "one.txt")[0] == 0
    assert (tmp_path / "one.txt").read_bytes() == b"nowcast"
    code, _, err = cli(*words, tmp_path / "one.odd")
    assert code == MissingExtraError.exit_code
    assert "no_such_library" in err
    assert ".txt" in cli(*words, tmp_path / "one.unknown")[2]
