"""The stated range of versions is what docs/support.md shows to hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROW = re.compile(r"^\| (3\.\d+) \| (.+?) \| (.*?) \| (.+?) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str, str]]:
    root = Path(__file__).parents[2]
    return ROW.findall((root / "docs" / "support.md").read_text())


def lowest(root: Path, library: str) -> str:
    stated = re.search(rf'"{library}>=([\d.]+)', (root / "pyproject.toml").read_text())
    assert stated is not None
    return stated[1]


def test_nothing_in_it_fails(rows: list[tuple[str, str, str, str]]) -> None:
    assert len(rows) > 30
    assert {result for *_, result in rows} <= {"holds", "no build", "not at hand"}


@pytest.mark.parametrize("library", ["onnxruntime", "numpy", "typer", "pydantic", "zarr"])
def test_the_lowest_stated_version_holds(
    rows: list[tuple[str, str, str, str]], root: Path, library: str
) -> None:
    least = lowest(root, library)
    installed = [versions for _, _, versions, result in rows if result == "holds"]
    assert any(re.search(rf"\b{library} {re.escape(least)}\b", row) for row in installed), least


def test_the_oldest_python_holds(rows: list[tuple[str, str, str, str]], root: Path) -> None:
    stated = re.search(r'requires-python = ">=([\d.]+)"', (root / "pyproject.toml").read_text())
    assert stated is not None
    assert any(python == stated[1] and result == "holds" for python, _, _, result in rows)
