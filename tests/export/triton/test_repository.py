"""A model repository for Triton: its own protobuf reads it, and the lint finds what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is in the extra triton")

from stpl_core.bundle import Bundle, EngineSpec, GraphName, open_bundle, seal
from stpl_core.errors import BundleError, ChecksumError, UsageError
from stpl_export.builders.norm_ranks import full_rank_norms
from stpl_export.builders.trt import Target, installed, load_builder
from stpl_export.precision.exact_norms import plain_norms
from stpl_export.precision.macs import fixed_batch
from stpl_export.triton.config import Backend, Serving
from stpl_export.triton.lint import lint_model, lint_repository, parse_config
from stpl_export.triton.repository import GRAPHS, write_repository
from tests.conftest import Cli
from tests.export.conftest import KEYS_OF_MODELS

TINY = Path(__file__).parents[2] / "data" / "convlstm-tiny.bundle"


PLAN = b"what a builder gives"


def with_plans(
    bundle: Bundle, copy: Path, graphs: Sequence[GraphName], *, engine: str = "trt", batch: int = 1
) -> Bundle:
    """The bundle with plans; what they read and give is TensorRT-RTX's parser's word."""
    if not installed("trt-rtx"):
        pytest.skip("tensorrt-rtx is not installed (extra trt-rtx)")
    builder, specs = load_builder("trt-rtx"), []
    shutil.copytree(bundle.path, copy)
    for graph in graphs:
        model = plain_norms(onnx.load(str(bundle.graph(graph)), load_external_data=False))
        fixed = fixed_batch(full_rank_norms(model), batch).SerializeToString()
        network, _keeps_it = builder.parse(fixed, bundle.graph(graph))
        details = {**builder.details(network, Target(("8.6",))), "version": "10.9.0.34"}
        spec = EngineSpec(
            engine=engine, graph=graph, file=f"{graph}.engine", precision="fp32", batch=batch,
            details=details,
        )  # fmt: skip
        (copy / spec.file).write_bytes(PLAN)
        specs.append(spec)
    return seal(copy, bundle.manifest.model_copy(update={"engines": tuple(specs)}))


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return open_bundle(TINY)


@pytest.fixture
def repository(tiny: Bundle, tmp_path: Path) -> Path:
    write_repository(tiny, tmp_path / "models", Serving("tiny", max_batch=4, sequences=9))
    return tmp_path / "models"


def test_it_is_what_the_bundle_is(tiny: Bundle, repository: Path) -> None:
    assert lint_repository(repository) == ["tiny_forecast", "tiny_rollout", "tiny_step"]
    step = parse_config(repository / "tiny_step" / "config.pbtxt")
    assert (step.max_batch_size, step.backend) == (4, "onnxruntime")
    batching = step.sequence_batching
    assert batching.oldest.max_candidate_sequences == 9
    assert [state.input_name for state in batching.state] == [s.input for s in tiny.manifest.state]
    assert [list(state.dims) for state in batching.state] == [
        list(s.shape) for s in tiny.manifest.state
    ]
    assert all(state.initial_state[0].zero_data for state in batching.state)
    assert step.parameters["stpl_model"].string_value == tiny.manifest.model.name
    rollout = parse_config(repository / "tiny_rollout" / "config.pbtxt")
    assert rollout.HasField("dynamic_batching")
    assert not rollout.HasField("sequence_batching")
    assert list(rollout.input[0].dims) == [tiny.manifest.context, *tiny.manifest.frame]
    assert list(rollout.output[0].dims) == [tiny.manifest.horizon, *tiny.manifest.frame]


def test_each_model_runs_by_itself(tiny: Bundle, repository: Path) -> None:
    """The copied graph finds its copied weights, and gives what the bundle's does."""
    import onnxruntime as ort

    frames = np.random.default_rng(0).random((1, 4, 1, 16, 16), dtype=np.float32)
    made = [
        ort.InferenceSession(str(path)).run(None, {"context": frames})[0]
        for path in (repository / "tiny_rollout/1/model.onnx", tiny.path / "rollout.onnx")
    ]
    np.testing.assert_array_equal(*made)
    assert all(
        path.stat().st_nlink == 1 and not path.is_symlink() for path in repository.rglob("*.*")
        if path.is_file()
    )  # fmt: skip


