"""fp16 and bf16 graphs: what is half, what is not, and how far the closed loop moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stpl_core.bundle import WEIGHTS
from stpl_core.errors import AccuracyError, BundleError, EnvironmentFault, UsageError
from stpl_export.export import export_run
from stpl_export.precision.emulate import all_float_nodes, emulated, round_to
from stpl_export.precision.half_step import make_half_step
from stpl_export.precision.macs import graph_work
from stpl_export.precision.policy import (
    MOVES,
    WORK,
    Half,
    float_values,
    make_policy,
    typed_step,
    untyped_step,
)
from stpl_runtime.engine import open_session
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import first_breach, verify_bundle
from tests.export.conftest import STEP_MODELS, TRAINED, StepMaker

Feeds = dict[str, Any]


def _run(model: ModelProto, feeds: Feeds) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _first_feeds(model: ModelProto, frame: Callable[[tuple[int, ...]], Any]) -> Feeds:
    """A frame, and the zero state of batch 1."""
    feeds = {}
    for value in model.graph.input:
        shape = (1, *(axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]))
        feeds[value.name] = frame(shape) if value.name == "frame" else np.zeros(shape, np.float32)
    return feeds


def _loop(model: ModelProto, frames: Any, horizon: int) -> Any:
    """Frames `(T, 1, C, H, W)` in, `(K, 1, C, H, W)` out, and the state fed back by name."""
    state = _first_feeds(model, lambda shape: np.zeros(shape, np.float32))
    guesses = []
    session_feeds = state
    for t in range(len(frames) + horizon - 1):
        frame = frames[t] if t < len(frames) else guesses[-1]
        out = _run(model, session_feeds | {"frame": frame})
        guesses.append(out.pop("next_frame"))
        after = {name.replace("next.", "state.", 1): v for name, v in out.items()}
        session_feeds = {name: after[name] for name in state if name != "frame"}
    return np.stack(guesses[len(frames) - 1 :])


def _psnr(one: Any, other: Any) -> float:
    return -10 * float(np.log10(np.mean(np.square(np.float64(one) - other)) + 1e-30))


@pytest.mark.parametrize("name", STEP_MODELS)
def test_the_policy_holds_for_every_model(name: str, step_of: StepMaker) -> None:
    step = step_of(name)
    half = make_half_step(step, "fp16")
    by_name = {node.name: node for node in step.graph.node}
    kinds = {by_name[node].op_type for node in half.policy.half}
    assert kinds <= WORK | MOVES
    assert {n.name for n in step.graph.node if n.op_type == "Conv"} <= half.policy.half
    assert half.work.share("fp16") == 1.0
    # One product in two makes logits, and only that one stays in fp32.
    products = [n for n in step.graph.node if n.op_type == "MatMul"]
    softmaxes = [n for n in step.graph.node if n.op_type == "Softmax"]
    assert len(half.policy.kept) == len(softmaxes) == len(products) - len(softmaxes)
    # Norms read and give fp32, and so do all inputs and outputs.
    typed = half.typed
    onnx.checker.check_model(typed, full_check=True)
    floats = float_values(typed)
    for node in typed.graph.node:
        if node.op_type in ("LayerNormalization", "InstanceNormalization", "Softmax"):
            assert floats.issuperset([*node.input, node.output[0]])
    for value in (*typed.graph.input, *typed.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    # No weight is stored in both types, and no cast is made twice.
    names = [tensor.name.removesuffix("/fp16") for tensor in typed.graph.initializer]
    assert len(set(names)) == len(names)
    casts = [node.input[0] for node in typed.graph.node if node.op_type == "Cast"]
    assert len(set(casts)) == len(casts)


@pytest.mark.parametrize("name", STEP_MODELS)
def test_the_first_step_is_safe_at_every_input_scale(name: str, step_of: StepMaker) -> None:
    """h = 0 makes variance 0 in every norm of h; epsilon is subnormal in fp16."""
    step = step_of(name)
    policy = make_policy(step, "fp16")
    typed, rounded = typed_step(step, policy), emulated(step, policy.half, "fp16")
    texture = np.random.default_rng(0)
    for scale in (0.0, 1e-3, 1.0, 1e3):

        def frame(shape: tuple[int, ...], scale: float = scale) -> Any:
            return np.float32(scale) * texture.random(shape, dtype=np.float32)

        feeds = _first_feeds(step, frame)
        exact = _run(step, feeds)
        for model in (typed, rounded):
            for key, value in _run(model, feeds).items():
                assert np.isfinite(value).all(), (key, scale)
                bound = 1e-2 * max(1.0, scale)
                assert np.abs(value - exact[key]).max() <= bound, (key, scale)


@pytest.mark.parametrize("name", STEP_MODELS)
def test_the_closed_loop_stays_finite_and_close(name: str, step_of: StepMaker) -> None:
    step = step_of(name)
    half = make_policy(step, "fp16").half
    shape = (3, 1, *(axis.dim_value for axis in step.graph.input[0].type.tensor_type.shape.dim[1:]))
    for scale in (1e-3, 1.0, 1e3):
        frames = np.float32(scale) * np.random.default_rng(1).random(shape, dtype=np.float32)
        exact = _loop(step, frames, 3)
        unit = max(1.0, scale)
        assert _psnr(_loop(emulated(step, half, "fp16"), frames, 3) / unit, exact / unit) > 50
        assert _psnr(_loop(emulated(step, half, "bf16"), frames, 3) / unit, exact / unit) > 35


@pytest.mark.skipif(not TRAINED.is_dir(), reason="no trained run in tests/data")
@pytest.mark.parametrize(("precision", "floor"), [("fp16", 60.0), ("bf16", 45.0)])
def test_trained_weights_keep_the_promised_psnr(
    precision: str, floor: float, tmp_path: Path
) -> None:
    bundle = export_run(TRAINED, tmp_path / "bundle", precision=precision, sequences=4)
    report = bundle.manifest.accuracy
    assert report is not None
    assert report.passed
    emulations = [check for check in report.checks if "emulated" in check.provider]
    assert len(emulations) == 2
    for check in emulations:
        last = check.leads[-1]
        assert last.min_psnr_db == floor
        assert last.psnr_db is not None
        assert last.psnr_db >= floor


def test_emulation_rounds_operands_and_results() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    shapes = {"x": ["batch", 3, 8, 8], "y": ["batch", 4, 8, 8]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1, 1, 1, 1])],
        "one",
        [values["x"]],
        [values["y"]],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = random.standard_normal((1, 3, 8, 8)).astype(np.float32)
    kinds: dict[Half, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
    for precision, kind in kinds.items():
        rounded = _run(emulated(model, ["conv"], precision), {"x": x})["y"]
        assert np.array_equal(rounded, round_to(rounded, kind))
        weights = {"w": numpy_helper.from_array(round_to(weight, kind), "w")}
        del model.graph.initializer[:]
        model.graph.initializer.append(weights["w"])
        expected = round_to(_run(model, {"x": round_to(x, kind)})["y"], kind)
        assert np.array_equal(rounded, expected)
        assert not np.array_equal(rounded, _run(model, {"x": x})["y"])
        del model.graph.initializer[:]
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    untouched = _run(emulated(model, [], "fp16"), {"x": x})["y"]
    assert np.array_equal(untouched, _run(model, {"x": x})["y"])


def test_half_of_everything_is_what_the_policy_avoids(step_of: StepMaker) -> None:
    """E3D-LSTM masks empty slots with a number that fp16 cannot hold: naive rounding gives NaN."""
    step = step_of("e3d-lstm")
    feeds = _first_feeds(step, lambda shape: np.random.default_rng(0).random(shape, np.float32))
    naive = _run(emulated(step, all_float_nodes(step), "fp16"), feeds)
    assert not np.isfinite(naive["next_frame"]).all()


def test_weights_beyond_fp16_are_refused_and_bf16_takes_them(step_of: StepMaker) -> None:
    step = ModelProto()
    step.CopyFrom(step_of("convlstm"))
    tensor = next(t for t in step.graph.initializer if t.name.endswith("conv.weight"))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = 7e4
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(AccuracyError, match=r"weights up to 7e\+04; expected at most 65504"):
        make_half_step(step, "fp16")
    assert make_half_step(step, "bf16").work.share("bf16") == 1.0


def test_the_promise_about_work_is_kept_or_the_export_fails(step_of: StepMaker) -> None:
    step = step_of("convlstm")
    convolutions = [node.name for node in step.graph.node if node.op_type == "Conv"]
    kept = make_half_step(step, "fp16", convolutions[-1:])  # the small 1x1 decoder
    assert convolutions[-1] in kept.policy.kept
    with pytest.raises(AccuracyError, match="of the convolution work is fp16; expected at least"):
        make_half_step(step, "fp16", convolutions)
    with pytest.raises(UsageError, match="no node nowhere in the step graph"):
        make_half_step(step, "fp16", ["nowhere"])


def test_work_is_counted_as_by_hand(step_of: StepMaker) -> None:
    step = step_of("sa-convlstm")
    work = graph_work(step)
    assert set(work.convolutions) == {"fp32"}
    # Two layers, two attentions each: 16 tokens of 8 channels, logits and values.
    assert work.products == {"fp32": 2 * 2 * 2 * 16 * 16 * 8}
    assert graph_work(step, batch=3).convolutions["fp32"] == 3 * work.convolutions["fp32"]
    half = make_half_step(step, "fp16").work
    assert half.products == {"fp32": 8192, "fp16": 8192}


def test_an_fp16_bundle_runs_here_and_remembers_its_fp32_graph(
    run_maker: Any, tmp_path: Path
) -> None:
    run = run_maker("convlstm")
    bundle = export_run(run, tmp_path / "bundle", precision="fp16")
    manifest = bundle.manifest
    assert manifest.precision == "fp16"
    assert manifest.convolution_share == {"fp16": 1.0}
    assert {WEIGHTS, "weights-fp16.safetensors"} <= set(manifest.files)
    report = verify_bundle(bundle)
    assert first_breach(report) is None
    assert all(lead.min_psnr_db == 60.0 for check in report.checks for lead in check.leads)
    typed = onnx.load(bundle.graph("step"), load_external_data=False)
    assert all(t.external_data or len(t.raw_data) <= 256 for t in typed.graph.initializer)
    weights = safetensors.numpy.load_file(bundle.file(WEIGHTS))
    step, policy = untyped_step(typed, weights)
    plain = export_run(run, tmp_path / "plain")
    expected = onnx.load(plain.graph("step"))
    assert [str(node) for node in step.graph.node] == [str(node) for node in expected.graph.node]
    assert typed_step(step, policy).graph.node == typed.graph.node
    with pytest.raises(BundleError, match="no operation in half precision"):
        untyped_step(expected, weights)


def test_a_wrong_fp16_bundle_is_found(run_maker: Any, tmp_path: Path) -> None:
    from stpl_core.bundle import seal

    bundle = export_run(run_maker("convlstm"), tmp_path / "bundle", precision="fp16")
    path = bundle.file("weights-fp16.safetensors")
    data = bytearray(path.read_bytes())
    half = np.frombuffer(data[-400:], np.float16) * np.float16(1.1)
    data[-400:] = half.tobytes()
    path.write_bytes(data)
    report = verify_bundle(seal(bundle.path, bundle.manifest))
    breach = first_breach(report)
    assert breach is not None
    assert "lead time" in breach


def test_bf16_says_that_the_cpu_cannot_run_it(run_maker: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    bundle = export_run(
        run_maker("convlstm"), tmp_path / "bundle", precision="bf16", progress=lines.append
    )
    assert bundle.manifest.precision == "bf16"
    assert any("checked by emulation alone" in line for line in lines)
    report = bundle.manifest.accuracy
    assert report is not None
    assert {check.provider for check in report.checks} == {"CPU, bf16 emulated"}
    with pytest.raises(EnvironmentFault, match="no bf16 convolution"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["modernn", pytest.param("advect", marks=pytest.mark.soak)])
def test_openvino_rounds_what_the_graph_says_and_no_more(
    name: str, run_of: Callable[[str], Path], step_of: StepMaker, tmp_path: Path
) -> None:
    """Its kernels beside ONNX Runtime's in float32 with every rounding written out."""
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    bundle = export_run(run_of(name), tmp_path / "bundle", precision="bf16", sequences=1)
    frames = load_reference(bundle).context[0][:, None]  # (T, 1, C, H, W)
    session = open_session(bundle, ("step",), engine="openvino", threads=1)
    state = session.zero_state(1)
    for frame in frames:
        made, state = session.step(frame, state)
    session.close()
    step = step_of(name)
    exact = _loop(step, frames, 1)[0]
    rounded = _loop(emulated(step, make_policy(step, "bf16").half, "bf16"), frames, 1)[0]
    moved = np.abs(rounded - exact).mean()
    off = np.abs(made - rounded).mean() / moved
    # Without bf16 units, the weights alone are rounded.
    assert off < 0.05 if session.provider.endswith("bf16") else np.abs(made - exact).mean() < moved
