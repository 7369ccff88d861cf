"""Runs and bundles in small files, and whole again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.errors import ChecksumError, UsageError
from stpl_core.parts import INDEX, join, split

CONTENT = {"a/b.bin": bytes(range(256)) * 3, "empty": b"", "recipe.toml": b"x = 1\n"}


def make(path: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def read(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@settings(max_examples=10, deadline=None)
@given(
    content=st.dictionaries(
        st.sampled_from(["a", "b/c", "b/d.bin", "e"]), st.binary(max_size=90), min_size=1
    ),
    size=st.integers(9, 60),
)
def test_join_is_the_way_back(
    content: dict[str, bytes], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("parts")
    split(make(base / "run", content), base / "parts", size)
    assert all(p.stat().st_size <= size for p in (base / "parts").glob("*.part"))
    join(base / "parts", base / "again")
    assert read(base / "again") == content


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    split(make(tmp_path / "run", CONTENT), tmp_path / "parts", 100)
    return tmp_path / "parts"


@pytest.mark.parametrize("fault", ["flip", "cut", "missing"])
def test_a_damaged_part_is_named(parts: Path, tmp_path: Path, fault: str) -> None:
    victim = parts / "0003.part"
    if fault == "missing":
        victim.unlink()
    else:
        data = bytearray(victim.read_bytes())
        data[5] ^= 1
        victim.write_bytes(bytes(data) if fault == "flip" else bytes(data[:-1]))
    with pytest.raises(ChecksumError, match=r"0003\.part"):
        join(parts, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["../out", "/etc/x", ""])
def test_an_index_cannot_write_elsewhere(parts: Path, tmp_path: Path, name: str) -> None:
    index = json.loads((parts / INDEX).read_text())
    index["files"][0]["path"] = name
    (parts / INDEX).write_text(json.dumps(index))
    with pytest.raises(UsageError, match="paths inside"):
        join(parts, tmp_path / "again")


def test_swapped_files_are_seen(parts: Path, tmp_path: Path) -> None:
    index = json.loads((parts / INDEX).read_text())
    index["files"][0]["parts"].reverse()
    (parts / INDEX).write_text(json.dumps(index))
    with pytest.raises(ChecksumError, match=r"a/b\.bin"):
        join(parts, tmp_path / "again")


def test_nothing_to_split_or_join_is_refused(tmp_path: Path, parts: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="holds no files"):
        split(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UsageError, match=r"no .*parts\.json"):
        join(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UsageError, match="already exists"):
        join(parts, tmp_path / "run")
    (parts / INDEX).write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        join(parts, tmp_path / "out")
