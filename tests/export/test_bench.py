"""The bench measures what it says; no test asserts a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.errors import EnvironmentFault
from stpl_export.bench import RATIOS, bench_bundle, ratios_of, save_chart
from stpl_export.export import export_run


def test_every_row_and_ratio_is_there(run_maker: Any, tmp_path: Path) -> None:
    bundle: Bundle = export_run(run_maker("convlstm"), tmp_path / "bundle")
    rounds: list[tuple[int, int]] = []
    report = bench_bundle(
        bundle, rounds=4, threads=1, progress=lambda done, of: rounds.append((done, of))
    )
    assert rounds == [(n, 6) for n in range(6)]
    document = json.loads(json.dumps(report.document()))
    wanted = {"pytorch-eager", "onnx-steps", "onnx-unrolled", "onnx-prewarmed", "onnx-first-frame"}
    rows = {row["name"]: row for row in document["rows"]}
    assert rows.keys() == wanted
    assert all(row["rounds"] == 4 for row in rows.values())
    assert all(0 < row["min_ms"] <= row["median_ms"] <= row["p95_ms"] for row in rows.values())
    for name, ratio in document["ratios"].items():
        slow, fast = (rows[row]["median_ms"] for row in RATIOS[name])
        assert abs(ratio - slow / fast) <= 0.02 * slow / fast + 0.01
    assert {"prewarmed_vs_unrolled", "prewarmed_vs_eager"} <= document["ratios"].keys()
    assert document["machine"]
    assert (document["engine"], document["provider"]) == ("onnx", "CPUExecutionProvider")
    assert document["facts"] == {}
    save_chart(report, tmp_path / "bench.svg")
    text = (tmp_path / "bench.svg").read_text()
    assert "<svg" in text
    assert str(tmp_path) not in text


def test_another_engine_has_rows_of_its_own_name() -> None:
    for engine in ("onnx", "onnx-cuda", "trt-rtx"):
        named = ratios_of(engine)
        assert named.keys() == RATIOS.keys()
        assert named["prewarmed_vs_unrolled"] == (f"{engine}-unrolled", f"{engine}-prewarmed")
        assert named["prewarmed_vs_eager"] == ("pytorch-eager", f"{engine}-prewarmed")
    assert ratios_of("onnx") == RATIOS


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this build of onnxruntime has GPU providers",
)
def test_an_engine_that_cannot_run_here_is_not_measured_on_the_cpu() -> None:
    bundle = open_bundle(Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle")
    with pytest.raises(EnvironmentFault, match="--engine onnx"):
        bench_bundle(bundle, rounds=3, engine="onnx-cuda-graph")
    with pytest.raises(EnvironmentFault, match="expected cuda"):
        bench_bundle(bundle, rounds=3, require_provider="cuda")
