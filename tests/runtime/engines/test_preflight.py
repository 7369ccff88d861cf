"""Every mismatch has its own message, before a driver sees the plan."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from stpl_core.bundle import Bundle, EngineSpec, open_bundle, seal
from stpl_core.errors import BundleError, ChecksumError, EnvironmentFault
from stpl_deploy.cli.inspect import inspect
from stpl_runtime.engines.gpu import Gpu
from stpl_runtime.engines.plan_report import describe_plan, plan_lines
from stpl_runtime.engines.preflight import (
    Here,
    abilities,
    find_plan,
    look_here,
    mismatch,
    read_plan,
)

TINY = Path(__file__).parents[2] / "data" / "convlstm-tiny.bundle"
PLAN = b"vtrt" + bytes(range(256)) * 16

HERE = Here(
    system="Linux",
    machine="x86_64",
    gpu=Gpu("8.6", (13, 0)),
    versions={"trt": "10.9.0.34", "trt-rtx": "1.7.1.116"},
)


def _details(bundle: Bundle, graph: str, batch: int, flavour: str, **changes: Any) -> Any:
    manifest = bundle.manifest
    inputs = {"frame": {"type": "fp32", "shape": [batch, *manifest.frame]}}
    for part in manifest.state:
        inputs[part.input] = {"type": "fp32", "shape": [batch, *part.shape]}
    if graph == "rollout":
        shape = [batch, manifest.context, *manifest.frame]
        inputs = {"context": {"type": "fp32", "shape": shape}}
    return {
        "flavour": flavour,
        "version": "1.7.1.116" if flavour == "trt-rtx" else "10.9.0.34",
        "capabilities": ["8.0", "8.6", "8.9", "12.0"] if flavour == "trt-rtx" else ["8.6"],
        "compatible": [],
        "cuda": "13",
        "systems": ["Linux", "Windows"] if flavour == "trt-rtx" else ["Linux"],
        "machine": "x86_64",
        "inputs": inputs,
    } | changes


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The tiny bundle with plans whose bytes are not a builder's: preflight must not open them."""
    copy = tmp_path / "bundle"
    shutil.copytree(TINY, copy)
    opened = open_bundle(copy)
    specs = []
    for flavour in ("trt", "trt-rtx"):
        for graph, batch in (("step", 1), ("step", 4), ("forecast", 1)):
            file = f"{flavour}-{graph}-b{batch}.engine"
            (copy / file).write_bytes(PLAN)
            specs.append(
                EngineSpec(
                    engine=flavour,
                    graph=graph,
                    file=file,
                    precision="fp16",
                    batch=batch,
                    details=_details(opened, graph, batch, flavour),
                )
            )
    return seal(copy, opened.manifest.model_copy(update={"engines": tuple(specs)}))


def _change(bundle: Bundle, **changes: Any) -> Bundle:
    """The same bundle, its plans with other details."""
    engines = tuple(
        spec.model_copy(update={"details": spec.details | changes})
        for spec in bundle.manifest.engines
    )
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": engines}))


@pytest.mark.parametrize("flavour", ["trt", "trt-rtx"])
def test_a_plan_that_fits_is_found_and_read(bundle: Bundle, flavour: str) -> None:
    for graph, batch in (("step", 1), ("step", 4), ("forecast", 1)):
        spec = find_plan(bundle, flavour, graph, batch, HERE)  # type: ignore[arg-type]
        assert (spec.engine, spec.graph, spec.batch) == (flavour, graph, batch)
        assert read_plan(bundle, spec) == PLAN


def _here(**changes: Any) -> Here:
    return dataclasses.replace(HERE, **changes)