@pytest.mark.parametrize("name", KEYS_OF_MODELS)
def test_every_model_has_a_repository_that_holds(
    name: str, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    """Whatever its state is: flags, counters, a ring of old frames, an output beside the frame."""
    for backend in get_args(Backend):
        bundle = bundle_of(name)
        if backend == "tensorrt":
            bundle = with_plans(bundle, tmp_path / "planned.bundle", ("step", "rollout"))
        write_repository(bundle, tmp_path / backend, Serving("m", backend=backend))
        assert lint_repository(tmp_path / backend) == ["m_forecast", "m_rollout", "m_step"]
    on = [parse_config(tmp_path / "tensorrt" / f"m_{graph}" / "config.pbtxt") for graph in GRAPHS]
    assert [one.backend for one in on] == ["tensorrt", "onnxruntime", "tensorrt"]


Spoil = Callable[[str], str]


def _finds(repository: Path, spoil: Spoil, match: str) -> None:
    """The lint refuses a step's configuration that was changed."""
    path = repository / "tiny_step" / "config.pbtxt"
    before = path.read_text()
    path.write_text(spoil(before))
    assert path.read_text() != before
    with pytest.raises(BundleError, match=re.escape(match)):
        lint_repository(repository)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda text: text.replace(" zero_data: true", "", 1), "has no initial_state with zero"),
        (lambda text: re.sub(r"\n    initial_state .*", "", text, count=1), "has no initial_state"),
        (lambda text: text.replace("max_batch_size", "max_batchsize"), "max_batchsize"),
        (lambda text: text.replace("dims: [ 1, 16, 16 ]", "dims: [ 1, 16, 8 ]", 1), "input frame"),
        (lambda text: text.replace("TYPE_FP32", "TYPE_FP16", 1), "TYPE_FP16"),
        (lambda text: text.replace("next.layer0.h", "next.layer0.x"), "no output next.layer0.h"),
        (lambda text: text.replace('name: "tiny_step"', 'name: "other"'), "name: 'other'"),
        (lambda text: re.sub(r"\n  max_sequence_idle.*", "", text), "max_sequence_idle"),
        (lambda text: text.replace('backend: "onnxruntime"', ""), "backend"),
    ],
)
def test_the_lint_finds_it(repository: Path, spoil: Spoil, match: str) -> None:
    _finds(repository, spoil, match)


def test_links_and_missing_weights_are_found(repository: Path) -> None:
    weights = repository / "tiny_step" / "1" / "weights.safetensors"
    weights.unlink()
    with pytest.raises(BundleError, match=r"which model\.onnx reads"):
        lint_repository(repository)
    os.link(repository / "tiny_rollout" / "1" / "weights.safetensors", weights)
    with pytest.raises(BundleError, match="is a link"):
        lint_repository(repository)
    shutil.rmtree(repository / "tiny_step" / "1")
    with pytest.raises(BundleError, match=r"no file 1/model\.onnx"):
        lint_model(repository / "tiny_step")


