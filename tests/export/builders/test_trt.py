"""Plans by the real TensorRT-RTX parser and builder, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from stpl_core.bundle import GraphSpec, StateSpec, open_bundle
from stpl_core.errors import AccuracyError, EnvironmentFault, MissingExtraError, UsageError
from stpl_core.files import cache_directory
from stpl_export.builders import plans as plans_module
from stpl_export.builders import trt as trt_module
from stpl_export.builders import watched
from stpl_export.builders.norm_ranks import full_rank_norms
from stpl_export.builders.plans import PlanRequest, build_plans, plan_key
from stpl_export.builders.targets import PORTABLE, rtx_groups
from stpl_export.builders.trt import Target, choose_flavour, load_builder
from stpl_export.builders.turing import without_fp32_products
from stpl_export.export import export_run
from stpl_export.graphs.compose import forecast_onnx, rollout_onnx
from stpl_export.polygraphy.library import use_tensorrt
from stpl_export.precision.half_step import make_half_step
from stpl_export.precision.macs import fixed_batch
from stpl_train.models import MODELS, build_model
from tests.export.conftest import STEP_MODELS, StepMaker

rtx = pytest.mark.skipif(
    not trt_module.installed("trt-rtx"), reason="tensorrt-rtx is not installed (extra trt-rtx)"
)
KNOWN = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
FRAME = (1, 16, 16)


def _graphs(step: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """The three graphs of T = K = 3."""
    state = [
        StateSpec(
            name=value.name.removeprefix("state."),
            input=value.name,
            output=value.name.replace("state.", "next.", 1),
            shape=tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]),
        )
        for value in step.graph.input[1:]
    ]
    return {
        "step": step,
        "forecast": forecast_onnx(step, state, FRAME, 3),
        "rollout": rollout_onnx(step, state, FRAME, 3, 3),
    }


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(fixed_batch(full_rank_norms(model), 1).SerializeToString())


def _random_feeds(step: onnx.ModelProto) -> dict[str, Any]:
    random = np.random.default_rng(0)
    feeds = {}
    for value in step.graph.input:
        shape = [2, *(axis.dim_value for axis in value.type.tensor_type.shape.dim[1:])]
        feeds[value.name] = random.random(shape, dtype=np.float32)
    return feeds


def _results(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


@rtx
@pytest.mark.parametrize("name", STEP_MODELS)
def test_every_model_parses_without_a_warning_and_its_step_builds(
    name: str, step_of: StepMaker
) -> None:
    builder = load_builder("trt-rtx")
    step = step_of(name)
    half = make_half_step(step, "fp16").typed
    for precision, typed in (("fp32", step), ("fp16", half)):
        for graph in _graphs(typed).values():
            network, _parser = builder.parse(_bytes(graph), Path("unused"))
            assert builder.log.warnings == []
            assert builder.work(network).shares() == {precision: 1.0}
    plan = builder.build(_bytes(half), Path("unused"), Target(PORTABLE))
    turing = builder.build(_bytes(without_fp32_products(half)), Path("unused"), Target(("7.5",)))
    for built in (plan, turing):
        assert built.warnings == []
        assert built.data[:4] == b"vtrt"  # the builder's own magic: nothing in front of it
        assert built.work.shares() == {"fp16": 1.0}
    assert plan.details["inputs"]["frame"] == {"type": "fp32", "shape": [1, *FRAME]}
    assert plan.details["outputs"]["next_frame"]["type"] == "fp32"
    assert plan.details["capabilities"] == list(PORTABLE)
    assert plan.details["layers"] > 20
    assert plan.details["ran"] is False


ALWAYS = (("modernn", "fp16"), ("advect", "fp32"))
"""The others only by hand: that all parse, and all steps build, is seen above."""


@rtx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=() if (name, precision) in ALWAYS else pytest.mark.soak)
        for name in STEP_MODELS
        for precision in ("fp16", "fp32")
    ],
)
def test_every_graph_of_every_model_builds(name: str, precision: str, step_of: StepMaker) -> None:
    builder = load_builder("trt-rtx")
    step = step_of(name)
    typed = step if precision == "fp32" else make_half_step(step, "fp16").typed
    graphs = _graphs(typed)
    if precision == "fp16":
        del graphs["step"]  # built by the test above
    for graph in graphs.values():
        plan = builder.build(_bytes(graph), Path("unused"), Target(PORTABLE))
        assert plan.warnings == []
        assert plan.data[:4] == b"vtrt"
    if precision == "fp32":
        turing = _bytes(without_fp32_products(step))
        assert builder.build(turing, Path("unused"), Target(("7.5",))).warnings == []


def test_every_model_has_its_graph_here() -> None:
    assert set(MODELS) - set(STEP_MODELS) == {"predrnn-v2"}
    keys = {"hidden": 8, "layers": 2, "patch": 4}
    plain, second = (type(build_model(name, FRAME, keys)) for name in ("predrnn", "predrnn-v2"))
    # It differs in training alone: the step, and so the graph, is PredRNN's.
    assert issubclass(second, plain)
    assert second.step is plain.step
    assert second.initial_state is plain.initial_state


@rtx
def test_fp32_plans_compute_in_fp32(step_of: StepMaker) -> None:
    builder = load_builder("trt-rtx")
    plain = builder.builder.create_builder_config()
    assert plain.get_flag(builder.trt.BuilderFlag.TF32)  # the library's default
    network, (owner, _parser) = builder.parse(_bytes(step_of("convlstm")), Path("unused"))
    config = builder.config(Target(("8.6", "12.0")))(owner, network)
    assert not config.get_flag(builder.trt.BuilderFlag.TF32)
    assert [config.get_compute_capability(n).name for n in range(2)] == ["SM86", "SM120"]


@rtx
@pytest.mark.parametrize("name", ["modernn", "cms-lstm"])
def test_polygraphy_s_loaders_give_the_parser_s_own_network(name: str, step_of: StepMaker) -> None:
    builder = load_builder("trt-rtx")
    graph = _bytes(make_half_step(step_of(name), "fp16").typed)
    network, _owner = builder.parse(graph, Path("unused"))
    trt = builder.trt
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    plain = builder.builder.create_network(flag)
    parser = trt.OnnxParser(plain, builder.log)
    assert parser.parse(graph)

    def layers(of: Any) -> list[Any]:
        found = [of.get_layer(n) for n in range(of.num_layers)]
        return [
            (one.name, one.type, [one.get_output(k).dtype for k in range(one.num_outputs)])
            for one in found
        ]

    assert layers(network) == layers(plain)


@rtx
def test_a_graph_finds_its_weights_beside_it_and_leaves_nothing_there(
    run_maker: Any, tmp_path: Path
) -> None:
    bundle = export_run(run_maker("convlstm"), tmp_path / "bundle")
    files = sorted(bundle.path.iterdir())
    graph = fixed_batch(onnx.load(bundle.graph("step"), load_external_data=False), 1)
    builder = load_builder("trt-rtx")
    plan = builder.build(graph.SerializeToString(), bundle.graph("step"), Target(("8.6",)))
    assert len(plan.data) > sum(path.stat().st_size for path in files if "weights" in path.name)
    assert sorted(bundle.path.iterdir()) == files


@rtx
def test_ctrl_c_ends_a_build(step_of: StepMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    made = watched.make_monitor

    def impatient(trt: Any, progress: Any) -> Any:
        return made(trt, progress, every_s=0.0)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trt_module, "make_monitor", impatient)
    builder = load_builder("trt-rtx")
    with pytest.raises(KeyboardInterrupt):
        builder.build(
            _bytes(step_of("convlstm")), Path("unused"), Target(("8.6",)), progress=interrupt
        )


@rtx
def test_another_flavour_in_the_process_is_refused() -> None:
    load_builder("trt-rtx")
    with pytest.raises(EnvironmentFault, match="has built with TensorRT-RTX already"):
        use_tensorrt(rtx=False)
    use_tensorrt(rtx=True)


@rtx
def test_bf16_builds_too(step_of: StepMaker) -> None:
    typed = make_half_step(step_of("predrnn"), "bf16").typed
    plan = load_builder("trt-rtx").build(_bytes(typed), Path("unused"), Target(("8.6",)))
    assert plan.work.shares() == {"bf16": 1.0}


@pytest.mark.parametrize("name", ["sa-convlstm", "cms-lstm", "e3d-lstm"])
def test_turing_s_sums_are_the_products(name: str, step_of: StepMaker) -> None:
    step = step_of(name)
    summed = without_fp32_products(step)
    assert "MatMul" not in {node.op_type for node in summed.graph.node}
    feeds = _random_feeds(step)
    for one, other in zip(_results(step, feeds), _results(summed, feeds), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    half = make_half_step(step, "fp16").typed  # half products stay
    kinds = [node.op_type for node in without_fp32_products(half).graph.node]
    assert kinds.count("MatMul") == kinds.count("Softmax") > 0


@pytest.mark.parametrize("name", ["modernn", "cms-lstm", "e3d-lstm"])
def test_norms_weights_of_full_rank_change_no_bit(name: str, step_of: StepMaker) -> None:
    step = step_of(name)
    ranked = full_rank_norms(step)
    before = {tensor.name: tensor for tensor in step.graph.initializer}
    norms = [node for node in ranked.graph.node if node.op_type == "LayerNormalization"]
    weights = {name for node in norms for name in node.input[1:]}
    for tensor in ranked.graph.initializer:
        dims = list(before[tensor.name].dims)
        assert list(tensor.dims) == ([1, *dims] if tensor.name in weights else dims)
        assert tensor.raw_data == before[tensor.name].raw_data
    feeds = _random_feeds(step)
    one, other = (_results(model, feeds) for model in (step, ranked))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@rtx
def test_norms_weights_of_full_rank_are_not_reshaped_by_the_parser(step_of: StepMaker) -> None:
    builder = load_builder("trt-rtx")
    forecast = _graphs(step_of("modernn"))["forecast"]
    norms = [node for node in forecast.graph.node if node.op_type == "LayerNormalization"]
    shuffles = []
    for model in (forecast, full_rank_norms(forecast)):
        network, _parser = builder.parse(fixed_batch(model, 1).SerializeToString(), Path("unused"))
        kinds = builder.details(network, Target(PORTABLE))["layer_kinds"]
        assert kinds["normalization"] == len(norms) > 50
        shuffles.append(kinds["shuffle"])
    assert shuffles[0] - shuffles[1] == 2 * len(norms)


def test_a_weight_that_others_read_too_keeps_its_rank(step_of: StepMaker) -> None:
    step = onnx.ModelProto()
    step.CopyFrom(step_of("modernn"))
    norm = next(node for node in step.graph.node if node.op_type == "LayerNormalization")
    step.graph.node.append(onnx.helper.make_node("Identity", [norm.input[1]], ["copy"]))
    dims = {t.name: list(t.dims) for t in full_rank_norms(step).graph.initializer}
    assert dims[norm.input[1]] == dims[norm.input[2]][1:]


@rtx
def test_export_builds_plans_caches_them_and_keeps_stdout_clean(
    run_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines: list[str] = []
    request = PlanRequest("trt", gpus=("12.0", "7.5", "8.6"), batches=(1, 2), graphs=("step",))
    bundle = export_run(
        run_maker("convlstm"),
        tmp_path / "bundle",
        precision="fp16",
        plans=request,
        progress=lines.append,
    )
    assert any(line.startswith("TensorRT") and line.endswith(", fp16") for line in lines)
    specs = open_bundle(bundle.path).manifest.engines
    files = [f"step-b{batch}-{gpus}.engine" for batch in (1, 2) for gpus in ("8.6-12.0", "7.5")]
    assert [spec.file for spec in specs] == files
    for spec in specs:
        assert bundle.file(spec.file).read_bytes()[:4] == b"vtrt"
        assert spec.engine == spec.details["flavour"] == "trt-rtx"
        assert spec.details["inputs"]["frame"]["shape"] == [spec.batch, 1, 8, 8]
        assert spec.details["convolution_share"] == {"fp16": 1.0}
    assert capfd.readouterr().out == ""
    # The same again comes from the cache, bit for bit; a damaged entry is built anew.
    first = bundle.file(files[0]).read_bytes()
    assert sum(line == "taken from the cache" for line in lines) == 0
    entry = next(
        path for path in cache_directory("engines").glob("*.engine") if path.read_bytes() == first
    )
    lines.clear()
    build_plans(bundle, request, progress=lines.append)
    assert sum(line == "taken from the cache" for line in lines) == 4
    assert bundle.file(files[0]).read_bytes() == first
    entry.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    lines.clear()
    build_plans(bundle, request, progress=lines.append)
    assert sum(line == "taken from the cache" for line in lines) == 3


@rtx
def test_a_plan_that_is_not_what_was_promised_fails(
    run_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = export_run(run_maker("convlstm"), tmp_path / "bundle")
    liar = bundle.manifest.model_copy(update={"precision": "fp16"})  # with fp32 graphs
    wrong = type(bundle)(bundle.path, liar)
    with pytest.raises(AccuracyError, match=r"only 0.0% of the convolution work is fp16"):
        build_plans(wrong, PlanRequest("trt-rtx", graphs=("step",)))
    assert not list(bundle.path.glob("*.engine"))


@rtx
def test_the_builder_s_refusal_is_told_in_its_own_words(step_of: StepMaker) -> None:
    builder = load_builder("trt-rtx")
    with pytest.raises(EnvironmentFault, match=r"the parser of TensorRT-RTX .* refuses the graph"):
        builder.build(b"no graph", Path("unused"), Target(("8.6",)))
    with pytest.raises(EnvironmentFault, match="FP32 GEMM is not supported"):
        builder.build(_bytes(step_of("sa-convlstm")), Path("unused"), Target(("7.5",)))


def test_the_default_leaves_slow_builds_out(
    run_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = export_run(run_maker("convlstm"), tmp_path / "bundle")
    assert isinstance(bundle.manifest.graphs["forecast"], GraphSpec)
    assert plans_module.default_graphs(bundle) == ("step", "forecast")
    monkeypatch.setattr(plans_module, "QUICK_NODES", 10)
    assert plans_module.default_graphs(bundle) == ("step",)


@pytest.mark.parametrize(
    ("wanted", "precision", "match"),
    [
        (("9.0",), "fp16", r"builds no plan for compute capability 9.0 \(H100, H200\)"),
        (("8.7",), "fp16", r"builds no plan for compute capability 8.7 \(Jetson Orin\)"),
        (("4.2",), "fp16", r"builds no plan for compute capability 4.2;"),
        (("7.5", "8.6"), "bf16", r"7.5 \(Turing: RTX 20, T4\) has no bf16"),
        (("86",), "fp16", "--gpu 86 is not a compute capability"),
        (("sm86",), "fp16", "--gpu sm86 is not a compute capability"),
        (("8.6+",), "fp16", r"--gpu 8.6\+ is not a compute capability"),
    ],
)
def test_gpus_that_cannot_be_are_refused(
    wanted: tuple[str, ...], precision: str, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        rtx_groups(wanted, KNOWN, precision)


def test_gpus_that_can_share_an_engine_do() -> None:
    assert rtx_groups((), KNOWN, "fp16") == [PORTABLE]
    assert rtx_groups(("12.0", "7.5", "8.6", "8.6"), KNOWN, "fp16") == [("8.6", "12.0"), ("7.5",)]
    assert rtx_groups(("7.5",), KNOWN, "fp32") == [("7.5",)]


@rtx
def test_requests_that_cannot_be_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_module, "installed", lambda flavour: flavour == "trt-rtx")
    assert choose_flavour("trt") == choose_flavour("trt-rtx") == "trt-rtx"
    PlanRequest("trt").check("fp16")
    for request, match in (
        (PlanRequest("trt", batches=(1, 0)), "--batch 1,0"),
        (PlanRequest("trt", compatible=("all",)), "unknown --compatible all"),
        (PlanRequest("trt", compatible=("version",)), "--compatible is for TensorRT"),
        (PlanRequest("trt-rtx", gpus=("nine",)), "--gpu nine"),
        (PlanRequest("trt", gpus=("8.6", "9.0")), "builds no plan for compute capability 9.0"),
    ):
        with pytest.raises(UsageError, match=match):
            request.check("fp16")
    monkeypatch.setattr(trt_module, "installed", lambda flavour: flavour == "trt")
    assert choose_flavour("trt") == "trt"
    PlanRequest("trt", compatible=("version", "ampere+")).check("fp16")
    with pytest.raises(MissingExtraError, match=r"pip install 'stpl-deploy\[trt-rtx\]'"):
        choose_flavour("trt-rtx")
    monkeypatch.setattr(trt_module, "installed", lambda flavour: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'stpl-deploy\[trt\]'"):
        PlanRequest("trt").check("fp16")


def test_the_cache_key_holds_everything_that_decides() -> None:
    keys = {
        plan_key("trt-rtx", "1.7", Target(("8.6",)), b"graph", ["a"]),
        plan_key("trt", "1.7", Target(("8.6",)), b"graph", ["a"]),
        plan_key("trt-rtx", "1.8", Target(("8.6",)), b"graph", ["a"]),
        plan_key("trt-rtx", "1.7", Target(("8.6", "8.9")), b"graph", ["a"]),
        plan_key("trt-rtx", "1.7", Target(("8.6",), ("version",)), b"graph", ["a"]),
        plan_key("trt-rtx", "1.7", Target(("8.6",)), b"graph2", ["a"]),
        plan_key("trt-rtx", "1.7", Target(("8.6",)), b"graph", ["b"]),
    }
    assert len(keys) == 7
