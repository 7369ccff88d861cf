"""int8: what is quantised and by which scales, what it costs, and when it is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from stpl_core.bundle import Bundle, Speed, open_bundle, seal
from stpl_core.errors import AccuracyError, SpeedError, UsageError
from stpl_deploy.cli import run as stpl_deploy
from stpl_export import export as export_module
from stpl_export.bench import bench_bundle
from stpl_export.builders import trt as trt_module
from stpl_export.builders.targets import PORTABLE
from stpl_export.builders.trt import Target, load_builder
from stpl_export.export import export_run
from stpl_export.graphs.onnx_step import step_onnx
from stpl_export.precision import int8_speed
from stpl_export.precision.calibrate import (
    Calibration,
    closed_loop_ranges,
    open_optimised,
    open_plain,
    run_loop,
    split_sequences,
)
from stpl_export.precision.int8_step import Int8Step, fused_work, make_int8_step
from stpl_export.precision.macs import fixed_batch, graph_work
from stpl_export.precision.qdq import Form, activation_scale, quantise_weight, values_to_calibrate
from stpl_runtime.engines.auto.candidates import installed_engines
from stpl_runtime.proof.verify import first_breach, verify_bundle
from stpl_train.models import ForecasterModule
from stpl_train.run import Run, open_run
from tests.export.conftest import STEP_MODELS, TRAINED, StepMaker

FORMS: tuple[Form, ...] = ("cpu", "gpu")
QUANTISING = ("QuantizeLinear", "DequantizeLinear")
rtx = pytest.mark.skipif(
    not trt_module.installed("trt-rtx"), reason="tensorrt-rtx is not installed (extra trt-rtx)"
)


_steps: dict[str, bytes] = {}


def _step_once(model: ForecasterModule) -> ModelProto:
    """`step_onnx`, once for the same weights: it takes seconds."""
    tensors = model.state_dict().values()
    key = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
    if key not in _steps:
        _steps[key] = step_onnx(model).SerializeToString()
    return onnx.load_from_string(_steps[key])


def _quicken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(int8_speed, "_SECONDS", 0.0)  # the least number of rounds
    patch.setattr(export_module, "step_onnx", _step_once)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    _quicken(monkeypatch)


@pytest.fixture(scope="module")
def trained_int8(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained run of the repository in int8, faster or not."""
    out = tmp_path_factory.mktemp("int8") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        _quicken(patch)
        return export_run(TRAINED, out, precision="int8", keep_slower=True)


def _calibration(step: ModelProto, sequences: int = 2) -> Calibration:
    frame = [axis.dim_value for axis in step.graph.input[0].type.tensor_type.shape.dim[1:]]
    random = np.random.default_rng(0)
    frames = random.random((sequences, 6, *frame), dtype=np.float32)
    return Calibration(frames, 3, "noise")


def _loop(model: ModelProto, calibration: Calibration, form: Form = "cpu") -> NDArray[np.float32]:
    # A CPU without VNNI saturates where it fuses the form for GPUs, which have 32-bit sums.
    session = open_plain(model) if form == "gpu" else open_optimised(model)
    loop = run_loop(session, model, calibration.sequences, calibration.context)
    return np.stack([guess for guess, _, _ in loop], axis=1)


# Accuracy


def test_a_trained_model_keeps_its_accuracy(trained_int8: Bundle) -> None:
    manifest = trained_int8.manifest
    report = manifest.accuracy
    assert report is not None
    assert report.passed
    assert report.sequences == 8
    whole = [check for check in report.checks if check.batch == 8]
    assert {check.path for check in whole} == {"step", "forecast", "rollout"}
    for check in whole:
        assert check.int8 is not None
        assert abs(check.int8.psnr_change_db) <= 0.1 == check.int8.budget_db
        first, last = check.leads[0].psnr_db, check.leads[-1].psnr_db
        assert first is not None
        assert first > 50
        assert last is not None
        assert last > 35
    again = verify_bundle(open_bundle(trained_int8.path))
    assert first_breach(again) is None
    early = [check.int8.early_margin_db for check in again.checks if check.int8 is not None]
    assert [margin is not None for margin in early] == [True, False, False] * 2  # step alone


