"""Where ONNX Runtime really runs a graph, and the refusal to run it elsewhere in silence.

ONNX Runtime puts a whole graph on the CPU where a GPU provider's library does not load, and reports
so on a log line only. `load_on` raises instead; what a provider leaves to others is counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stpl_core.errors import EnvironmentFault, MissingExtraError
from stpl_core.machine import ORT_BUILDS, clashes, installed_version

CPU = "CPUExecutionProvider"
_HEAVY = ("Conv", "MatMul", "Gemm", "Norm", "Attention")
"""Parts of the names of operations whose place on the CPU is no detail."""
_NVIDIA = 0x10DE
"""NVIDIA's number among PCI vendors, by which a plugin's devices are known."""
_GPU_BUILD = "pip uninstall -y onnxruntime && pip install 'stpl-deploy[gpu]'"


@dataclass(frozen=True)
class Provider:
    """One execution provider of ONNX Runtime, and where its memory is."""

    name: str
    """ONNX Runtime's own name of it."""
    device: str = "cuda"
    """Kind of device, as `OrtValue` takes it."""
    vendor: int = -1
    """The device's PCI vendor, for kinds that need it; -1 for none."""
    after: tuple[str, ...] = ()
    """Providers that take what it leaves, before the CPU."""
    library: str = ""
    """The provider's file within onnxruntime's folder `capi`, without prefix and suffix."""
    plugin: str = ""
    """Python package that brings the provider as a plugin, for builds without it."""
    preload: str = ""
    """Python package whose import loads the libraries that the provider needs."""
    fix: str = _GPU_BUILD
    """What to type where it is not there."""
    needs: str = ""
    """What it needs beside itself, in words."""
    mend: str = ""
    """What to type where it is there and does not load."""


ON_CPU = Provider(CPU, device="cpu")
CUDA = Provider(
    "CUDAExecutionProvider",
    library="onnxruntime_providers_cuda",
    needs="an NVIDIA driver, CUDA and cuDNN 9 of this build's major versions",
    mend="pip install 'onnxruntime-gpu[cuda,cudnn]'; nvidia-smi shows the driver",
)
TENSORRT = Provider(
    "TensorrtExecutionProvider",
    after=("CUDAExecutionProvider",),
    library="onnxruntime_providers_tensorrt",
    preload="tensorrt",
    needs="TensorRT 10 or later, an NVIDIA driver, CUDA and cuDNN 9",
    mend="pip install tensorrt 'onnxruntime-gpu[cuda,cudnn]'; nvidia-smi shows the driver",
)
RTX = Provider(
    "NvTensorRTRTXExecutionProvider",
    device="gpu",
    vendor=_NVIDIA,
    library="onnxruntime_providers_nv_tensorrt_rtx",
    plugin="onnxruntime_ep_nv_tensorrt_rtx",
    fix="pip install 'onnxruntime>=1.24' onnxruntime-ep-nv-tensorrt-rtx",
    needs="an RTX GPU of compute capability 8.6, 8.9 or 12.0 and its driver",
    mend="nvidia-smi shows the GPU and its driver",
)
GPU_PROVIDERS = (CUDA, TENSORRT, RTX)


def load_on(
    provider: Provider,
    model: Path | bytes,
    session_options: Any,
    provider_options: Mapping[str, str] | None = None,
) -> Any:
    """Load a graph on a provider, or raise.

    Args:
        provider: where all heavy operations must run.
        model: a file, or the bytes of a graph.
        session_options: of ONNX Runtime; the record of placements is switched on in it.
        provider_options: of the provider.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        MissingExtraError: there is no onnxruntime.
        EnvironmentFault: the provider is not in this build, does not load, or leaves convolutions,
            products or norms to the CPU.
    """
    onnxruntime = _library()
    path = model if isinstance(model, bytes) else str(model)
    session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    chosen: dict[str, Any] = {"providers": [(provider.name, dict(provider_options or {}))]}
    with _quiet(onnxruntime):
        if provider.name not in onnxruntime.get_available_providers():
            chosen = {}
            _add_plugin(onnxruntime, provider, session_options, provider_options)
        else:
            _preload(onnxruntime, provider)
            chosen["providers"] += provider.after
        can_report = hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")
        if not can_report and provider.name != CPU:
            # Before 1.24 nothing reports where nodes are: then none may be on the CPU.
            session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session = onnxruntime.InferenceSession(
                path, session_options, enable_fallback=False, **chosen
            )
        except Exception as error:  # onnxruntime's own errors share no public base
            if _load_fault(onnxruntime, provider):
                raise _does_not_load(onnxruntime, provider) from error
            raise EnvironmentFault(
                f"{provider.name} of onnxruntime {onnxruntime.__version__} refuses the graph: "
                f"{refusal_reason(str(error))}",
                expected="a version that runs it",
                fix="pip install --upgrade onnxruntime-gpu, or --engine onnx to run on the CPU",
            ) from error
    if provider.name not in session.get_providers():
        raise _does_not_load(onnxruntime, provider)
    _check_placement(provider, placement(session))
    return session


