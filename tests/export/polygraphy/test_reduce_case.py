"""A planted overflow becomes a case that Polygraphy reduces by itself."""

from __future__ import annotations

import shlex
from pathlib import Path

import onnx
import pytest
import safetensors.torch

from stpl_core.bundle import Bundle
from stpl_export import export
from stpl_export.polygraphy.reduce_case import write_reduce_case
from stpl_export.precision.bisect import bisect_bundle
from stpl_train.run import WEIGHTS
from tests.export.conftest import tiny_run
from tests.export.polygraphy.conftest import Polygraphy


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An fp16 bundle in which one convolution's sums are too large for fp16.

    An export refuses it; on a device it is met where the device's kernels differ.
    """
    folder = tmp_path_factory.mktemp("overflow")
    run = tiny_run(folder / "run", "modernn")
    tensors = safetensors.torch.load_file(run / WEIGHTS)
    tensors[next(name for name in tensors if name.startswith("cells.0.conv_x.conv"))] *= 2e5
    safetensors.torch.save_file(tensors, run / WEIGHTS)  # the norm behind takes it out again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_checked", lambda *_: None)
        return export.export_run(run, folder / "bundle", precision="fp16")


def _commands(folder: Path) -> list[list[str]]:
    lines = (folder / "README.md").read_text().splitlines()
    return [shlex.split(line) for line in lines if line.startswith("    polygraphy")]


@pytest.mark.soak
def test_the_case_shows_the_fault_and_is_reduced_to_it(
    overflowing: Bundle, polygraphy: Polygraphy, tmp_path: Path
) -> None:
    found = bisect_bundle(overflowing)
    assert found.first is not None
    folder = tmp_path / "case"
    assert write_reduce_case(overflowing, found.first, folder)
    check, reduce = _commands(folder)
    smallest = onnx.load(folder / "smallest.onnx")
    kinds = [node.op_type for node in smallest.graph.node]
    assert kinds.count("Conv") == 1
    assert set(kinds) <= {"Conv", "Cast"}
    code, said = polygraphy(folder, check[1:])
    assert code == 1, said
    assert "FAILED" in said
    code, said = polygraphy(folder, reduce[1:])
    assert code == 0, said
    reduced = onnx.load(folder / "reduced.onnx")
    assert found.first in {node.name for node in reduced.graph.node}
    assert len(reduced.graph.node) <= 3
    whole = onnx.load(folder / "graph.onnx")
    assert len(whole.graph.node) > 10 * len(reduced.graph.node)
