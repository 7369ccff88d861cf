"""TensorRT and TensorRT-RTX behind one code path: ONNX graph in, raw plan out.

Both flavours have the same Python API. What differs: TensorRT-RTX builds for a list of compute
capabilities on a machine without a GPU; TensorRT builds for the GPU at hand and keeps a timing
cache. Everything is strongly typed: the plan computes in the types that the graph states.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import math
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from stpl_core.errors import EnvironmentFault, MissingExtraError
from stpl_export.precision.macs import Work

Flavour = Literal["trt", "trt-rtx"]
Progress = Callable[[str], None]

_MODULES: dict[Flavour, str] = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}
_LONG_NAMES: dict[Flavour, str] = {"trt": "TensorRT", "trt-rtx": "TensorRT-RTX"}
_TYPES = {"HALF": "fp16", "BF16": "bf16", "FLOAT": "fp32", "INT8": "int8"}
COMPATIBILITY = ("version", "ampere+", "same-capability")
"""Words of `--compatible`, TensorRT only: plans that later versions, or other GPUs, can load."""


@dataclass(frozen=True)
class Target:
    """What one plan is built for."""

    capabilities: tuple[str, ...]
    """Compute capabilities such as `8.6`; for TensorRT the one of the GPU at hand."""
    compatible: tuple[str, ...] = ()
    """Words of `COMPATIBILITY`."""


@dataclass
class Plan:
    """A built plan and what was counted in the parsed network."""

    data: bytes
    details: dict[str, Any]
    work: Work
    warnings: list[str] = field(default_factory=list)


def choose_flavour(engine: str) -> Flavour:
    """`trt` takes TensorRT where it is installed, else TensorRT-RTX; `trt-rtx` only the latter.

    Raises:
        MissingExtraError: it is not installed.
    """
    accepted: list[Flavour] = ["trt", "trt-rtx"] if engine == "trt" else ["trt-rtx"]
    for flavour in accepted:
        if installed(flavour):
            return flavour
    raise MissingExtraError("tensorrt" if engine == "trt" else "tensorrt-rtx", engine)


def installed(flavour: Flavour) -> bool:
    """Whether a flavour's Python package is there."""
    return importlib.util.find_spec(_MODULES[flavour]) is not None


