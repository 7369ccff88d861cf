"""`stpl-deploy data inspect` and `data convert` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xarray")
pytest.importorskip("pyproj")

from PIL import Image

from stpl_core.drawing.colours import NO_DATA_COLOUR, NO_ECHO_COLOUR, colour_map
from stpl_deploy.cli import run

FMI = Path(__file__).parents[2].parent / "shared" / "data" / "radar" / "fmi_pgm" / "20160928"

needs_files = pytest.mark.skipif(not FMI.is_dir(), reason="no radar files in ../shared/data")

Cli = Callable[..., Any]


@pytest.fixture
def with_gap(tmp_path: Path) -> Path:
    """Five real frames, one of them left out."""
    folder = tmp_path / "fmi"
    folder.mkdir()
    for n, file in enumerate(sorted(FMI.iterdir())[:6]):
        if n != 3:
            (folder / file.name).symlink_to(file)
    return folder


@needs_files
def test_inspect_says_it_all(cli_here: Cli, with_gap: Path, tmp_path: Path) -> None:
    done = cli_here("data", "inspect", with_gap, "--picture", tmp_path / "see.png")
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "5 of 1x1226x760 in 5 files",
        "2016-09-28T14:45:00Z to 2016-09-28T15:10:00Z",
        "300 s",
        "1 missing before 2016-09-28T15:05:00Z (201609281505_fmi",
        "dBZ",
        "no echo",
        "Polar Stereographic",
    ):
        assert words in done.stdout, words
    with Image.open(tmp_path / "see.png") as image:
        colours = {colour for _, colour in image.getcolors(1 << 20)}
        assert image.width > image.height > 300
    classes = set(colour_map("dBZ", 0, 1).colours[1:9])
    assert classes | {NO_ECHO_COLOUR, NO_DATA_COLOUR} <= colours


@pytest.mark.parametrize("placed", [True, False])
def test_the_picture_has_a_map_where_the_frames_have_a_place(
    cli_here: Cli, tmp_path: Path, placed: bool
) -> None:
    """South Foreland, by PROJ, is dark in both frames, and the sea off Texel is as it was."""
    rasterio = pytest.importorskip("rasterio")
    import pyproj

    crs = pyproj.CRS("+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378140 +b=6356750")
    height, width, step, left, top = 383, 350, 2000.0, 0.0, -3649982.0
    folder = tmp_path / "rain"
    folder.mkdir()
    rain = np.full((1, height, width), 3.0, np.float32)
    for name in ("202602011200", "202602011205"):
        np.save(folder / f"{name}.npy", rain)
        if placed:
            (folder / f"{name}.npy").unlink()
            with rasterio.open(
                folder / f"{name}.tif", "w", driver="GTiff", height=height, width=width, count=1,
                dtype="float32", crs=crs.to_wkt(),
                transform=rasterio.Affine(step, 0, left, 0, -step, top),
            ) as file:  # fmt: skip
                file.write(rain)
    picture = tmp_path / "see.png"
    done = cli_here("data", "inspect", folder, "--units", "mm/h", "--picture", picture)
    assert (done.returncode, done.stderr) == (0, "")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    onto = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    scale = 480 / height
    for panel in (12, 12 + round(width * scale) + 12):

        def near(lon: float, lat: float, panel: int = panel) -> Any:
            x, y = onto.transform(lon, lat)
            column = panel + int((x - left) / step * scale)
            row = 24 + int((top - y) / step * scale)
            return pixels[row - 4 : row + 5, column - 4 : column + 5]

        coast, sea = near(1.4436, 51.1513), near(3.13, 54.2)
        assert bool(coast.max(axis=2).min() < 60) is placed
        assert (sea == sea[0, 0]).all()


@needs_files
def test_inspect_as_json(cli_here: Cli, with_gap: Path) -> None:
    done = cli_here("data", "inspect", with_gap, "--json")
    document = json.loads(done.stdout)
    assert document["frames"] == 5
    assert document["cadence_s"] == 300
    assert document["gaps"][0]["missing"] == 1
    assert document["quantity"]["units"] == "dBZ"
    assert sum(document["share"].values()) == pytest.approx(1)
    assert document["grid"]["corners"][2] == pytest.approx(759752.28, abs=0.01)


@needs_files
@pytest.mark.parametrize("kind", ["zarr", "nc", "npz"])
def test_convert_and_inspect_agree(
    cli_here: Cli, with_gap: Path, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip({"zarr": "zarr", "nc": "netCDF4", "npz": "numpy"}[kind])
    out = tmp_path / f"cache.{kind}"
    done = cli_here("data", "convert", with_gap, "--out", out)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    before = json.loads(cli_here("data", "inspect", with_gap, "--json").stdout)
    after = json.loads(cli_here("data", "inspect", out, "--json").stdout)
    assert after == before
    again = cli_here("data", "convert", with_gap, "--out", out)
    assert again.returncode == 2
    assert "already exists" in again.stderr


@pytest.mark.parametrize("kind", ["zarr", "nc", "npz"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip({"zarr": "zarr", "nc": "netCDF4", "npz": "numpy"}[kind])
    resource = pytest.importorskip("resource")
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 32, 32)).astype(np.float32))
    out = tmp_path / "out"
    out.mkdir()
    words = ["data", "convert", str(tmp_path / "a.npy"), "--out", str(out / f"cache.{kind}")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        code = run(words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err.strip()
    assert code == 4
    assert "\n" not in said
    assert "File too large" in said
    assert "ulimit -f" in said
    assert not list(out.iterdir())
    assert run(words) == 0


def test_mistakes_end_in_one_line(cli_here: Cli, tmp_path: Path) -> None:
    done = cli_here("data", "inspect", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "holds no file" in done.stderr
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4)))
    done = cli_here("data", "inspect", tmp_path / "a.npy", "--picture", tmp_path / "a.doc")
    assert done.returncode == 2
    assert "expected a picture such as .png" in done.stderr


def test_colours_of_states_and_of_every_class() -> None:
    colours = colour_map("mm h-1", 0, 1)
    values = np.array([[0.0, 0.1, 0.49, 100.0], [np.nan, 3.0, 3.0, 1e9]], np.float32)
    state = np.array([[0, 0, 0, 0], [2, 1, 0, 0]], np.uint8)
    picture = colours.picture(values, state)
    assert tuple(picture[0, 0]) == colours.colours[0]
    assert tuple(picture[0, 1]) == tuple(picture[0, 2]) == colours.colours[1]
    assert tuple(picture[0, 3]) == tuple(picture[1, 3]) == colours.colours[-1]
    assert tuple(picture[1, 0]) == NO_DATA_COLOUR
    assert tuple(picture[1, 1]) == NO_ECHO_COLOUR
    ramp = colour_map("K", 270.0, 290.0)
    ends = ramp.picture(np.array([[270.0, 290.0, 300.0, np.nan]], np.float32))[0]
    assert [tuple(c) for c in ends] == [
        ramp.colours[0], ramp.colours[-1], ramp.colours[-1], NO_DATA_COLOUR,
    ]  # fmt: skip
