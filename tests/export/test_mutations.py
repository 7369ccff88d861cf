"""Injected export faults: each must make `verify` fail, with fresh checksums in place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from stpl_core.bundle import REFERENCE, WEIGHTS, Bundle, GraphName, open_bundle, seal
from stpl_export import reference as references
from stpl_export.export import export_run
from stpl_runtime.engine import open_session
from stpl_runtime.engines import ort
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import breach_of, check_session, first_breach, verify_bundle
from stpl_train.run import open_run
from tests.export.conftest import TRAINED
from tests.export.graph_faults import FAULTS, SMALL, copy_of, put_in


def _verdict(bundle: Bundle) -> str | None:
    """Seal the changed bundle with fresh checksums, so that only the numbers can tell."""
    seal(bundle.path, bundle.manifest)
    return first_breach(verify_bundle(open_bundle(bundle.path)))


def _openvino_verdict(bundle: Bundle, graph: GraphName) -> str | None:
    """What `verify --engine openvino` finds in one graph: each takes seconds to compile."""
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    seal(bundle.path, bundle.manifest)
    opened, graphs = open_bundle(bundle.path), dict.fromkeys(("step", graph))
    with closing(open_session(opened, tuple(graphs), engine="openvino", threads=1)) as session:
        reference = load_reference(opened)
        (check,) = check_session(session, [graph], reference, "fp32", [1])
        return breach_of(check)


def test_the_honest_bundle_passes(trained_bundle: Bundle, tmp_path: Path) -> None:
    assert _verdict(copy_of(trained_bundle, tmp_path / "bundle")) is None


@pytest.mark.parametrize("graph", ["step", "forecast"])
def test_the_honest_bundle_passes_on_openvino(
    graph: GraphName, trained_bundle: Bundle, tmp_path: Path
) -> None:
    assert _openvino_verdict(copy_of(trained_bundle, tmp_path / "bundle"), graph) is None


@pytest.fixture(scope="module")
def sparse_bundle(trained_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As of a whole country's frames: one sequence, of whose outputs and state a part is kept."""
    bundle = copy_of(trained_bundle, tmp_path_factory.mktemp("sparse") / "bundle")
    run = open_run(TRAINED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "MOST_BYTES", 20_000)
        patch.setattr(references, "LEAST_PLACES", 16)
        reference = references.make_reference(
            run.model(), run.validation(), run.recipe.data.context, "validation"
        )
    references.save_reference(bundle.file(REFERENCE), reference)
    seal(bundle.path, bundle.manifest)
    return open_bundle(bundle.path)


def test_a_part_of_large_outputs_is_kept(sparse_bundle: Bundle, trained_bundle: Bundle) -> None:
    part, whole = load_reference(sparse_bundle), load_reference(trained_bundle)
    _, height, width = trained_bundle.manifest.frame
    assert part.pixels is not None
    horizon = trained_bundle.manifest.horizon
    assert len(part.pixels) == 20_000 // (12 * horizon)
    assert len(part.pixels) < height * width / 4
    for mine, full in ((part.float32, whole.float32), (part.float64, whole.float64)):
        assert mine.shape == (1, horizon, 1, 1, len(part.pixels))
        np.testing.assert_allclose(mine, part.kept(full[:1]), rtol=0, atol=1e-5)
    rows, columns = np.divmod(part.pixels, width)
    assert {0, height - 1} <= set(rows.tolist())
    assert {0, width - 1} <= set(columns.tolist())
    assert all(len(np.unique(side // 4)) > 6 for side in (rows, columns))  # all over the frame
    for name, state in part.states.items():
        assert state.values.size < whole.states[name].values.size / 2
        expected = state.kept(whole.states[name].values)
        np.testing.assert_allclose(state.values, expected, rtol=0, atol=1e-5)
    # What is read, and what `evaluate` compares with, is whole.
    np.testing.assert_array_equal(part.context, whole.context[:1])
    np.testing.assert_array_equal(part.truth, whole.truth[:1])


def test_a_sparse_bundle_passes(sparse_bundle: Bundle) -> None:
    report = verify_bundle(sparse_bundle)
    assert first_breach(report) is None
    assert report.sequences == 1


@pytest.mark.soak
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_an_export_of_large_frames_judges_by_a_part(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "MOST_BYTES", 20_000)
    monkeypatch.setattr(references, "LEAST_PLACES", 16)
    bundle = export_run(TRAINED, tmp_path / "bundle", precision=precision, keep_slower=True)
    assert load_reference(bundle).pixels is not None
    assert first_breach(verify_bundle(bundle)) is None


def test_a_part_is_kept_only_of_what_is_too_large() -> None:
    """And of several sequences, rather fewer whole ones."""
    run = open_run(TRAINED)
    with pytest.MonkeyPatch.context() as patch:
        sequences = run.validation()
        context = run.recipe.data.context
        one = sequences[0].nbytes + 12 * sequences[0, context:].size
        patch.setattr(references, "MOST_BYTES", 2 * one)
        reference = references.make_reference(run.model(), sequences, context, "validation")
    assert len(reference.context) == 2
    assert reference.pixels is None


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        *((name, "whole") for name in FAULTS),
        *(
            pytest.param(name, "sparse", marks=() if name in SMALL else pytest.mark.soak)
            for name in FAULTS
        ),
    ],
)
def test_a_fault_makes_verify_fail(
    name: str, kept: str, trained_bundle: Bundle, sparse_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = copy_of(trained_bundle if kept == "whole" else sparse_bundle, tmp_path / "bundle")
    put_in(bundle, name)
    assert _verdict(bundle) is not None


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SMALL else pytest.mark.soak) for name in FAULTS],
)
def test_a_fault_makes_verify_fail_on_openvino(
    name: str, trained_bundle: Bundle, tmp_path: Path
) -> None:
    graphs, _ = FAULTS[name]
    bundle = copy_of(trained_bundle, tmp_path / "bundle")
    put_in(bundle, name)
    assert _openvino_verdict(bundle, graphs[0]) is not None


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize(
    "change",
    [
        lambda v: (
            v
            + np.float32(1e-3)
            * np.abs(v).mean()
            * np.sign(np.sin(np.arange(v.size))).reshape(v.shape).astype(v.dtype)
        ),
        lambda v: v.astype(np.float16).astype(np.float32),
        lambda v: np.roll(v, 1, axis=0),
    ],
    ids=["older by a little", "rounded to half", "channels rolled"],
)
def test_a_stale_weight_file_makes_verify_fail(
    change: Callable[[np.ndarray], np.ndarray], engine: str, trained_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = copy_of(trained_bundle, tmp_path / "bundle")
    tensors = safetensors.numpy.load_file(bundle.file(WEIGHTS))
    name = "cells.0.conv_x.conv.weight"
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    bundle.file(WEIGHTS).write_bytes(safetensors.numpy.save(tensors))
    found = _verdict(bundle) if engine == "onnx" else _openvino_verdict(bundle, "step")
    assert found is not None


@pytest.mark.parametrize("name", [name for name in FAULTS if "LayerNorm" in name])
def test_faults_of_norms_show_where_the_runtime_replaces_them(
    name: str, trained_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an old ONNX Runtime (`stpl_runtime.engines.exact_norms`)."""
    monkeypatch.setattr(ort, "norms_lose_digits", lambda: True)
    bundle = copy_of(trained_bundle, tmp_path / "bundle")
    assert _verdict(bundle) is None
    put_in(bundle, name)
    assert _verdict(bundle) is not None
