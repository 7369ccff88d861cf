"""Large norms: ONNX Runtime's one-pass float32 sums are not good enough, float64 ones are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from stpl_export.graphs.compose import rollout_onnx
from stpl_export.graphs.onnx_step import state_specs, step_onnx
from stpl_export.precision.exact_norms import LARGEST_PLAIN, exact_norms, plain_norms
from stpl_train.forecaster import rollout
from stpl_train.models import build_model

SIDE = 64
"""PredRNN 1 x 16 with patch 1: its widest norm has 7 * 16 * 64 * 64 elements."""


@pytest.mark.parametrize("norm", ["ln_chw", "gn1"])
def test_large_norms_are_as_exact_as_pytorch(norm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    keys = {"hidden": 16, "layers": 1, "kernel": 3, "patch": 1, "norm": norm}
    model = build_model("predrnn", (1, SIDE, SIDE), keys).eval()
    sparse = np.random.default_rng(0).random((1, 2, 1, SIDE, SIDE), dtype=np.float32) ** 8
    with torch.no_grad():
        exact = rollout(model.double(), torch.from_numpy(sparse).double(), 2).numpy()
        theirs = rollout(model.float(), torch.from_numpy(sparse), 2).numpy()
    step, state = step_onnx(model), state_specs(model)
    errors = {}
    for name, graph in {"plain": step, "exact": exact_norms(step)}.items():
        whole = rollout_onnx(graph, state, model.frame_shape, 2, 2)
        session = onnxruntime.InferenceSession(
            whole.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        errors[name] = np.abs(session.run(None, {"context": sparse})[0] - exact).max()
    tolerance = max(8 * np.abs(theirs - exact).max(), 1e-6)
    assert errors["exact"] <= tolerance / 2
    assert errors["exact"] < errors["plain"] / 2


def test_only_large_norms_change_and_all_change_back() -> None:
    model = build_model("predrnn", (1, 32, 32), {"hidden": 8, "layers": 2, "norm": "ln_chw"}).eval()
    step = step_onnx(model)
    assert exact_norms(step) == step  # 7 * 8 * 8 * 8 elements: left alone
    model = build_model(
        "predrnn", (1, 32, 32), {"hidden": 8, "layers": 2, "patch": 1, "norm": "ln_chw"}
    )
    step = step_onnx(model.eval())
    exact = exact_norms(step)
    large = [name for name in ("7", "4", "3", "1") if int(name) * 8 * 32 * 32 > LARGEST_PLAIN]
    count = Counter(node.op_type for node in exact.graph.node)
    assert count["LayerNormalization"] == 2 * 4
    assert count["Cast"] == 2 * len(large) * 4  # input, scale, bias and result of each
    back = plain_norms(exact)
    assert list(back.graph.node) == list(step.graph.node)


def test_what_depends_on_weights_alone_is_computed_once() -> None:
    keys = {"hidden": 8, "layers": 1, "patch": 1, "norm": "ln_chw"}
    model = build_model("predrnn", (1, 32, 32), keys).eval()
    exact = exact_norms(step_onnx(model))
    whole = rollout_onnx(exact, state_specs(model), model.frame_shape, 3, 3)
    names = {tensor.name for tensor in whole.graph.initializer}
    casts = [node.input[0] for node in whole.graph.node if node.op_type == "Cast"]
    of_weights = [name for name in casts if name in names]
    assert of_weights
    assert len(of_weights) == len(set(of_weights))
