"""The wheel: what is in it, and what it asks for."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stpl_deploy import __version__

UNIT = f"stpl_deploy-{__version__}.data/data/share/stpl-deploy/stpl-stream@.service"


def built(kind: str, out: Path, root: Path) -> Path:
    """The sdist or the wheel, as hatchling makes it at a stated time."""
    pytest.importorskip("hatchling", reason="hatchling is for development")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)],
        cwd=root, check=True, capture_output=True, timeout=120,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1790000000"},
    )  # fmt: skip
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path) -> zipfile.ZipFile:
    path = built("wheel", tmp_path_factory.mktemp("dist"), root)
    assert path.name == f"stpl_deploy-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def text(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(f"stpl_deploy-{__version__}.dist-info/{name}").decode()


def test_the_top_level_names(wheel: zipfile.ZipFile) -> None:
    assert {name.partition("/")[0] for name in wheel.namelist()} == {
        "stpl_core",
        "stpl_deploy",
        "stpl_train",
        "stpl_export",
        "stpl_runtime",
        f"stpl_deploy-{__version__}.data",
        f"stpl_deploy-{__version__}.dist-info",
    }


def test_every_tracked_file_of_the_packages_is_in_it_and_nothing_else(
    wheel: zipfile.ZipFile, root: Path
) -> None:
    packages = ("stpl_deploy", *(f"{n}/stpl_{n}" for n in ("core", "train", "export", "runtime")))
    expected = set()
    for package in packages:
        base = root / package
        for path in base.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{base.name}/{path.relative_to(base).as_posix()}")
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == expected | {UNIT}
    assert not [name for name in inside if "test" in Path(name).name]


def test_recipes_and_type_marks_are_shipped(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for recipe in ("modernn-mmnist", "modernn-mini", "convlstm-mmnist"):
        assert f"stpl_train/recipes/{recipe}.toml" in names
    for package in ("stpl_core", "stpl_deploy", "stpl_train", "stpl_export", "stpl_runtime"):
        assert f"{package}/py.typed" in names


def test_the_base_install_asks_for_no_torch_and_no_engine(wheel: zipfile.ZipFile) -> None:
    lines = text(wheel, "METADATA").splitlines()
    base = [line for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert len(base) >= 5
    for word in ("torch", "onnx", "lightning", "tensorrt", "safetensors"):
        assert not [line for line in base if word in line]
    assert "Requires-Python: >=3.10" in lines
    assert "License-Expression: Apache-2.0" in lines
    torch = [line for line in lines if line.startswith("Requires-Dist: torch")]
    assert torch
    assert all("<2.14" in line for line in torch)


def test_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    assert "stpl-deploy = stpl_deploy.cli:main" in text(wheel, "entry_points.txt")
    assert "Apache License" in text(wheel, "licenses/LICENSE")


def test_the_unit_comes_along(wheel: zipfile.ZipFile, root: Path) -> None:
    unit = root / "runtime" / "deploy" / "stpl-stream@.service"
    assert wheel.read(UNIT) == unit.read_bytes()


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_a_second_build_has_the_same_bytes(kind: str, tmp_path: Path, root: Path) -> None:
    first, second = (built(kind, tmp_path / name, root) for name in ("first", "second"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_the_time_in_it_is_the_stated_one(wheel: zipfile.ZipFile) -> None:
    assert {info.date_time for info in wheel.infolist()} == {(2026, 9, 21, 14, 13, 20)}
