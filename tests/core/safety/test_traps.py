"""Pipes, links and endless files in the place of ours: refused, never waited for."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stpl_core.bundle import MANIFEST, open_bundle
from stpl_core.errors import BundleError, StplError, UsageError
from stpl_core.files import atomic_directory
from stpl_core.parts import INDEX, join, split
from stpl_core.safety.versions import remember_version, remembered_version

TINY = Path(__file__).parents[2] / "data" / "convlstm-tiny.bundle"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pipes among files there")
_GIGABYTES = 3 * 2**30
Trap = Callable[[Path], None]


def endless(path: Path) -> None:
    """Of gigabytes, none of them on the disk."""
    path.unlink()
    with path.open("wb") as file:
        file.truncate(_GIGABYTES)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("trap", [endless, pipe])
@pytest.mark.parametrize("name", [INDEX, "0002.part"])
def test_parts(tmp_path: Path, name: str, trap: Trap) -> None:
    split(TINY, tmp_path / "parts", 20_000)
    trap(tmp_path / "parts" / name)
    with pytest.raises(StplError):
        join(tmp_path / "parts", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["parts"]


def test_a_part_that_is_larger_than_it_says(tmp_path: Path) -> None:
    split(TINY, tmp_path / "parts", 20_000)
    document = json.loads((tmp_path / "parts" / INDEX).read_text())
    document["files"][0]["parts"][0]["bytes"] = 1
    (tmp_path / "parts" / INDEX).write_text(json.dumps(document))
    with pytest.raises(StplError, match="expected a file of 1 bytes"):
        join(tmp_path / "parts", tmp_path / "out")


@pytest.mark.parametrize("trap", [endless, pipe])
def test_manifests(tmp_path: Path, trap: Trap) -> None:
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    trap(bundle / MANIFEST)
    with pytest.raises(BundleError):
        open_bundle(bundle)


@pytest.mark.parametrize("trap", [endless, pipe])
def test_the_memory_of_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    remember_version(TINY, 7)
    assert remembered_version(TINY) == 7
    (kept,) = (tmp_path / "versions").iterdir()
    trap(kept)
    assert remembered_version(TINY) == 0
    assert "older bundles are not noticed" in caplog.text


def test_a_link_in_the_place_of_results(tmp_path: Path) -> None:
    """Somebody else's folder, empty until now."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match="already exists"), atomic_directory(tmp_path / "out"):
        pass
    assert not any((tmp_path / "theirs").iterdir())