MISMATCHES = [
    # flavour, what differs in the plan, what differs in the machine, what is said
    ("trt", {}, {"versions": {}}, r"TensorRT is not installed; .*stpl-deploy\[trt\]"),
    ("trt-rtx", {}, {"versions": {"trt": "10.9"}}, r"TensorRT-RTX is not installed; .*trt-rtx\]"),
    (
        "trt",
        {},
        {"versions": {"trt": "10.10.0.31"}},
        r"built with TensorRT 10.9.0.34; installed is 10.10.0.31; expected 10.9.0; try: pip",
    ),
    (
        "trt",
        {"compatible": ["version"]},
        {"versions": {"trt": "11.0.0.1"}},
        r"installed is 11.0.0.1; expected 10.x, at least 10.9.0.34",
    ),
    (
        "trt-rtx",
        {},
        {"versions": {"trt-rtx": "1.5.0.114"}},
        r"built with TensorRT-RTX 1.7.1.116; installed is 1.5.0.114; expected 1.7;",
    ),
    ("trt-rtx", {}, {"gpu": None}, "needs an NVIDIA GPU; this machine shows none"),
    (
        "trt-rtx",
        {},
        {"gpu": Gpu("9.0", (13, 0))},
        r"built for compute capability 8.0, 8.6, 8.9, 12.0; this GPU has 9.0.*--gpu 9.0",
    ),
    (
        "trt",
        {},
        {"gpu": Gpu("7.5", (13, 0))},
        r"compute capability 8.6; this GPU has 7.5; .*--engine trt on this machine",
    ),
    (
        "trt",
        {"compatible": ["ampere+"]},
        {"gpu": Gpu("7.5", (13, 0))},
        r"capability 8.6; this GPU has 7.5",
    ),
    (
        "trt-rtx",
        {},
        {"gpu": Gpu("8.6", (12, 4))},
        r"uses CUDA 13; this driver supports up to 12.4; .*update the NVIDIA driver",
    ),
    ("trt", {}, {"system": "Windows"}, r"was built for Linux; this is Windows"),
    ("trt-rtx", {}, {"system": "Darwin"}, r"was built for Linux or Windows; this is Darwin"),
    ("trt", {}, {"machine": "aarch64"}, r"was built on x86_64; this machine is aarch64"),
]


@pytest.mark.parametrize(("flavour", "plan", "machine", "said"), MISMATCHES)
def test_every_mismatch_has_its_own_message(
    bundle: Bundle, flavour: str, plan: Any, machine: Any, said: str
) -> None:
    with pytest.raises(EnvironmentFault, match=said) as caught:
        find_plan(_change(bundle, **plan), flavour, "step", 1, _here(**machine))
    assert caught.value.exit_code == 4
    assert caught.value.expected
    assert caught.value.fix


def test_the_messages_differ_from_one_another(bundle: Bundle) -> None:
    said = set()
    for flavour, plan, machine, _ in MISMATCHES:
        spec = next(s for s in _change(bundle, **plan).manifest.engines if s.engine == flavour)
        fault = mismatch(spec, _here(**machine))
        assert fault is not None
        said.add(str(fault))
    assert len(said) == len(MISMATCHES) - 1  # the two of 7.5 differ in the plan, not in words


@pytest.mark.parametrize(
    ("plan", "machine"),
    [
        ({"compatible": ["version"]}, {"versions": {"trt": "10.14.1.48"}}),
        ({"compatible": ["ampere+"]}, {"gpu": Gpu("12.0", (13, 1))}),
        ({"cuda": None}, {"gpu": Gpu("8.6", (11, 8))}),
        ({"machine": "AMD64"}, {}),
        ({}, {"versions": {"trt": "10.9.0.99"}}),
    ],
)
def test_what_is_compatible_passes(bundle: Bundle, plan: Any, machine: Any) -> None:
    assert find_plan(_change(bundle, **plan), "trt", "step", 1, _here(**machine)).batch == 1


def test_plans_that_are_not_there_are_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no plan of the rollout graph, only of forecast, step"):
        find_plan(bundle, "trt", "rollout", 1, HERE)
    with pytest.raises(BundleError, match=r"no step plan for batch 3; .*expected batch 1 or 4"):
        find_plan(bundle, "trt", "step", 3, HERE)
    only_trt = [spec for spec in bundle.manifest.engines if spec.engine == "trt"]
    manifest = bundle.manifest.model_copy(update={"engines": tuple(only_trt)})
    with pytest.raises(BundleError, match="has no TensorRT-RTX plan, only trt"):
        find_plan(Bundle(bundle.path, manifest), "trt-rtx", "step", 1, HERE)
    with pytest.raises(BundleError, match="bundle has no TensorRT plan; expected plans"):
        find_plan(open_bundle(TINY), "trt", "step", 1, HERE)