def test_the_manifest_says_how_and_how_fast(
    trained_int8: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = trained_int8.manifest
    assert manifest.precision == "int8"
    assert manifest.convolution_share["int8"] > 0.99
    facts = manifest.int8
    assert facts is not None
    assert facts.calibration.startswith("8 sequences of moving-mnist")
    assert facts.calibration.endswith("none of which judges it")
    assert facts.speed is not None
    assert facts.speed.rounds == 9
    assert facts.speed.p05 <= facts.speed.p95
    assert facts.speed.times == pytest.approx(facts.speed.fp32_ms / facts.speed.int8_ms, rel=0.02)
    assert "weights-int8.safetensors" in manifest.files
    assert stpl_deploy(["inspect", str(trained_int8.path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "99.8% of the convolution work in int8" in out
    assert "PSNR against truth" in out
    assert f"{facts.speed.times:.2f} times fp32 where it was exported" in out


def test_weights_lie_once_for_all_graphs(trained_int8: Bundle) -> None:
    """Each graph's int8 weights are external data, and nothing large lies inside."""
    stored = safetensors.numpy.load_file(trained_int8.file("weights-int8.safetensors"))
    assert {values.dtype.name for values in stored.values()} == {"int8", "int32", "float32"}
    for name in ("step", "forecast", "rollout"):
        graph = onnx.load(trained_int8.file(f"{name}.onnx"), load_external_data=False).graph
        integers = [t for t in graph.initializer if t.name.endswith("/integers")]
        assert len(integers) > 10
        assert all(tensor.external_data for tensor in integers)
        assert all(t.external_data or len(t.raw_data) <= 256 for t in graph.initializer)
        read = [node for node in graph.node if node.name.endswith(".weight")]
        assert len({node.name for node in read}) == len(read)  # dequantised once, not each step


def test_bench_takes_it(trained_int8: Bundle) -> None:
    rows = {row.name for row in bench_bundle(trained_int8, rounds=3, threads=1).rows}
    assert {"pytorch-eager", "onnx-unrolled", "onnx-prewarmed"} <= rows


# Scales


class _Seen:
    """Extremes of what each convolution of a PyTorch model reads, over all steps."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.ranges: dict[str, tuple[float, float]] = {}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_pre_hook(lambda _, args, n=name: self._see(n, args[0]))

    def _see(self, name: str, values: torch.Tensor) -> None:
        low, high = self.ranges.get(name, (np.inf, -np.inf))
        self.ranges[name] = (min(low, float(values.min())), max(high, float(values.max())))


def test_ranges_are_those_of_pytorch_s_own_closed_loop() -> None:
    trained = open_run(TRAINED)
    frames = trained.validation()[:3]
    model = trained.model()
    step = _step_once(model)
    convolutions = {node.name: node for node in step.graph.node if node.op_type == "Conv"}
    names = values_to_calibrate(convolutions, "gpu")
    ranges = closed_loop_ranges(step, names, Calibration(frames, 10, ""))
    seen = _pytorch_loop(trained, frames)
    read = {node.input[1]: node.input[0] for node in convolutions.values()}
    compared = 0
    for module, (low, high) in seen.ranges.items():
        found = ranges[read[f"{module}.weight"]]
        assert found.low == pytest.approx(low, abs=1e-4)
        assert found.high == pytest.approx(high, abs=1e-4)
        compared += 1
    assert compared == len(set(read)) > 10
    # Guesses that are fed back leave the range of observed frames: the closed loop matters.
    observed = _pytorch_loop(trained, frames, horizon=1)
    assert observed.ranges != seen.ranges


def _pytorch_loop(trained: Run, frames: NDArray[np.float32], horizon: int = 10) -> _Seen:
    model = trained.model()
    seen = _Seen(model)
    with torch.no_grad():
        state = model.initial_state(len(frames))
        guess = torch.empty(0)
        for t in range(10 + horizon - 1):
            frame = torch.from_numpy(frames[:, t].copy()) if t < 10 else guess
            guess, state = model.step(frame, state)
    return seen


@pytest.mark.parametrize("levels", [64, 127])
def test_weights_have_the_scales_of_an_independent_quantiser(levels: int) -> None:
    random = np.random.default_rng(1)
    weight = random.standard_normal((6, 4, 3, 3)).astype(np.float32)
    weight[2] *= 1e-3
    weight[4] = 0.0
    made = quantise_weight(weight, levels=levels)
    for channel, integers, scale in zip(weight, made.integers, made.scale, strict=True):
        span = max(abs(float(value)) for value in channel.flat)
        if span > 0:
            assert scale == pytest.approx(span / levels, rel=1e-6)
            assert max(abs(int(n)) for n in integers.flat) == levels
        for value, n in zip(channel.flat, integers.flat, strict=True):
            assert abs(int(n) * float(scale) - float(value)) <= 0.5001 * float(scale)
    assert made.integers.dtype == np.int8


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-0.3, 2.0), (0.5, 0.9), (-3.0, -1.0), (0.0, 0.0)]
)
def test_activations_keep_zero_exact_and_their_range(low: float, high: float) -> None:
    from stpl_export.precision.calibrate import Range

    for form, least, most in (("cpu", 0, 255), ("gpu", -127, 127)):
        scale, zero = activation_scale(Range(low, high), "cpu" if form == "cpu" else "gpu")
        assert scale > 0
        assert least <= int(zero) <= most
        for value in (low, high, 0.0):
            n = np.clip(np.rint(value / float(scale)) + int(zero), least, most)
            assert abs((n - int(zero)) * float(scale) - value) <= float(scale)
        assert form == "cpu" or int(zero) == 0


def test_calibration_and_judgement_share_no_sequence() -> None:
    for count, most in ((64, 16), (16, 16), (5, 16), (3, 1), (2, 16), (400, 16)):
        judge, calibrate = (set(range(count)[part]) for part in split_sequences(count, most))
        assert judge
        assert calibrate
        assert not judge & calibrate
        assert len(judge) <= most
        assert len(calibrate) <= 16
    assert split_sequences(1, 16) == (slice(0, 1), slice(0, 1))
    alone = Calibration(np.zeros((1, 6, 1, 8, 8), np.float32), 3, "radar", judge_too=True)
    assert alone.about() == "1 sequence of radar, those that judge it"


# What is quantised


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STEP_MODELS)
def test_convolutions_alone_are_quantised_in_every_model(
    name: str, form: Form, step_of: StepMaker
) -> None:
    step = step_of(name)
    calibration = _calibration(step)
    int8 = make_int8_step(step, calibration, form)
    assert int8.work.share("int8") > 0.95
    _placed(step, int8)
    exact, ours = _loop(step, calibration), _loop(int8.typed, calibration, form)
    assert np.isfinite(ours).all()
    # Weights are random: attention makes the most of every rounding.
    assert -10 * np.log10(np.mean(np.square(ours - exact))) > (18 if name == "cms-lstm" else 25)


def _placed(step: ModelProto, int8: Int8Step) -> None:
    typed = int8.typed
    onnx.checker.check_model(typed, full_check=True)
    # All but the convolutions are the very nodes of the fp32 graph, whatever they read.
    kept = {node.name for node in step.graph.node if node.op_type != "Conv"} | set(int8.kept)
    before = [node for node in step.graph.node if node.name in kept]
    after = [node for node in typed.graph.node if node.name in kept]
    assert before == after
    maker = {output: node for node in typed.graph.node for output in node.output}
    readers: dict[str, set[str]] = {}
    for node in typed.graph.node:
        for value in node.input:
            readers.setdefault(value, set()).add(node.op_type)
    step_values = {value for node in step.graph.node for value in node.output}
    quantised = [n for n in typed.graph.node if n.op_type == "Conv" and n.name not in int8.kept]
    assert quantised
    for node in quantised:
        operands = node.input if int8.form == "cpu" else node.input[:2]
        assert all(maker[value].op_type == "DequantizeLinear" for value in operands)
        if int8.form == "cpu":
            assert readers[node.output[0]] == {"QuantizeLinear"}
        else:
            assert node.output[0] in step_values
        integers = _constant(typed, maker[node.input[1]].input[0])
        scales = _constant(typed, maker[node.input[1]].input[1])
        assert integers.dtype == np.int8
        assert scales.shape == (len(integers),)  # one for each output channel
        assert _constant(typed, maker[node.input[0]].input[1]).shape == ()  # one for the tensor
    if int8.form == "gpu":
        zeros = [t for t in typed.graph.initializer if t.name.endswith("/zero")]
        assert all(not numpy_helper.to_array(t).any() for t in zeros)
        assert {t.data_type for t in zeros} == {TensorProto.INT8}
    for value in (*typed.graph.input, *typed.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    for node in typed.graph.node:  # a value is read in 8 bits by convolutions and nothing else
        if node.op_type == "DequantizeLinear" and node.output[0].endswith("/dequantised"):
            assert readers[node.output[0]] == {"Conv"}


def _constant(model: ModelProto, name: str) -> NDArray[Any]:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


def test_work_counts_as_int8_only_where_the_runtime_fuses_it(step_of: StepMaker) -> None:
    """The graph for TensorRT leaves sums unquantised: ONNX Runtime computes them in fp32."""
    step = step_of("convlstm")
    gpu = make_int8_step(step, _calibration(step), "gpu")
    assert graph_work(gpu.typed).share("int8") > 0.95
    assert fused_work(gpu.typed).share("int8") == 0.0


def test_the_promise_about_work_is_kept_or_the_export_fails(step_of: StepMaker) -> None:
    step = step_of("convlstm")
    convolutions = [node.name for node in step.graph.node if node.op_type == "Conv"]
    with pytest.raises(AccuracyError, match="of the convolution work is int8; expected at least"):
        make_int8_step(step, _calibration(step), "cpu", keep=convolutions[:2])
    with pytest.raises(UsageError, match="no convolution nowhere in the step graph"):
        make_int8_step(step, _calibration(step), "cpu", keep=["nowhere"])


# Refused


def test_int8_that_gains_nothing_is_refused_with_what_was_measured(
    run_maker: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = run_maker("convlstm")
    out = tmp_path / "out" / "bundle"
    # A machine on which no gain is enough: the figures are measured all the same.
    monkeypatch.setattr(int8_speed, "LEAST_GAIN", 1e6)
    words = ["export", str(made), "--out", str(out), "--precision", "int8"]
    assert stpl_deploy(words) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    found = re.match(
        r"error: int8 is ([\d.]+) times as fast as fp32 \(single rounds ([\d.]+) to ([\d.]+); "
        r"forecast ([\d.]+) ms against ([\d.]+) ms, \d+ threads?\), and \d+ dB from PyTorch at the "
        r"last lead time, PSNR against truth [+-][\d.]+ dB; expected at least 1e\+06 times",
        error,
    )
    assert found, error
    assert "try: --precision fp32; or --keep-slower" in error
    assert not out.exists()
    assert list(out.parent.iterdir()) == []
    assert stpl_deploy([*words, "--keep-slower", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["precision"] == "int8"
    assert document["int8"]["speed"]["times"] > 0
    assert open_bundle(out).manifest.int8 is not None


def test_five_percent_decide(trained_int8: Bundle) -> None:
    report = trained_int8.manifest.accuracy
    facts = trained_int8.manifest.int8
    assert report is not None
    assert facts is not None
    assert facts.speed is not None

    def speed(times: float) -> Speed:
        assert facts.speed is not None
        return facts.speed.model_copy(update={"times": times})

    int8_speed.check_speed(speed(1.05), report)
    with pytest.raises(SpeedError, match=r"int8 is 1\.04 times as fast") as caught:
        int8_speed.check_speed(speed(1.04), report)
    assert caught.value.exit_code == 3


def test_accuracy_is_never_waived(
    run_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges that cut most of the values off: --keep-slower does not help."""
    from stpl_export.precision import int8_step

    real = int8_step.closed_loop_ranges

    def narrow(*arguments: Any) -> Any:
        return {
            name: type(seen)(0.1 * seen.low, 0.1 * seen.high)
            for name, seen in real(*arguments).items()
        }

    monkeypatch.setattr(int8_step, "closed_loop_ranges", narrow)
    with pytest.raises(AccuracyError, match=r"PSNR against truth changes by -[\d.]+ dB"):
        export_run(TRAINED, tmp_path / "bundle", precision="int8", keep_slower=True)
    assert list(tmp_path.iterdir()) == []


# A wrong bundle


@pytest.mark.parametrize("suffix", ["conv_h.conv.weight/scale", "from_x.0.conv.weight/scale"])
def test_a_wrong_weight_scale_is_found(suffix: str, trained_int8: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained_int8.path, tmp_path / "copy"))
    path = copy / "weights-int8.safetensors"
    stored = safetensors.numpy.load_file(path)
    name = next(name for name in stored if name.endswith(suffix))
    content = path.read_bytes()
    old, new = stored[name].tobytes(), (stored[name] * np.float32(1.1)).tobytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    _found(seal(copy, trained_int8.manifest))


def test_a_wrong_activation_scale_is_found(trained_int8: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained_int8.path, tmp_path / "copy"))
    for name in ("step", "forecast", "rollout"):
        model = onnx.load(copy / f"{name}.onnx", load_external_data=False)
        tensor = next(t for t in model.graph.initializer if t.name == "state.layer0.h/scale")
        wrong = numpy_helper.to_array(tensor) * np.float32(0.9)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(wrong), tensor.name))
        (copy / f"{name}.onnx").write_bytes(model.SerializeToString())
    _found(seal(copy, trained_int8.manifest), *installed_engines("int8"))


