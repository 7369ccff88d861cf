"""`verify --against`: every engine that is installed, every model, and results of elsewhere."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from stpl_core.bundle import Bundle, open_bundle, seal
from stpl_core.errors import UsageError
from stpl_core.options import EngineOptions
from stpl_export.export import export_run
from stpl_export.polygraphy.against import compare_engines
from stpl_runtime.engine import ENGINES
from stpl_runtime.proof.int8_margin import FARTHEST_DB
from stpl_runtime.proof.verify import verify_bundle
from tests.export.graph_faults import FAULTS, SMALL, copy_of, put_in
from tests.export.polygraphy.conftest import EVERY

LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Engines that need no GPU -> the library."""


def installed(engine: str) -> None:
    """Skip by name what is not here."""
    if engine not in ENGINES:
        pytest.skip(f"there is no engine {engine}")
    if importlib.util.find_spec(LIBRARIES[engine]) is None:
        pytest.skip(f"{LIBRARIES[engine]} is not installed")


@pytest.mark.parametrize("engine", LIBRARIES)
@pytest.mark.parametrize("model", EVERY)
def test_every_model_agrees_with_pytorch_on_every_engine(
    model: str, engine: str, bundle_of: Callable[[str], Bundle]
) -> None:
    installed(engine)
    bundle = bundle_of(model)
    found = compare_engines(bundle, [engine])
    assert found.unable == {}
    assert found.first_breach() is None
    leads = {f"lead {k + 1}" for k in range(bundle.manifest.horizon)}
    states = {f"state {spec.name}" for spec in bundle.manifest.state}
    for batch in (1, 2):
        for graph in ("step", "forecast", "rollout"):
            rows = [row for row in found.rows if (row.graph, row.batch) == (graph, batch)]
            assert {row.output for row in rows} == (
                leads | states if graph == "forecast" else leads
            )
            assert all(row.engine == engine for row in rows)


@pytest.mark.parametrize(
    "precision", ["fp32", "fp16", pytest.param("int8", marks=pytest.mark.soak)]
)
def test_the_numbers_are_those_of_verify(
    precision: str,
    run_of: Callable[[str], Path],
    bundle_of: Callable[[str], Bundle],
    tmp_path: Path,
) -> None:
    if precision == "fp32":
        bundle = bundle_of("convlstm")
    else:
        run = run_of("convlstm")
        bundle = export_run(run, tmp_path / "bundle", precision=precision, keep_slower=True)
    found = {(r.graph, r.batch, r.output): r for r in compare_engines(bundle, ["onnx"]).rows}
    report = verify_bundle(bundle)
    for check in report.checks:
        for lead in check.leads:
            row = found[check.path, check.batch, f"lead {lead.lead}"]
            assert row.max_error == pytest.approx(lead.max_error, rel=1e-9)
            assert row.psnr_db == pytest.approx(lead.psnr_db, abs=1e-4)
            assert row.limit.tolerance == lead.tolerance
            assert row.limit.min_psnr_db == lead.min_psnr_db
            assert row.passed == lead.passed
        if check.state_error is not None:
            rows = [r for r in found.values() if r.output.startswith("state ")]
            shares = [r.max_error / r.limit.tolerance for r in rows if r.batch == check.batch]
            assert max(shares) == pytest.approx(check.state_error, rel=1e-9)
        if check.int8 is not None and check.int8.early_margin_db is not None:
            rows = [r for r in found.values() if r.output.startswith("early ")]
            margins = [  # of equal frames Polygraphy's is infinite
                min(r.psnr_db, FARTHEST_DB) - (r.limit.min_psnr_db or 0)
                for r in rows
                if r.batch == check.batch
            ]
            assert min(margins) == pytest.approx(check.int8.early_margin_db, abs=1e-4)
        if check.int8 is not None and check.int8.budget_db is not None:
            row = found[check.path, check.batch, "against truth"]
            assert row.limit.min_psnr_db is not None
            margin = check.int8.psnr_change_db + check.int8.budget_db
            assert row.psnr_db - row.limit.min_psnr_db == pytest.approx(margin, abs=1e-4)


@pytest.mark.parametrize("engine", ["onnx", pytest.param("openvino", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SMALL else pytest.mark.soak) for name in FAULTS],
)
def test_a_fault_in_a_graph_is_found(
    name: str, engine: str, trained_bundle: Bundle, tmp_path: Path
) -> None:
    installed(engine)
    bundle = copy_of(trained_bundle, tmp_path / "bundle")
    put_in(bundle, name)
    seal(bundle.path, bundle.manifest)
    found = compare_engines(open_bundle(bundle.path), [engine])
    assert found.unable == {}
    assert found.first_breach() is not None


def test_an_engine_that_cannot_run_here_is_named_and_the_others_run(
    trained_bundle: Bundle,
) -> None:
    found = compare_engines(trained_bundle, ["trt-rtx", "onnx"])
    assert "no TensorRT-RTX plan" in found.unable["trt-rtx"] or "driver" in found.unable["trt-rtx"]
    assert {row.engine for row in found.rows} == {"onnx"}
    assert found.passed


