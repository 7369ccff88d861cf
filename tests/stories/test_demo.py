"""`stpl-deploy demo`, cut short: two iterations and a short stream from another process."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from stpl_core.bundle import open_bundle
from stpl_core.errors import AccuracyError, UsageError
from stpl_deploy.cli import demo

SHORT = ["training.iterations=2", "training.validate_every=2"]


def test_the_whole_story_leaves_its_film_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FRAMES", 26)
    monkeypatch.setattr(demo, "PERIOD_S", 0.1)
    out = tmp_path / "demo"
    with pytest.raises(AccuracyError, match="did not beat persistence at every lead time"):
        demo.demo(out=out, settings=SHORT)  # two iterations do not make a forecaster
    report = open_bundle(out / "bundle").manifest.accuracy
    assert report is not None
    assert report.passed
    table = list(csv.reader((out / "skill.csv").read_text().splitlines()))
    assert [row[0] for row in table] == ["lead time", *map(str, range(1, 11))]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in table[1:])
    with Image.open(out / "demo.gif") as film:
        assert film.n_frames == 20
    assert len(list((out / "frames").glob("*.png"))) == 26
    assert list((out / "nowcasts").glob("*.png"))
    assert "live nowcasts against what came" in capsys.readouterr().out


def test_only_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="is not a demo"):
        demo.demo(out=tmp_path, settings=SHORT)
    assert (tmp_path / "mine.txt").read_text() == "keep"
