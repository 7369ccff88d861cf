"""docs/install.md: its tables are those of the measured file, and what it says to type works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("packaging")
tomllib = pytest.importorskip("tomllib")
from benchmarks import install_environments, install_table  # noqa: E402
from benchmarks.install_environments import Row  # noqa: E402
from stpl_deploy import __version__  # noqa: E402

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_page_is_up_to_date() -> None:
    assert install_table.page() == install_table.PAGE.read_text(), "install_table.py --write"


def test_it_was_measured_with_this_version() -> None:
    found = install_table.result()
    assert found["stpl_deploy"] == __version__
    measured = {(row["extras"], row["python"]) for row in found["rows"]}
    every = {(one, python) for one in install_table.EXTRAS for python in install_table.PYTHONS}
    assert measured <= every
    for python in install_table.PYTHONS:
        assert ("cpu,page", python) in measured, python


def test_it_runs_where_it_is_stated_to() -> None:
    rows = [Row(**row) for row in install_table.result()["rows"]]
    for row in rows:
        if "train" not in row.extras and row.extras not in ("export", "all"):
            assert row.reason == "", row
        if not row.reason:
            assert row.mb > 1
        if row.load:
            assert 0 < row.import_s <= row.help_s < 10


def test_every_extra_is_named_on_it() -> None:
    named = set(re.findall(r"`([a-z\d-]+)`", install_table.PAGE.read_text()))
    assert set(EXTRAS) <= named


def test_the_measured_extras_exist() -> None:
    for extras in install_table.EXTRAS:
        assert set(extras.split(",")) <= set(EXTRAS)


def test_the_names_of_the_wheel_are_this_versions() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for version in re.findall(r"stpl_deploy-([\d.]+)-py3-none-any", document.read_text()):
            assert version == __version__, document.name


def test_what_is_asked_for_on_an_older_python(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is for development")
    wheel = install_environments.build_wheel(tmp_path)
    old, new = (install_environments.asked_for(wheel, "export", one) for one in ("3.10", "3.13"))
    assert new.keys() - old.keys() == {"torch", "lightning-fabric", "onnxscript"}
    assert {"tomli", "numpy", "polygraphy", "onnxruntime", "safetensors"} <= old.keys()
    assert new["torch"] == "torch<2.14,>=2.8"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ERROR: No matching distribution found for torch", "No matching distribution found"),
        ("x\nERROR: cannot fetch https://a.example/b/c.whl now", "cannot fetch ... now"),
        ("error in /home/somebody/x.py", "error in ..."),
    ],
)
def test_a_reason_has_no_address_and_no_path(line: str, word: str) -> None:
    found = install_environments.why(line)
    assert word in found
    assert "/" not in found