def placement(session: Any) -> dict[str, Counter[str]]:
    """Provider -> how many nodes of each kind it runs; empty where it is not reported."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    found: dict[str, Counter[str]] = {}
    for part in ask() if ask is not None else ():
        kinds = Counter(node.op_type for node in part.get_nodes())
        found.setdefault(part.ep_name, Counter()).update(kinds)
    return found


def placement_note(provider: Provider, sessions: Sequence[Any]) -> str:
    """What the provider left to others, such as `3 of 210 nodes on CPUExecutionProvider`."""
    total: Counter[str] = Counter()
    for session in sessions:
        for name, kinds in placement(session).items():
            total[name] += sum(kinds.values())
    every = sum(total.values())
    return "".join(
        f", {count} of {every} nodes on {name}"
        for name, count in sorted(total.items())
        if name != provider.name
    )


def _check_placement(provider: Provider, placed: Mapping[str, Counter[str]]) -> None:
    if not placed:
        return
    heavy = sorted(kind for kind in placed.get(CPU, ()) if any(word in kind for word in _HEAVY))
    if provider.name == CPU or (provider.name in placed and not heavy):
        return
    total = sum(sum(kinds.values()) for kinds in placed.values())
    count = sum(placed.get(provider.name, Counter()).values())
    raise EnvironmentFault(
        f"{provider.name} takes {count} of the graph's {total} nodes"
        + (f" and leaves {', '.join(heavy)} to the CPU" if heavy else ""),
        expected="all convolutions, products and norms on it",
        fix="another version of onnxruntime, or --engine onnx to run on the CPU",
    )


def refusal_reason(message: str) -> str:
    """Why ONNX Runtime refuses a session, in one line of 300 letters at most."""
    if "fallback to CPU EP has been explicitly disabled" in message:
        return "it leaves nodes to the CPU"
    return " ".join(message.split())[:300]


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "gpu") from error
    return onnxruntime


def _add_plugin(
    onnxruntime: Any, provider: Provider, options: Any, provider_options: Mapping[str, str] | None
) -> None:
    """Register the plugin that brings the provider, and take its devices."""
    if not provider.plugin or importlib.util.find_spec(provider.plugin) is None:
        raise _not_there(onnxruntime, provider)
    if not hasattr(onnxruntime, "get_ep_devices"):
        raise EnvironmentFault(
            f"onnxruntime {onnxruntime.__version__} takes no plugins",
            expected="1.24 or later",
            fix=provider.fix,
        )
    if provider.name not in _registered:
        plugin = importlib.import_module(provider.plugin)
        library = plugin.get_library_path()
        try:
            onnxruntime.register_execution_provider_library(provider.name, library)
        except Exception as error:  # as above
            why = " ".join(str(error).split()).rpartition("with error: ")[2]
            raise _does_not_load(onnxruntime, provider, why) from error
        _registered.add(provider.name)
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == provider.name]
    if not devices:
        raise _does_not_load(onnxruntime, provider, "it finds no GPU that it can use")
    options.add_provider_for_devices(devices[:1], dict(provider_options or {}))


_registered: set[str] = set()
"""Plugins that this process has loaded; a second registration is an error."""


def _preload(onnxruntime: Any, provider: Provider) -> None:
    """Load the libraries that pip installed beside onnxruntime, before it looks for them."""
    if provider.name == CPU:
        return
    if provider.preload:
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module(provider.preload)
    if hasattr(onnxruntime, "preload_dlls"):
        # What it prints of libraries that it does not find is reported later, of those that matter.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError):
            onnxruntime.preload_dlls()


def _not_there(onnxruntime: Any, provider: Provider) -> EnvironmentFault:
    versions = {name: installed_version(name) for name in ORT_BUILDS}
    problems = clashes(versions)
    if problems:
        found, _, fix = problems[0].partition("; try: ")
        return EnvironmentFault(
            f"onnxruntime has no {provider.name}: {found}", expected="one build", fix=fix
        )
    builds = [f"{name} {version}" for name, version in versions.items() if version]
    return EnvironmentFault(
        f"{' '.join(builds) or 'onnxruntime'} has no {provider.name}, "
        f"only {', '.join(onnxruntime.get_available_providers())}",
        expected=f"a build with it, and {provider.needs}",
        fix=f"{provider.fix}, or --engine onnx to run on the CPU",
    )


def _does_not_load(onnxruntime: Any, provider: Provider, why: str = "") -> EnvironmentFault:
    reason = why or _load_fault(onnxruntime, provider) or "no GPU answers"
    return EnvironmentFault(
        f"{provider.name} of onnxruntime {onnxruntime.__version__} does not load: {reason}",
        expected=provider.needs,
        fix=f"{provider.mend}; --engine onnx runs on the CPU",
    )


def _load_fault(onnxruntime: Any, provider: Provider) -> str:
    """What the linker says about the provider's library; empty where it has nothing to say."""
    prefix, suffix = ("", ".dll") if sys.platform == "win32" else ("lib", ".so")
    folder = Path(onnxruntime.__file__).parent / "capi"
    path = folder / f"{prefix}{provider.library}{suffix}"
    if not provider.library or not path.is_file():
        return ""
    try:  # it wants to be loaded after the part that all providers share
        ctypes.CDLL(str(folder / f"{prefix}onnxruntime_providers_shared{suffix}"))
        ctypes.CDLL(str(path))
    except OSError as error:
        return str(error).replace(f"{folder}{os.sep}", "")
    return ""


@contextlib.contextmanager
def _quiet(onnxruntime: Any) -> Iterator[None]:
    """No lines of the library's own about what is reported in ours."""
    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)
