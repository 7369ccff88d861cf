"""`stpl-deploy new`: what it writes holds for the source that it found."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("xarray")

from stpl_core.errors import FrameError, UsageError
from stpl_deploy.cli import new, run, verbs
from stpl_deploy.cli.serve import ServeCommand
from stpl_deploy.starting import files, recipe, sources

tomllib = pytest.importorskip("tomllib")  # Python 3.11
SIDE = 200


def save_frames(folder: Path, units: str = "mm h-1", minutes: int = 5, count: int = 8) -> Path:
    """A folder of .npz, named by their times."""
    folder.mkdir()
    start = datetime(2026, 5, 1)
    for n in range(count):
        time = start + n * timedelta(minutes=minutes)
        frame = np.full((SIDE, SIDE), 1.0 + n, np.float32)
        stamp = np.array([time], "datetime64[s]")
        path = folder / f"{time:%Y%m%d%H%M}.npz"
        np.savez(path, frames=frame[None], time=stamp, units=np.array(units))
    return folder


def made(folder: Path, source: str | None, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    words = ["new", str(folder), *([] if source is None else [source]), "--json"]
    assert run(words) == 0, capsys.readouterr().err
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rain_is_found_without_a_question(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_frames(here / "radar")
    document = made(here / "mine", None, capsys)
    assert document["source"] == str(here / "radar")
    assert document["recipe"] == "radar-nowcast"
    assert document["holds"].endswith("in mm h-1, frames of 1x200x200, 300 s apart")
    assert document["next"] == [
        "stpl-deploy export pretrained:radar-nowcast --grid 200x200 --out mine/model.bundle",
        "stpl-deploy predict mine/model.bundle radar --out mine/nowcast.png",
        "stpl-deploy serve --config mine/nowcast.toml",
    ]
    assert sorted(path.name for path in (here / "mine").iterdir()) == [
        "README.md", "mine.service", "nowcast.toml", "recipe.toml",
    ]  # fmt: skip


def test_the_settings_are_those_of_serve(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_frames(here / "ra dar")
    made(here / "mine", "ra dar", capsys)
    assert run(["serve", "--config", "mine/nowcast.toml", "--print-config"]) == 0
    held = tomllib.loads(capsys.readouterr().out)
    assert held["bundle"] == str(here / "mine" / "model.bundle")
    assert held["source"] == [str(here / "ra dar")]
    assert held["sink"] == [f"nc:{here / 'mine' / 'nowcasts'}"]
    assert (held["on-gap"], held["keep-age"], held["port"]) == ("bridge", "2d", 8765)
    assert ServeCommand.__dataclass_fields__  # the verb whose settings they are


@pytest.mark.parametrize(
    ("units", "minutes", "pretrained", "keys"),
    [
        ("mm h-1", 5, True, {}),
        ("dBZ", 5, True, {}),
        ("mm h-1", 1, True, {"cadence_s": 60.0}),
        ("mm h-1", 10, False, {"cadence_s": 600.0}),
        ("mm h-1", 2, False, {"cadence_s": 120.0}),
        ("K", 10, False, {"every": 6, "crop": [0, 0, 200, 200], "frame": [1, 200, 200]}),
        ("K", 60, False, {"crop": [0, 0, 200, 200], "frame": [1, 200, 200]}),
        ("m s-1", 60, False, {"crop": [0, 0, 200, 200], "frame": [1, 200, 200]}),
    ],
)
def test_the_recipe_fits_the_frames(
    here: Path, units: str, minutes: int, pretrained: bool, keys: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    from stpl_core.readers.opening import open_frames
    from stpl_core.readers.survey import survey_of
    from stpl_train.data.fitting import compare
    from stpl_train.recipe import load_recipe

    found = sources.find_source(str(save_frames(here / "data", units, minutes)), here)
    assert recipe.runs_pretrained(found) is pretrained
    (here / "recipe.toml").write_text(recipe.recipe_text(found))
    stated = tomllib.loads((here / "recipe.toml").read_text())["data"]
    stated.pop("codec", None)
    assert stated == {"path": str(here / "data"), **keys}
    findings = compare(survey_of(open_frames(here / "data")), load_recipe("recipe.toml"))
    assert [one for one in findings if not one.fits and one.what != "frames"] == []


def test_pictures_become_the_recipe_of_a_camera(here: Path) -> None:
    (here / "pictures").mkdir()
    for n in range(3):
        Image.new("L", (90, 70), 40 * n).save(here / "pictures" / f"20260501120{n}.png")
    found = sources.find_source(None, here)
    assert found.recipe == "camera"
    text = recipe.recipe_text(found)
    assert 'extends = "camera"' in text
    assert tomllib.loads(text)["data"]["frame"] == [1, 64, 88]
    assert files.first_steps(here / "mine", found)[0].startswith("stpl-deploy train ")


def test_every_line_that_is_to_be_typed_is_understood(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_frames(here / "it's rain")
    made(here / "my radar", "it's rain", capsys)
    text = (here / "my radar" / "README.md").read_text()
    lines = re.findall(r"^    stpl-deploy (.+)$", text, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        assert shlex.split(line)[0] in verbs.VERBS, line
    assert "systemctl enable --now my-radar" in text
    unit = (here / "my radar" / "my-radar.service").read_text()
    assert f"\nWorkingDirectory={here / 'my radar'}\n" in unit
    assert f'\nReadWritePaths="{here / "my radar"}"\n' in unit
    assert re.search(r"^ExecStart=\S+/stpl-deploy serve --config nowcast.toml$", unit, re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("name", ["radar", "my 50% $radar's", 'a"b\\c'])
def test_systemd_reads_the_unit(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    unit = home / f"{files.unit_name(home)}.service"
    unit.write_text(files.unit_text(home))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True)
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")


def test_a_password_is_in_no_file(here: Path) -> None:
    found = sources.FoundSource(
        word="rtsp://***@camera/stream", archive=None, quantity="grey level", units="1",
        shape=(1, 480, 640), cadence_s=0.04, low=0.0, high=1.0, recipe="camera", codec={},
        secret=True,
    )  # fmt: skip
    written = files.write_folder(here / "camera", found)
    assert "recipe.toml" not in written
    settings = (here / "camera" / "nowcast.toml").read_text()
    assert "source" not in tomllib.loads(settings)
    assert "# STPL_SOURCE='rtsp://USER:PASSWORD@camera/stream'" in settings
    readme = (here / "camera" / "README.md").read_text()
    assert "umask 077" in readme
    assert "stpl-deploy train camera --data archive" in readme


def test_what_is_refused(here: Path) -> None:
    with pytest.raises(UsageError, match=r"no frames in .*data fetch"):
        sources.find_source(None, here)
    save_frames(here / "a")
    save_frames(here / "b")
    (here / ".hidden").mkdir()
    with pytest.raises(UsageError, match=r"several sources in .*: a, b; .*new FOLDER a"):
        sources.find_source(None, here)
    with pytest.raises(FrameError, match="no file or folder radr"):
        sources.find_source("radr", here)
    (here / "mine").mkdir()
    (here / "mine" / "kept.txt").write_text("kept")
    with pytest.raises(UsageError, match="already exists"):
        new.new(folder=here / "mine", source="a")
    assert [path.name for path in (here / "mine").iterdir()] == ["kept.txt"]
    with pytest.raises(UsageError, match="printable"):
        files.write_folder(here / "two\nlines", sources.find_source("a", here))


def test_bundles_and_runs_are_no_source(here: Path) -> None:
    for name in ("manifest.json", "recipe.toml"):
        (here / name.partition(".")[0]).mkdir()
        (here / name.partition(".")[0] / name).write_text("")
        np.save(here / name.partition(".")[0] / "frames.npy", np.zeros((2, 4, 4)))
    save_frames(here / "radar")
    assert [path.name for path in sources.candidates(here)] == ["radar"]