class TrtBuilder:
    """One flavour's library, loaded. Use `load_builder`: the library takes one logger only."""

    def __init__(self, flavour: Flavour) -> None:
        """Import the library.

        Raises:
            MissingExtraError: it is not installed.
            EnvironmentFault: it is, but cannot be loaded or needs a GPU that is not here.
        """
        self.flavour = flavour
        try:
            self.trt: Any = importlib.import_module(_MODULES[flavour])
        except ModuleNotFoundError as error:
            raise MissingExtraError(_MODULES[flavour], flavour) from error
        except (ImportError, OSError) as error:
            raise EnvironmentFault(
                f"{_LONG_NAMES[flavour]} cannot be loaded: {error}",
                expected="its libraries beside it",
                fix=f"pip install --force-reinstall 'stpl-deploy[{flavour}]'",
            ) from error
        self.version = str(self.trt.__version__)
        self.log = _make_logger(self.trt)
        self.builder = self.trt.Builder(self.log)
        if not self.builder:
            raise EnvironmentFault(
                f"TensorRT {self.version} cannot make a builder: {self.log.last()}",
                expected="an NVIDIA GPU and its driver on this machine",
                fix="--engine trt-rtx builds without a GPU",
            )

    @property
    def name(self) -> str:
        """Such as `TensorRT-RTX 1.7.1.116`."""
        return f"{_LONG_NAMES[self.flavour]} {self.version}"

    def known_capabilities(self) -> tuple[str, ...]:
        """What TensorRT-RTX can build for, such as `8.6`."""
        found = (re.fullmatch(r"SM(\d+)(\d)", m) for m in self.trt.ComputeCapability.__members__)
        return tuple(f"{match[1]}.{match[2]}" for match in found if match)

    def build(
        self,
        graph: bytes,
        weights_beside: Path,
        target: Target,
        *,
        timing_cache: Path | None = None,
        progress: Progress = lambda _: None,
    ) -> Plan:
        """Parse a graph and build its plan.

        Args:
            graph: serialized ONNX with fixed shapes.
            weights_beside: any path in the directory of its external data.
            target: what the plan is for.
            timing_cache: where TensorRT keeps its measurements; TensorRT-RTX has none.
            progress: called with the builder's phase, every few seconds.

        Raises:
            EnvironmentFault: the parser or the builder refuses the graph.
        """
        begin = time.monotonic()
        network, _parser = self.parse(graph, weights_beside)
        config = self.builder.create_builder_config()
        self._configure(config, target)
        measured = self._timing_cache(config, timing_cache)
        monitor = _make_monitor(self.trt, progress)
        config.progress_monitor = monitor
        with _no_collection():
            plan = self.builder.build_serialized_network(network, config)
        if monitor.interrupted:
            raise KeyboardInterrupt
        if plan is None:
            raise self._refused("builder", self.log.last())
        if timing_cache is not None and measured is not None:
            timing_cache.parent.mkdir(parents=True, exist_ok=True)
            timing_cache.write_bytes(memoryview(measured.serialize()))
        work = self.work(network)
        details = self.details(network, target) | {
            "build_seconds": round(time.monotonic() - begin, 2),
            "convolution_share": work.shares(),
            "warnings": len(self.log.warnings),
        }
        return Plan(bytes(memoryview(plan)), details, work, list(self.log.warnings))

    def parse(self, graph: bytes, weights_beside: Path) -> tuple[Any, Any]:
        """Parse a graph; returns the network and its parser, which owns the weights.

        What the parser warns about is in `log.warnings` afterwards.

        Raises:
            EnvironmentFault: the parser refuses the graph.
        """
        self.log.clear()
        network = self.builder.create_network(self._network_flags())
        parser = self.trt.OnnxParser(network, self.log)
        if not parser.parse(graph, str(weights_beside)):
            errors = "; ".join(str(parser.get_error(n)) for n in range(parser.num_errors))
            raise self._refused("parser", errors)
        return network, parser

    def _refused(self, who: str, why: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the {who} of {self.name} refuses the graph: {' '.join(why.split())[:400]}",
            expected="a graph that it can build",
            fix="another --precision or --gpu, or --engine onnx",
        )

    def _network_flags(self) -> int:
        # TensorRT 11 has strong typing only and may drop the word.
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def _configure(self, config: Any, target: Target) -> None:
        trt = self.trt
        # On by default, it rounds the operands of fp32 convolutions to 10 bits: fp32 is fp32.
        config.clear_flag(trt.BuilderFlag.TF32)
        if self.flavour == "trt-rtx":
            config.num_compute_capabilities = len(target.capabilities)
            for n, capability in enumerate(target.capabilities):
                member = f"SM{capability.replace('.', '')}"
                config.set_compute_capability(getattr(trt.ComputeCapability, member), n)
            return
        if "version" in target.compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        levels = {"ampere+": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}
        for word, level in levels.items():
            if word in target.compatible:
                config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)

    def _timing_cache(self, config: Any, path: Path | None) -> Any:
        # In TensorRT-RTX a timing cache does nothing but ask for a GPU.
        if path is None or self.flavour == "trt-rtx":
            return None
        known = path.read_bytes() if path.is_file() else b""
        timings = config.create_timing_cache(known)
        config.set_timing_cache(timings, ignore_mismatch=False)
        return timings

    def _layers(self, network: Any) -> list[Any]:
        return [network.get_layer(n) for n in range(network.num_layers)]

    def work(self, network: Any) -> Work:
        """MACs by the type that the typed network really gives to each layer's input."""
        trt = self.trt
        convolutions: Counter[str] = Counter()
        products: Counter[str] = Counter()
        layers = self._layers(network)
        # An int8 convolution reads what two such layers give, and the builder fuses the three.
        whole = {
            layer.get_output(0).name: layer.get_input(0)
            for layer in layers
            if layer.type == trt.LayerType.DEQUANTIZE
        }
        for layer in layers:
            kind = layer.type
            if kind == trt.LayerType.CONVOLUTION:
                layer.__class__ = trt.IConvolutionLayer
                source = layer.get_input(0)
                each = source.shape[1] // layer.num_groups * math.prod(layer.kernel_size_nd)
                macs = math.prod(layer.get_output(0).shape) * each
                if layer.num_inputs > 1 and layer.get_input(1).name in whole:
                    source = whole.get(source.name, source)
                convolutions[_type_name(source.dtype)] += macs
            elif kind == trt.LayerType.MATRIX_MULTIPLY:
                source = layer.get_input(0)
                layer.__class__ = trt.IMatrixMultiplyLayer
                axis = -2 if layer.op0 == trt.MatrixOperation.TRANSPOSE else -1
                macs = math.prod(layer.get_output(0).shape) * source.shape[axis]
                products[_type_name(source.dtype)] += macs
        return Work(dict(convolutions), dict(products))

    def details(self, network: Any, target: Target) -> dict[str, Any]:
        """What the manifest keeps about a parsed network."""

        def tensors(count: int, get: Callable[[int], Any]) -> dict[str, Any]:
            found = [get(n) for n in range(count)]
            return {t.name: {"type": _type_name(t.dtype), "shape": list(t.shape)} for t in found}

        kinds = Counter(layer.type.name.lower() for layer in self._layers(network))
        return {
            "flavour": self.flavour,
            "version": self.version,
            "capabilities": list(target.capabilities),
            "compatible": list(target.compatible),
            "cuda": cuda_of_wheel(self.flavour),
            # A TensorRT-RTX engine runs on both systems; a TensorRT plan where it was built.
            "systems": ["Linux", "Windows"] if self.flavour == "trt-rtx" else [platform.system()],
            "machine": platform.machine(),
            "inputs": tensors(network.num_inputs, network.get_input),
            "outputs": tensors(network.num_outputs, network.get_output),
            "layers": network.num_layers,
            "layer_kinds": dict(kinds.most_common()),
            "ran": False,
        }


