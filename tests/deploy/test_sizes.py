"""Small pieces: no long function, no long signature, no crowded folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "core/stpl_core",
    "train/stpl_train",
    "runtime/stpl_runtime",
    "export/stpl_export",
    "stpl_deploy",
)
FULL = ("readers", "models")
"""Folders with one file for each word: as many as there are words."""
LINES, PARAMETERS, FILES = 60, 10, 20


def functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, lines and parameters of each; `self` does not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
            given = [name for name in names if name not in ("self", "cls")]
            lines = (node.end_lineno or 0) - node.lineno + 1
            yield node.name, lines, len(given) + len(node.args.kwonlyargs)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_and_no_folder_is_too_large(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for name, lines, parameters in functions(path.read_text()):
            assert lines <= LINES, f"{path}: {name} has {lines} lines"
            assert parameters <= PARAMETERS, f"{path}: {name} has {parameters} parameters"
    for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
        assert folder.name in FULL or len(list(folder.glob("*.py"))) <= FILES, folder


def test_the_top_of_the_runtime_is_short() -> None:
    assert len(list((ROOT / "runtime/stpl_runtime").glob("*.py"))) <= 12


def test_the_count_is_right() -> None:
    assert list(functions("def f(self, a, *, b):\n    pass\n")) == [("f", 2, 2)]
