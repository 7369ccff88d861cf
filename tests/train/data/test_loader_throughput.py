"""The benchmark of the loaders measures every format; no test asserts a time."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

for library in ("av", "h5py", "netCDF4", "xarray", "zarr"):
    pytest.importorskip(library)

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "loader_throughput.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loader_throughput", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["array-mmnist", "radar-zarr", "radar-zarr-disk", "taxibj", "video", "kth"]
)
def test_every_loader_is_measured_beside_its_model(
    script: ModuleType, tmp_path: Path, name: str
) -> None:
    script.main(["--small", "--seconds", "0.02", name], tmp_path / "result.json")
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["machine"]
    (row,) = document["rows"]
    assert row["case"] == name
    for rate in (row["loader_frames_per_s"], row["model_frames_per_s"]):
        assert 0 < rate["p05"] <= rate["median"] <= rate["p95"]
        assert rate["rounds"] >= 1
    assert 0 <= row["waited_share"] <= 1
    assert str(tmp_path) not in json.dumps(document)


def test_an_unknown_case_is_refused(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["nothing"])
    assert "digits-mini" in capsys.readouterr().err
