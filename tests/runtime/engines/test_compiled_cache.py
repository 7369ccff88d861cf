"""Compiled graphs on disk: bounded, checked, written by several at once, and never in the way."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_runtime.engines.compiled_cache import CompiledCache, graph_key


def entries(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.compiled"))


def test_what_is_kept_is_given_back(tmp_path: Path) -> None:
    cache = CompiledCache(tmp_path / "new", most_mb=1)
    assert cache.read("a") is None
    cache.write("a", b"content")
    assert CompiledCache(tmp_path / "new", most_mb=1).read("a") == b"content"
    assert cache.megabytes() == pytest.approx(39e-6)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_entry_is_dropped_with_one_line(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = CompiledCache(tmp_path, most_mb=1)
    cache.write("a", bytes(range(200)))
    (path,) = tmp_path.glob("*.compiled")
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes({"cut": whole[:-5], "flipped": flipped, "empty": b""}[damage])
    assert cache.read("a") is None
    assert cache.read("a") is None
    assert [r.message for r in caplog.records] == [f"{path} is damaged; it is compiled again"]
    assert entries(tmp_path) == []


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = CompiledCache(tmp_path, most_mb=0.001)
    for age, key in enumerate("cba"):
        cache.write(key, bytes(200))
        os.utime(tmp_path / f"{key}.compiled", (1000.0 + age, 1000.0 + age))
    assert cache.read("c") is not None  # now it is the newest
    cache.write("d", bytes(500))
    assert entries(tmp_path) == ["a", "c", "d"]
    assert cache.megabytes() <= 0.001
    cache.write("e", bytes(2000))  # more than everything
    assert "e" not in entries(tmp_path)


def test_what_a_killed_writer_left_goes(tmp_path: Path) -> None:
    left, fresh = tmp_path / ".a.compiled.12ab.tmp", tmp_path / ".b.compiled.12ab.tmp"
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (1000.0, 1000.0))
    CompiledCache(tmp_path, most_mb=1).write("c", b"content")
    assert not left.exists()
    assert fresh.exists()  # of a process that is at it


def test_a_folder_that_cannot_be_written_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = CompiledCache(tmp_path / "file" / "compiled", most_mb=1)
    cache.write("a", b"content")
    cache.write("b", b"content")
    assert cache.read("a") is None
    (record,) = caplog.records
    assert "compiled graphs are not kept" in record.message


def test_writers_and_readers_at_once_see_whole_entries(tmp_path: Path) -> None:
    contents = {bytes([n]) * 50_000 for n in range(8)}

    def work(content: bytes) -> set[bytes | None]:
        cache = CompiledCache(tmp_path, most_mb=1)
        seen = set()
        for _ in range(8):
            cache.write("a", content)
            seen.add(cache.read("a"))
        return seen

    with ThreadPoolExecutor(8) as pool:
        seen = set().union(*pool.map(work, contents))
    assert seen <= contents
    assert entries(tmp_path) == ["a"]


def test_zero_megabytes_are_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("STPL_CACHE_MB", "0")
    CompiledCache().write("a", b"content")
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("STPL_CACHE_MB", "much")
    with pytest.raises(UsageError, match="STPL_CACHE_MB=2000"):
        CompiledCache()


def test_a_key_changes_with_all_that_a_graph_depends_on(bundle: Bundle) -> None:
    manifest = bundle.manifest
    how = {"engine": "e", "version": "1"}
    base = graph_key(manifest, "step", how)
    assert base == graph_key(manifest, "step", dict(how))
    weights = {
        name: spec.model_copy(update={"sha256": "0" * 64}) if "weights" in name else spec
        for name, spec in manifest.files.items()
    }
    graph = {
        name: spec.model_copy(update={"sha256": "0" * 64}) if name == "step.onnx" else spec
        for name, spec in manifest.files.items()
    }
    others = [
        graph_key(manifest, "forecast", how),
        graph_key(manifest, "step", {**how, "version": "2"}),
        graph_key(manifest.model_copy(update={"files": weights}), "step", how),
        graph_key(manifest.model_copy(update={"files": graph}), "step", how),
        graph_key(manifest.model_copy(update={"state": manifest.state[::-1]}), "step", how),
    ]
    assert len({base, *others}) == len(others) + 1
