"""A nowcast's memory is counted before the engine opens, and what cannot fit is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import open_bundle
from stpl_core.errors import EnvironmentFault
from stpl_runtime.engines.graph_memory import live_bytes
from stpl_runtime.forecast_memory import ForecastMemory, plan_memory

LIMITED = """
import resource, sys
import onnxruntime, stpl_runtime.streaming.opening, stpl_runtime.page.watch
from stpl_deploy.cli import run
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(run(sys.argv[2:]))
"""
"""A verb under an address space of so many MiB more than its libraries take."""


@pytest.fixture
def bundle(root: Path) -> Path:
    return root / "tests" / "data" / "convlstm-tiny.bundle"


def limited(mib: int, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(mib), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_values_live_until_their_last_reader(bundle: Path) -> None:
    """By hand, from onnx's own reading of the graph, where onnx is installed."""
    onnx = pytest.importorskip("onnx")
    file = open_bundle(bundle).file("step.onnx")
    graph = onnx.load(str(file), load_external_data=False).graph
    sizes = {
        value.name: 4 * int(np.prod([d.dim_value or 1 for d in value.type.tensor_type.shape.dim]))
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    found = live_bytes(file.read_bytes())
    assert found is not None
    ends = sum(sizes[value.name] for value in (*graph.input, *graph.output))
    assert ends <= found < sum(sizes.values())


def test_norms_in_float64_count_though_they_state_no_shape() -> None:
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper.make_node, onnx.TensorProto
    nodes = [
        make("Cast", ["x"], ["wide"], to=kind.DOUBLE),
        make("LayerNormalization", ["wide", "scale"], ["norm"]),
        make("Cast", ["norm"], ["y"], to=kind.FLOAT),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, kind.FLOAT, ["batch", 1000]) for name in ("x", "y")
    ]
    scale = onnx.helper.make_tensor("scale", kind.DOUBLE, [1000], [1.0] * 1000)
    graph = onnx.helper.make_graph(nodes, "norm", ends[:1], ends[1:], [scale])
    # The norm reads one copy in float64 and makes another, beside the input, which is kept.
    assert live_bytes(onnx.helper.make_model(graph).SerializeToString()) == 1000 * (4 + 8 + 8)


def test_more_of_anything_takes_more(bundle: Path) -> None:
    opened = open_bundle(bundle)
    rooms = []

    def needed(**asked: object) -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stpl_core.host.memory.memory_room_bytes", lambda: 1)
            with pytest.raises(EnvironmentFault) as refused:
                plan_memory(opened, "onnx", **asked)  # type: ignore[arg-type]  # by name
        rooms.append(refused.value.found)
        number, unit = re.findall(r"about ([\d.]+) ([GMk])B", refused.value.found)[0]
        return float(number) * {"G": 1e9, "M": 1e6, "k": 1e3}[unit]

    plain = needed(horizon=None)
    grid = needed(horizon=None, domain=(1024, 1024))
    assert plain < grid < needed(horizon=None, domain=(2048, 1024))
    assert grid < needed(horizon=200, domain=(1024, 1024))
    assert grid < needed(horizon=None, domain=(1024, 1024), streams=4)
    own = {"horizon": None, "domain": opened.manifest.domain, "streams": 4}
    assert needed(**own) < needed(**own, batch=4)  # which run in one call
    assert plan_memory(opened, "trt", None) == ""  # which has memory of its own


def test_each_graph_that_is_open_has_an_arena(bundle: Path) -> None:
    """Its own horizon is unrolled in a graph of its own, which runs after the step's."""
    opened = open_bundle(bundle)
    steps, domain = opened.manifest.horizon, (64, 64)
    alone = ForecastMemory(opened, domain, None, 1, {"step": 10**8})
    both = ForecastMemory(opened, domain, None, 1, {"step": 10**8, "forecast": 10**8})
    assert both.bytes(steps) - alone.bytes(steps) > 10**8
    assert both.bytes(steps + 1) == alone.bytes(steps + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
@pytest.mark.parametrize("verb", ["predict", "stream"])
def test_what_cannot_fit_is_refused_and_the_setting_runs(
    bundle: Path, tmp_path: Path, verb: str
) -> None:
    manifest = open_bundle(bundle).manifest
    shape = (manifest.context + 1, manifest.frame[0], 256, 256)  # (T, C, H, W)
    frames = tmp_path / "frames.npy"
    np.save(frames, np.zeros(shape, np.float32))
    words: list[object] = [verb, bundle, frames, "--grid", "256x256"]
    words += ["--out", tmp_path / "a.npz"] if verb == "predict" else ["--max-nowcasts", "1"]
    refused = limited(700, *words, "--horizon", "5000")
    assert refused.returncode == 4, refused.stderr
    error = refused.stderr.strip().splitlines()[-1]
    found = re.search(r"needs about .* are left; try: (--horizon \d+)$", error)
    assert found is not None, refused.stderr
    assert "Traceback" not in refused.stderr
    done = limited(700, *words, *found[1].split())
    assert done.returncode == 0, done.stderr