@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing"])
def test_a_damaged_plan_never_reaches_the_driver(
    bundle: Bundle, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorrt", "tensorrt_rtx", "cuda"):
        monkeypatch.setitem(sys.modules, module, None)  # importing any of them would raise
    spec = find_plan(bundle, "trt-rtx", "step", 1, HERE)
    path = bundle.file(spec.file)
    if fault == "truncated":
        path.write_bytes(PLAN[:-1])
    elif fault == "flipped":
        path.write_bytes(PLAN[:-1] + bytes([PLAN[-1] ^ 1]))
    else:
        path.unlink()
    said = {"truncated": "4,099 bytes", "flipped": "SHA-256", "missing": "is missing"}[fault]
    with pytest.raises(ChecksumError, match=said) as caught:
        read_plan(bundle, spec)
    assert caught.value.exit_code == 3
    with pytest.raises(ChecksumError):  # and the bundle says the same when it is opened
        open_bundle(bundle.path)


def test_a_plan_of_other_shapes_is_refused(bundle: Bundle) -> None:
    spec = find_plan(bundle, "trt", "step", 1, HERE)
    inputs = spec.details["inputs"]
    larger = inputs | {"frame": {"type": "fp32", "shape": [1, 1, 128, 128]}}
    wrong = spec.model_copy(update={"details": spec.details | {"inputs": larger}})
    with pytest.raises(BundleError, match=r"reads frame of shape \[1, 1, 128, 128\]; expected"):
        read_plan(bundle, wrong)
    fewer = {name: tensor for name, tensor in inputs.items() if not name.endswith(".c")}
    wrong = spec.model_copy(update={"details": spec.details | {"inputs": fewer}})
    with pytest.raises(BundleError, match=r"reads state.*\.c of shape none"):
        read_plan(bundle, wrong)


def test_this_machine_is_described_without_loading_anything() -> None:
    loaded = set(sys.modules)
    here = look_here()
    assert here.system
    assert here.machine
    assert not {"tensorrt", "tensorrt_rtx", "cuda"} & (set(sys.modules) - loaded)
    assert all(set(version) <= set("0123456789.") for version in here.versions.values())


def test_abilities_say_what_each_flavour_can_do() -> None:
    both = {ability.name: ability for ability in abilities(HERE)}
    assert all(ability.builds and ability.runs for ability in both.values())
    no_gpu = abilities(_here(gpu=None))
    assert [(a.builds, a.runs) for a in no_gpu] == [(False, False), (True, False)]
    hopper = abilities(_here(gpu=Gpu("9.0", (13, 0))))
    assert [(a.builds, a.runs) for a in hopper] == [(True, True), (True, False)]
    assert "9.0" in hopper[1].note
    bare = abilities(_here(versions={}))
    assert all("pip install 'stpl-deploy[" in ability.note for ability in bare)
    bare_cpu = {a.name: a.note for a in abilities(_here(versions={}, gpu=None))}
    assert "pip install" not in bare_cpu["TensorRT"]  # of no use here
    assert "pip install 'stpl-deploy[trt-rtx]'" in bare_cpu["TensorRT-RTX"]  # builds without a GPU


def test_inspect_says_how_a_forecast_is_made(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(path=bundle.path, json=False)
    shown = capsys.readouterr().out
    for flavour in ("trt", "trt-rtx"):
        assert f"{flavour}: a forecast is made by replays of the step plan or by the unr" in shown


def test_the_checksum_is_of_the_bytes_that_are_returned(bundle: Bundle) -> None:
    spec = find_plan(bundle, "trt", "forecast", 1, HERE)
    data = read_plan(bundle, spec)
    assert hashlib.sha256(data).hexdigest() == bundle.manifest.files[spec.file].sha256


def test_a_plan_is_described_without_a_driver(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = bundle.manifest.engines[0]
    built = {
        "weights_bytes": 1000,
        "convolution_share": {"fp16": 0.97, "fp32": 0.03},
        "layers": 12,
        "layer_kinds": {"convolution": 8, "cast": 4},
        "outputs": {"next_frame": {"type": "fp32", "shape": [1, 1, 8, 8]}},
        "build_seconds": 1.5,
        "warnings": 0,
        "ran": False,
    }
    engines = (spec.model_copy(update={"details": spec.details | built}),)
    seal(bundle.path, bundle.manifest.model_copy(update={"engines": engines}))
    path = bundle.file(spec.file)
    report = describe_plan(path, HERE)
    assert report["runs_here"]
    assert report["bytes"] == len(PLAN)
    assert "97.0% fp16, 3.0% fp32" in plan_lines(report)["precision"]
    assert "never run" in plan_lines(report)["ran"]
    assert "needs an NVIDIA GPU" in describe_plan(path, _here(gpu=None))["why_not"]
    assert not describe_plan(path, _here(gpu=None))["runs_here"]
    inspect(path=path, json=False)
    assert "8 convolution, 4 cast" in capsys.readouterr().out
    inspect(path=bundle.path, json=False)
    shown = capsys.readouterr().out
    assert spec.file in shown
    assert "trt: a forecast is made by replays of the step plan\n" in shown
    alone = tmp_path / "alone.engine"
    alone.write_bytes(PLAN)
    with pytest.raises(BundleError, match=r"has no manifest.json beside it"):
        describe_plan(alone, HERE)
    with pytest.raises(BundleError, match=r"other.engine is not a plan"):
        describe_plan(bundle.path / "other.engine", HERE)
    path.write_bytes(PLAN[:-1])
    with pytest.raises(ChecksumError):
        describe_plan(path, HERE)
