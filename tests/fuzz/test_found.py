"""What the campaign found, each kept small: refused in one line from now on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
onnx = pytest.importorskip("onnx")
for library in ("netCDF4", "onnxruntime", "torch"):
    pytest.importorskip(library)

from stpl_core.bundle import open_bundle  # noqa: E402
from stpl_core.errors import EnvironmentFault, FrameError, RecipeError, RunError  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_deploy.cli import run  # noqa: E402
from stpl_runtime.engine import open_session  # noqa: E402
from stpl_train.recipe import load_recipe  # noqa: E402
from stpl_train.run import open_run  # noqa: E402
from tests.fuzz.test_bundles import TINY, put  # noqa: E402
from tests.fuzz.test_readers import cf  # noqa: E402


def test_dimensions_of_other_sizes_than_the_values(tmp_path: Path) -> None:
    """The NetCDF library wrote beyond its memory: SIGSEGV."""
    path = tmp_path / "a.nc"
    cf(path)
    with h5py.File(path, "r+") as file:
        del file["x"]
        file.create_dataset("x", (8, 8), "f2")
    with pytest.raises(FrameError, match=r"dimensions of .* and values of \(6, 24, 32\)"):
        open_frames(path)


def test_an_unlimited_dimension_may_be_longer_than_a_variable(tmp_path: Path) -> None:
    import netCDF4

    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("time", None), ("y", 4), ("x", 5)):
            file.createDimension(name, size)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "seconds since 2024-01-01"
        time[:] = [0.0, 300.0, 600.0]
        file.createVariable("quality", "f4", ("time",))[:1] = 1.0
        rain = file.createVariable("rain", "f4", ("time", "y", "x"))
        rain.units = "mm h-1"
        rain[:] = np.ones((3, 4, 5), np.float32)
    assert open_frames(path).sizes["time"] == 3


@pytest.mark.parametrize("where", ["recipe", "run"])
def test_a_key_of_thousands_of_parts(tmp_path: Path, where: str) -> None:
    """It takes the square of them to read: 20 s for 40 kB."""
    path = tmp_path / "recipe.toml"
    path.write_text("a" + ".a" * 3000 + " = 1\n")
    with pytest.raises((RecipeError, RunError), match="dots"):
        load_recipe(str(path)) if where == "recipe" else open_run(tmp_path)


def test_a_graph_that_cannot_compute(tmp_path: Path) -> None:
    """It was loaded, and ended with a traceback when it ran."""
    bundle = Path(shutil.copytree(TINY, tmp_path / "b"))
    model = onnx.load(bundle / "step.onnx", load_external_data=False)
    split = next(node for node in model.graph.node if node.op_type == "Split")
    next(one for one in split.attribute if one.name == "num_outputs").i = 127
    document = json.loads((bundle / "manifest.json").read_bytes())
    put(bundle, document, "step.onnx", model.SerializeToString())
    opened = open_bundle(bundle)
    session = open_session(opened, ["step"], threads=1)
    with pytest.raises(EnvironmentFault, match="cannot run the step graph"):
        session.step(np.zeros((1, *opened.manifest.frame), np.float32), session.zero_state())


def test_a_name_that_would_write_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\x1b[31m\nerror: forged.npy"
    np.save(path, np.zeros((4, 1, 8, 8), np.float32))
    assert run(["data", "inspect", str(path)]) == 0
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "\nerror: forged" not in told.out + told.err
