"""Tries every provider of the installed ONNX Runtime by running one convolution on it.

A provider that is only listed proves nothing: the GPU ones are listed wherever the wheel has
them, and fail when their libraries or the driver are missing. Those that an engine runs on are
loaded as that engine would (`placement`).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np

from stpl_core.errors import EnvironmentFault
from stpl_core.safety.protobuf import number, part
from stpl_runtime.engines.ov.core import openvino_core
from stpl_runtime.engines.placement import (
    CPU,
    CUDA,
    GPU_PROVIDERS,
    RTX,
    TENSORRT,
    Provider,
    load_on,
    refusal_reason,
)

_ENGINES = {
    CPU: "onnx",
    CUDA.name: "onnx-cuda",
    TENSORRT.name: "onnx-trt",
    RTX.name: "onnx-trt-rtx",
}


@dataclass(frozen=True)
class ProviderTrial:
    """What became of one provider."""

    provider: str
    works: bool
    note: str
    """Why not, in one line; empty where it works."""
    engine: str = ""
    """The word of `--engine` that runs on it; empty where none does."""
    fix: str = ""
    """What to type where it does not work."""


def try_providers() -> tuple[ProviderTrial, ...]:
    """Run a 1x1 convolution on each available provider, with no way back to the CPU.

    Raises:
        ImportError: onnxruntime is not installed, or its files are broken.
    """
    import onnxruntime

    try:
        names = onnxruntime.get_available_providers()
    except AttributeError as error:  # what is left after one of two clashing builds was removed
        raise ImportError("onnxruntime is an empty package") from error
    if RTX.name not in names and importlib.util.find_spec(RTX.plugin) is not None:
        names = [RTX.name, *names]
    known = {provider.name: provider for provider in GPU_PROVIDERS}
    return tuple(_try_gpu(known[name]) if name in known else _try(name) for name in names)


def try_openvino() -> tuple[ProviderTrial, ...]:
    """The same convolution on each device that OpenVINO finds; nothing where it is missing."""
    if importlib.util.find_spec("openvino") is None:
        return ()
    core = openvino_core()
    return tuple(_try_device(core, str(device)) for device in core.available_devices)


def _try_device(core: Any, device: str) -> ProviderTrial:
    kind = device.partition(".")[0]
    name, engine = f"OpenVINO {device}", "openvino" if kind == "CPU" else f"openvino:{kind}"
    frame = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    try:
        model = core.read_model(tiny_model())
        precision = {"INFERENCE_PRECISION_HINT": "f32"}
        made = core.compile_model(model, device, precision)({"x": frame})
        right = bool(np.array_equal(next(iter(made.values())), 2 * frame))
    except Exception as error:  # OpenVINO's own errors are RuntimeError and others
        return ProviderTrial(name, False, refusal_reason(str(error)), engine)
    return ProviderTrial(name, right, "" if right else "computes wrong values", engine)


def _try_gpu(provider: Provider) -> ProviderTrial:
    """As the engine of this provider would load a graph."""
    engine = _ENGINES[provider.name]
    try:
        session = load_on(provider, tiny_model(), _options())
        return _judged(provider.name, session, engine)
    except EnvironmentFault as fault:
        note = fault.found.partition("does not load: ")[2] or fault.found
        return ProviderTrial(provider.name, False, note, engine, fault.fix)


def _try(provider: str) -> ProviderTrial:
    import onnxruntime

    options = _options()
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    engine = _ENGINES.get(provider, "")
    try:
        session = onnxruntime.InferenceSession(
            tiny_model(), options, providers=[provider], enable_fallback=False
        )
        if session.get_providers()[0] != provider:
            note = f"fell back to {session.get_providers()[0]}"
            return ProviderTrial(provider, False, note, engine)
        return _judged(provider, session, engine)
    except Exception as error:  # onnxruntime's own errors share no public base
        return ProviderTrial(provider, False, refusal_reason(str(error)), engine)


def _judged(provider: str, session: Any, engine: str) -> ProviderTrial:
    """Run the one convolution."""
    frame = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    try:
        doubled = session.run(None, {"x": frame})[0]
    except Exception as error:  # as above
        return ProviderTrial(provider, False, refusal_reason(str(error)), engine)
    right = bool(np.array_equal(doubled, 2 * frame))
    return ProviderTrial(provider, right, "" if right else "computes wrong values", engine)


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the failure is reported in our own words
    options.intra_op_num_threads = 1
    return options


def tiny_model() -> bytes:
    """An ONNX model `y = Conv(x, w)`, x `(1, 1, 2, 2)`, w = 2 `(1, 1, 1, 1)`.

    Written field by field, since the runtime has no onnx package. The numbers are the field
    numbers of onnx.proto; opset 13 and IR 7 are old enough for every build in use.
    """
    shape = b"".join(part(1, number(1, side)) for side in (1, 1, 2, 2))
    tensor_type = number(1, 1) + part(2, shape)  # element type FLOAT, shape
    value_type = part(2, part(1, tensor_type))
    weight = b"".join(number(1, 1) for _ in range(4)) + number(2, 1)  # dims, FLOAT
    weight += part(8, b"w") + part(9, np.float32(2).tobytes())  # name, raw data
    node = part(1, b"x") + part(1, b"w") + part(2, b"y") + part(4, b"Conv")
    graph = (
        part(1, node)
        + part(2, b"tiny")
        + part(5, weight)
        + part(11, part(1, b"x") + value_type)
        + part(12, part(1, b"y") + value_type)
    )
    return number(1, 7) + part(7, graph) + part(8, number(2, 13))  # IR, graph, opset