def _found(bundle: Bundle, *engines: str) -> None:
    for engine in engines or ("onnx",):
        breach = first_breach(verify_bundle(bundle, engine=engine))
        assert breach is not None, engine
        assert re.search(r"dB further from the quantised graph|dB at lead time", breach)


def test_a_right_one_is_right_on_openvino(trained_int8: Bundle) -> None:
    """It rounds in other places than ONNX Runtime, which is allowed for."""
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    assert first_breach(verify_bundle(trained_int8, engine="openvino")) is None


# TensorRT


@rtx
@pytest.mark.parametrize("name", ["convlstm", "modernn", "predrnn", "e3d-lstm", "cms-lstm"])
def test_tensorrt_rtx_takes_the_graph_without_a_warning(name: str, step_of: StepMaker) -> None:
    """Plain, with norms, with two memories, 3-D written as 2-D, with attention."""
    builder = load_builder("trt-rtx")
    step = step_of(name)
    int8 = make_int8_step(step, _calibration(step), "gpu")
    graph = fixed_batch(int8.typed, 1).SerializeToString()
    network, _parser = builder.parse(graph, Path("unused"))
    assert builder.log.warnings == []
    assert builder.work(network).shares() == pytest.approx(int8.work.shares(), abs=1e-6)
    if name == "convlstm":
        plan = builder.build(graph, Path("unused"), Target(PORTABLE))
        assert plan.warnings == []
        assert plan.details["inputs"]["frame"]["type"] == "fp32"


@rtx
def test_a_plan_is_built_and_its_speed_not_claimed(
    run_maker: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "bundle"
    words = ["export", str(run_maker("convlstm")), "--out", str(out), "--precision", "int8"]
    assert stpl_deploy([*words, "--engine", "trt-rtx", "--graphs", "step"]) == 0
    printed = capsys.readouterr().out
    assert "speed not measured; accuracy measured by ONNX Runtime on the same graphs" in printed
    manifest = open_bundle(out).manifest
    assert manifest.int8 is not None
    assert manifest.int8.speed is None
    assert manifest.int8.scheme.startswith("convolutions read int8 without a zero point")
    (plan,) = manifest.engines
    assert plan.precision == "int8"
    assert plan.details["convolution_share"]["int8"] > 0.95
    assert first_breach(verify_bundle(open_bundle(out))) is None