@pytest.fixture(scope="module")
def kept(trained_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of another machine."""
    path = tmp_path_factory.mktemp("kept") / "there.json"
    compare_engines(trained_bundle, ["onnx"], results=path)
    return path


def test_results_of_another_machine_are_judged_and_compared(
    trained_bundle: Bundle, kept: Path
) -> None:
    found = compare_engines(trained_bundle, ["onnx"], [kept])
    assert found.passed
    assert {row.engine for row in found.rows} == {"onnx", "onnx of there.json"}
    assert {row.engine for row in found.between} == {"onnx beside onnx of there.json"}
    assert all(row.max_error == 0 for row in found.between)  # the same machine, in truth
    doubled = {row.output: row.limit.tolerance for row in found.between}
    single = {row.output: row.limit.tolerance for row in found.rows}
    assert all(tolerance == 2 * single[output] for output, tolerance in doubled.items())


def _changed(kept: Path, to: Path, change: Callable[[Any], None]) -> Path:
    """A copy of results, with one array changed."""
    from polygraphy.comparator import RunResults

    runs = RunResults.load(str(kept))
    change(runs)
    to.write_text(runs.to_json())
    return to


def test_a_pixel_of_another_machine_s_results_that_is_off_is_found(
    trained_bundle: Bundle, kept: Path, tmp_path: Path
) -> None:
    def off(runs: Any) -> None:
        values = runs["onnx rollout"][0]["lead 4"]
        values[1, 0, 5, 6] += 1e-2

    found = compare_engines(trained_bundle, ["onnx"], [_changed(kept, tmp_path / "off.json", off)])
    failed = [row for row in (*found.rows, *found.between) if not row.passed]
    assert {row.engine for row in failed} == {"onnx of off.json", "onnx beside onnx of off.json"}
    assert {(row.graph, row.output) for row in failed} == {("rollout", "lead 4")}
    assert "rollout on onnx of off.json, batch 4, lead 4: error 1.00e-02" in (
        found.first_breach() or ""
    )


def test_results_that_are_not_of_this_bundle_or_damaged_are_refused(
    trained_bundle: Bundle, kept: Path, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    def other(runs: Any) -> None:
        runs["PyTorch float64"][0]["lead 2"][0, 0, 0, 0] += 1e-9

    def fewer(runs: Any) -> None:
        del runs["onnx step"][1].dct["lead 3"]

    for name, change, match in (
        ("other.json", other, "is of another bundle"),
        ("fewer.json", fewer, "onnx step has no lead 3"),
    ):
        with pytest.raises(UsageError, match=match):
            compare_engines(trained_bundle, ["onnx"], [_changed(kept, tmp_path / name, change)])
    with pytest.raises(UsageError, match=r"there\.json"):
        compare_engines(bundle_of("convlstm"), ["onnx"], [kept])
    whole = kept.read_text()
    for name, text in (("half.json", whole[: len(whole) // 2]), ("list.json", "[1]"), ("a", "{}")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="cannot be read"):
            compare_engines(trained_bundle, ["onnx"], [tmp_path / name])
    with pytest.raises(UsageError, match="already exists"):
        compare_engines(trained_bundle, ["onnx"], results=kept)


def test_an_engine_in_a_lossy_precision_is_judged_as_that(
    trained_bundle: Bundle,
) -> None:
    installed("openvino")
    options = EngineOptions(allow="bf16")
    found = compare_engines(trained_bundle, ["openvino"], backend=options)
    labels = {row.engine for row in found.rows}
    assert labels <= {"openvino", "openvino(bf16)"}  # bf16 where the CPU has it
    if "openvino(bf16)" in labels:
        assert {r.limit.min_psnr_db for r in found.rows if r.output.startswith("lead")} == {45.0}


def _broken(bundle: Bundle, folder: Path) -> Path:
    shutil.copytree(bundle.path, folder)
    path = folder / "rollout.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            next(a for a in node.attribute if a.name == "epsilon").f = 1e-3
    path.write_bytes(model.SerializeToString())
    seal(folder, bundle.manifest)
    return open_bundle(folder).path


def test_the_command_line_shows_every_lead_time_and_ends_as_it_went(
    cli_here: Callable[..., Any], trained_bundle: Bundle, tmp_path: Path
) -> None:
    good, results = trained_bundle.path, tmp_path / "results.json"
    done = cli_here("verify", good, "--against", "onnx", "--results", results)
    assert done.returncode == 0, done.stderr
    for graph in ("step", "forecast", "rollout"):
        assert f"{graph} lead {trained_bundle.manifest.horizon} " in done.stdout
    assert done.stdout.count("CPUExecutionProvider, against PyTorch") == 1
    done = cli_here("verify", good, "--against", f"{results},trt-rtx", "--json")
    assert done.returncode == 4
    assert "error: trt-rtx cannot run here" in done.stderr
    document = json.loads(done.stdout)
    assert document["passed"] is False
    assert [*document["not_run"]] == ["trt-rtx"]
    assert {row["engine"] for row in document["against_pytorch"]} == {
        "onnx",
        "onnx of results.json",
    }
    assert all(row["passed"] for row in document["between_machines"])
    done = cli_here(
        "verify", _broken(trained_bundle, tmp_path / "broken"), "--against", "onnx,trt-rtx"
    )
    assert done.returncode == 3
    assert "BREACH" in done.stdout
    assert "error: rollout on onnx, batch 4, lead" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "nothing.json"], "neither an engine nor a file"),
        (["--results", "r.json"], "--results without --against"),
        (["--case", "c"], "--case without --bisect"),
        (["--against", "onnx", "--bisect"], "--bisect with --against"),
    ],
)
def test_options_that_do_not_hold_together_are_refused(
    options: list[str], message: str, cli_here: Callable[..., Any], trained_bundle: Bundle
) -> None:
    done = cli_here("verify", trained_bundle.path, *options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_a_value_that_is_no_number_fails(
    trained_bundle: Bundle, kept: Path, tmp_path: Path
) -> None:
    for value in (np.nan, np.inf):

        def spoil(runs: Any, value: float = value) -> None:
            runs["onnx step"][0]["lead 1"][0, 0, 0, 0] = value

        path = _changed(kept, tmp_path / f"{value}.json", spoil)
        found = compare_engines(trained_bundle, [], [path])
        assert {(r.graph, r.output) for r in found.rows if not r.passed} == {("step", "lead 1")}
