"""Phrases that read as translated, and that should not come back (CONTRIBUTING.md, style)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
    if path.name != "CONTRIBUTING.md"  # shows them as examples of what not to write
]
SOURCES = [
    path
    for folder in ("core", "train", "export", "runtime", "stpl_deploy", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

BANNED = (
    "told",
    "gone on with",
    "goes on where",
    "going on from",
    "to go on",
    "go on all the same",
    "there already",
    "typing errors?",
    "by chance",
    "once a kind",
    "as exact as promised",
    "may be written to",
    "is no (?:file|directory|folder|bundle|run|checkpoint)",
    "made finer",
    "mend",
)
_PATTERN = re.compile(rf"\b(?:{'|'.join(BANNED)})\b", re.IGNORECASE)


def found_in(text: str) -> list[str]:
    return _PATTERN.findall(" ".join(text.split()))


def messages(source: Path) -> Iterator[tuple[int, str]]:
    """String constants of a module, without docstrings: line and text."""
    tree = ast.parse(source.read_text())
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.lineno, node.value


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_avoid_banned_phrases(document: Path) -> None:
    assert found_in(document.read_text()) == []


def test_messages_avoid_banned_phrases() -> None:
    found = [
        f"{source.relative_to(ROOT)}:{line}: {phrase}"
        for source in SOURCES
        for line, text in messages(source)
        for phrase in found_in(text)
    ]
    assert found == []


def test_the_check_finds_them() -> None:
    assert found_in("A cut connection is gone on\nwith where it stopped") == ["gone on with"]
    assert found_in("another path; Told once a kind") == ["Told", "once a kind"]
    assert found_in("amended, recommended; a toldo") == []
    (file,) = [source for source in SOURCES if source.name == "errors.py"]
    assert any("unknown key" in text for _, text in messages(file))
    assert not any(text.startswith("Every error") for _, text in messages(file))