def test_bad_names_and_existing_folders_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--name rain"):
        write_repository(tiny, tmp_path / "a", Serving("../up"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    with pytest.raises(UsageError, match="already exists"):
        write_repository(tiny, tmp_path / "b", Serving("tiny"))
    assert not (tmp_path / "a").exists()


def test_a_sequence_rests_for_three_frames(tiny: Bundle, cli_here: Cli, tmp_path: Path) -> None:
    """Unless another time is asked for: a stream's next frame finds its sequence."""
    live = seal(
        Path(shutil.copytree(tiny.path, tmp_path / "rain")),
        tiny.manifest.model_copy(update={"cadence_s": 300.0}),
    )
    for bundle, more, idle_s in (
        (tiny, (), 60),
        (live, (), 900),
        (live, ("--idle", "2h"), 7200),
    ):
        out = tmp_path / f"{idle_s}"
        done = cli_here("package", bundle.path, "--out", out, "--json", *more)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["checked"]
        for name in report["models"]:
            config = parse_config(out / name / "config.pbtxt")
            found = config.sequence_batching.max_sequence_idle_microseconds
            assert found == (0 if name.endswith("_rollout") else idle_s * 1_000_000)


@pytest.fixture
def planned(tiny: Bundle, tmp_path: Path) -> Path:
    """A repository with the plans of step and rollout."""
    bundle = with_plans(tiny, tmp_path / "planned.bundle", ("step", "rollout"))
    write_repository(bundle, tmp_path / "plans", Serving("tiny", backend="tensorrt", sequences=9))
    return tmp_path / "plans"


def test_a_plan_is_served_with_its_own_batch(tiny: Bundle, planned: Path) -> None:
    step = parse_config(planned / "tiny_step" / "config.pbtxt")
    assert (step.platform, step.backend, step.max_batch_size) == ("tensorrt_plan", "tensorrt", 0)
    assert list(step.input[0].dims) == [1, *tiny.manifest.frame]
    states = step.sequence_batching.state
    assert [list(one.dims) for one in states] == [[1, *one.shape] for one in tiny.manifest.state]
    assert all(one.initial_state[0].zero_data for one in states)
    assert step.sequence_batching.oldest.max_candidate_sequences == 9
    assert step.parameters["stpl_tensorrt"].string_value == "10.9.0.34"
    assert (planned / "tiny_step" / "1" / "model.plan").read_bytes() == PLAN
    assert not (planned / "tiny_step" / "1" / "model.onnx").exists()
    rollout = parse_config(planned / "tiny_rollout" / "config.pbtxt")
    assert rollout.WhichOneof("scheduling_choice") is None
    assert list(rollout.output[0].dims) == [1, tiny.manifest.horizon, *tiny.manifest.frame]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda text: text.replace("max_batch_size: 0", "max_batch_size: 8"), "batch is fixed"),
        (lambda text: text.replace("dims: [ 1, 1, 16, 16 ]", "dims: [ 1, 16, 16 ]", 1), "input f"),
        (lambda text: text.replace("next.layer0.h", "next.layer0.x"), "no output next.layer0.h"),
        (lambda text: text.replace("TYPE_FP32", "TYPE_FP16", 1), "TYPE_FP16"),
        (lambda text: text.replace(" zero_data: true", "", 1), "has no initial_state with zero"),
        (lambda text: text.replace("tensorrt_plan", "tensorrt"), "'tensorrt_plan'"),
    ],
)
def test_the_lint_holds_a_file_against_the_plan(planned: Path, spoil: Spoil, match: str) -> None:
    _finds(planned, spoil, match)


def test_a_plan_that_was_changed_is_found(planned: Path) -> None:
    folder = planned / "tiny_step" / "1"
    (folder / "model.plan").write_bytes(PLAN + b"!")
    with pytest.raises(ChecksumError, match="SHA-256"):
        lint_repository(planned)
    (folder / "plan.json").write_text("{}")
    with pytest.raises(BundleError, match=r"plan\.json does not say"):
        lint_repository(planned)


def test_a_bundle_without_plans_that_fit_is_refused(
    tiny: Bundle, cli_here: Cli, tmp_path: Path
) -> None:
    of_rtx = with_plans(tiny, tmp_path / "rtx.bundle", ("step",), engine="trt-rtx")
    of_four = with_plans(tiny, tmp_path / "four.bundle", ("step",), batch=4)
    for bundle, found in (
        (tiny, "has no plans of TensorRT"),
        (of_rtx, "only trt-rtx, which Triton does not run"),
        (of_four, "has no plans of TensorRT for batch 1"),
    ):
        out = tmp_path / "models"
        done = cli_here("package", bundle.path, "--out", out, "--backend", "tensorrt")
        assert (done.returncode, found in done.stderr) == (2, True), done.stderr
        assert not out.exists()
