"""`export --golden`: inputs and PyTorch's outputs of each graph, for other people's tools.

A folder beside the bundle, since a bundle holds no code:

    README.md                   the commands, each runs as it stands there
    <graph>/inputs.json         for `polygraphy run --load-inputs`
    <graph>/outputs.json        PyTorch's float64, for `polygraphy run --load-outputs`
    <graph>/bins/<input>.bin    the same inputs, raw, for trtexec's `--loadInputs`
    <graph>/compare.py          for `--compare-func-script`: the bundle's tolerance by lead time
    <graph>/run_onnxruntime.py  what `polygraphy run --gen-script` writes
    no_tf32.py                  for TensorRT-RTX, where Polygraphy leaves TF32 on

The inputs are those of the first sequence when its newest frame has arrived: real frames, and the
state that PyTorch has then, as float32. PyTorch in float64 starts from these very numbers.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpl_core.bundle import Bundle, GraphName
from stpl_core.errors import EnvironmentFault
from stpl_core.files import atomic_directory
from stpl_export.polygraphy.compare_script import compare_script
from stpl_export.polygraphy.library import PYTORCH, quiet
from stpl_export.polygraphy.limits import Limit, limits_of
from stpl_runtime.proof.reference import load_reference
from stpl_train.forecaster import State
from stpl_train.models import ForecasterModule

Progress = Callable[[str], None]
Values = OrderedDict[str, NDArray[Any]]


@dataclass(frozen=True)
class Golden:
    """What one graph is given, and what PyTorch makes of it."""

    graph: GraphName
    inputs: Values
    outputs: Values
    """float64."""
    limits: Mapping[str, Sequence[Limit]]
    """Output -> its limit, or one for each lead time."""


def write_golden(
    bundle: Bundle, model: ForecasterModule, out: Path, progress: Progress = lambda _: None
) -> None:
    """Write the folder.

    Args:
        bundle: sealed; its graphs stay where they are, the commands name them by relative paths.
        model: what it was exported from, float32, on the CPU.
        out: the folder to make; must not exist yet.
        progress: given what is written.

    Raises:
        MissingExtraError: Polygraphy is not installed.
        EnvironmentFault: its command line ends with an error.
    """
    from polygraphy.comparator import RunResults
    from polygraphy.json import save_json

    goldens = make_goldens(bundle, model)
    with atomic_directory(out) as partial, quiet():
        for golden in goldens:
            progress(f"golden {golden.graph}: inputs, outputs, scripts")
            folder = partial / golden.graph
            (folder / "bins").mkdir(parents=True)
            save_json([golden.inputs], str(folder / "inputs.json"))
            results = RunResults()
            results.add([golden.outputs], runner_name=PYTORCH)
            save_json(results, str(folder / "outputs.json"))
            for name, values in golden.inputs.items():
                values.tofile(folder / "bins" / f"{name}.bin")
            (folder / "compare.py").write_text(compare_script(golden.limits))
            arguments = run_arguments(bundle, golden.graph, out)
            _polygraphy([*arguments, "--gen-script", f"{golden.graph}/{_SCRIPT}"], partial)
            _make_relative(folder / _SCRIPT, arguments[1], partial)
        (partial / _NO_TF32).write_text(_NO_TF32_TEXT)
        (partial / "README.md").write_text(_readme(bundle, goldens, out))


_SCRIPT = "run_onnxruntime.py"
_NO_TF32 = "no_tf32.py"
_NO_TF32_TEXT = '''"""TensorRT-RTX: fp32 without TF32, whose 10-bit operands leave the tolerance."""

import tensorrt_rtx as trt


def postprocess_config(builder, network, config):
    """Called by Polygraphy before it builds."""
    config.clear_flag(trt.BuilderFlag.TF32)
'''


def make_goldens(bundle: Bundle, model: ForecasterModule) -> list[Golden]:
    """Run PyTorch in float64 from the inputs of each graph."""
    reference = load_reference(bundle)
    limits = limits_of(reference, bundle.manifest.precision)
    exact = copy.deepcopy(model).double().eval()
    context = torch.from_numpy(np.ascontiguousarray(reference.context[:1]))  # (1, T, C, H, W)
    horizon = bundle.manifest.horizon
    goldens = []
    with torch.no_grad():
        before = _state_before(exact, context.double())
        for graph in bundle.manifest.graphs:
            if graph == "rollout":
                state = exact.initial_state(1)
                inputs, frames = _values({"context": context}), context.double()
            else:
                state = {name: tensor.double() for name, tensor in before.items()}
                inputs = _values({"frame": context[:, -1], **_named(bundle, before, "input")})
                frames = context[:, -1:].double()
            made, after = _forecast(exact, frames, state, 1 if graph == "step" else horizon)
            first = {"next_frame": made[:, 0]} if graph == "step" else {"forecast": made}
            rest = {} if graph == "rollout" else _named(bundle, after, "output")
            outputs = _values({**first, **rest})
            goldens.append(Golden(graph, inputs, outputs, _limits(bundle, outputs, limits)))
    return goldens


def _state_before(model: ForecasterModule, context: Tensor) -> State:
    """The state before the newest frame of `(1, T, C, H, W)`, as float32."""
    state = model.initial_state(1)
    for t in range(context.shape[1] - 1):
        _, state = model.step(context[:, t], state)
    return {name: tensor.float() for name, tensor in state.items()}


def _forecast(
    model: ForecasterModule, frames: Tensor, state: State, horizon: int
) -> tuple[Tensor, State]:
    """K frames `(1, K, C, H, W)` after `(1, T, C, H, W)`, and the state after the last of these."""
    guess = frames[:, 0]
    for t in range(frames.shape[1]):
        guess, state = model.step(frames[:, t], state)  # (1, C, H, W)
    after, guesses = state, [guess]
    while len(guesses) < horizon:
        guess, state = model.step(guesses[-1], state)
        guesses.append(guess)
    return torch.stack(guesses, dim=1), after


def _named(bundle: Bundle, state: State, side: str) -> dict[str, Tensor]:
    """A state by the names that the graphs have for it: `state.*`, or `next.*`."""
    return {
        name: state[spec.name]
        for spec in bundle.manifest.state
        if (name := getattr(spec, side)) is not None
    }


def _values(tensors: Mapping[str, Tensor]) -> Values:
    return OrderedDict(
        (name, np.ascontiguousarray(tensor.numpy())) for name, tensor in tensors.items()
    )


def _limits(bundle: Bundle, outputs: Values, limits: Mapping[str, Limit]) -> dict[str, list[Limit]]:
    """Of each output: one for each lead time, or one."""
    states = {spec.output: spec.name for spec in bundle.manifest.state}
    leads = [limits[f"lead {k + 1}"] for k in range(bundle.manifest.horizon)]
    every = {"forecast": leads, "next_frame": leads[:1]}
    return {
        name: every[name] if name in every else [limits[f"state {states[name]}"]]
        for name in outputs
    }


def run_arguments(
    bundle: Bundle, graph: GraphName, out: Path, runner: str = "--onnxrt"
) -> list[str]:
    """Of `polygraphy`, in the golden folder `out`."""
    path = Path(os.path.relpath(bundle.graph(graph), out)).as_posix()
    return [
        "run", path, runner,
        "--load-inputs", f"{graph}/inputs.json",
        "--load-outputs", f"{graph}/outputs.json",
        "--compare-func-script", f"{graph}/compare.py",
    ]  # fmt: skip


def _polygraphy(arguments: Sequence[str], folder: Path) -> None:
    """Run Polygraphy's command line in a process of its own; it keeps much in globals."""
    command = [sys.executable, "-c", "from polygraphy.tools import main; main()", *arguments]
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = " ".join((done.stderr or done.stdout).split())[-300:]
        raise EnvironmentFault(
            f"polygraphy {arguments[0]} ends with {done.returncode}: {last}",
            expected="a script",
            fix="pip install --upgrade 'stpl-deploy[polygraphy]'",
        )