@cache
def load_builder(flavour: Flavour) -> TrtBuilder:
    """The process's one builder of a flavour."""
    return TrtBuilder(flavour)


def cuda_of_wheel(flavour: Flavour) -> str | None:
    """CUDA's major version in the installed wheel's name, such as `13`; None if it has none."""
    base = _MODULES[flavour]
    for major in ("13", "12", "11"):
        for name in (f"{base}_cu{major}", f"{base}_cu{major}_bindings"):
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            return major
    return None


def _type_name(kind: Any) -> str:
    return _TYPES.get(kind.name, str(kind.name).lower())


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let Python's garbage collector rest.

    The builder sends some 20 lines of log for each layer; their strings would make Python search
    all of PyTorch's objects for garbage again and again, a sixth of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _make_logger(trt: Any) -> Any:
    """A logger that keeps warnings and errors; the library's own writes on stdout."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                self.warnings.append(message)
                sys.stderr.write(f"{message}\n")
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def clear(self) -> None:
            self.warnings.clear()
            self.errors.clear()

        def last(self) -> str:
            return self.errors[-1] if self.errors else "it gives no reason"

    return Logger()


def _make_monitor(trt: Any, progress: Progress, every_s: float = 2.0) -> Any:
    """A progress monitor that names the innermost phase now and then, and hears Ctrl-C."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self.steps: dict[str, int] = {}
            self.reported = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                now = time.monotonic()
                if now - self.reported >= every_s:
                    self.reported = now
                    progress(f"{phase_name}: {step + 1} of {self.steps.get(phase_name, '?')}")
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

    return Monitor()


def capabilities_word(capabilities: Sequence[str]) -> str:
    """The part of a plan's file name that names its GPUs, such as `8.0-8.6`."""
    return "-".join(capabilities)