def _make_relative(script: Path, graph: str, folder: Path) -> None:
    """Polygraphy writes the graph's whole path, which no other machine has."""
    text = script.read_text()
    script.write_text(text.replace(os.path.abspath(folder.resolve() / graph), graph))


def _readme(bundle: Bundle, goldens: Sequence[Golden], out: Path) -> str:
    parts = [_README.format(model=bundle.manifest.model.name, precision=bundle.manifest.precision)]
    for golden in goldens:
        arguments = run_arguments(bundle, golden.graph, out)
        path = arguments[1]
        shapes = ",".join(f"{n}:{'x'.join(map(str, v.shape))}" for n, v in golden.inputs.items())
        loads = ",".join(f"{name}:{golden.graph}/bins/{name}.bin" for name in golden.inputs)
        on_trt = " ".join(["polygraphy", *run_arguments(bundle, golden.graph, out, "--trt")])
        parts.append(
            f"## {golden.graph}\n\n"
            "ONNX Runtime:\n\n"
            f"    polygraphy {' '.join(arguments)}\n"
            f"    python {golden.graph}/{_SCRIPT}\n\n"
            "TensorRT, then TensorRT-RTX (both need a driver; fp32 keeps TF32 off):\n\n"
            f"    {on_trt} --strongly-typed\n"
            f"    POLYGRAPHY_USE_TENSORRT_RTX=1 {on_trt} --strongly-typed "
            f"--trt-config-postprocess-script {_NO_TF32}\n"
            f"    trtexec --onnx={path} --stronglyTyped --noTF32 --shapes={shapes} "
            f"--loadInputs={loads} --exportOutput={golden.graph}/trtexec.json\n"
        )
    return "\n".join(parts)


_README = """# Golden inputs and outputs: {model}, {precision}

PyTorch's float64 results for real inputs of each graph. Every command runs in this folder, and
ends with 0 only where each lead time is within the bundle's tolerance. `compare.py` holds these.
"""
