"""TensorRT and TensorRT-RTX behind one code path: ONNX graph in, raw plan out.

Both flavours have the same Python API. What differs: TensorRT-RTX builds for a list of compute
capabilities on a machine without a GPU; TensorRT builds for the GPU at hand and keeps a timing
cache. Everything is strongly typed: the plan computes in the types that the graph states.

Polygraphy's loaders parse, configure and build, as `polygraphy convert` does. Ours are the log, the
progress and Ctrl-C, the share of work in each type, and which GPUs can share a plan.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import platform
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from stpl_core.errors import EnvironmentFault, MissingExtraError
from stpl_export.builders.watched import (
    Progress,
    graph_file,
    make_logger,
    make_monitor,
    no_collection,
)
from stpl_export.polygraphy.library import quiet, use_tensorrt
from stpl_export.precision.macs import Work

Flavour = Literal["trt", "trt-rtx"]

_MODULES: dict[Flavour, str] = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}
_LONG_NAMES: dict[Flavour, str] = {"trt": "TensorRT", "trt-rtx": "TensorRT-RTX"}
_TYPES = {"HALF": "fp16", "BF16": "bf16", "FLOAT": "fp32", "INT8": "int8"}
_LEVELS = {"ampere+": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}
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
        use_tensorrt(self.rtx)
        from polygraphy.backend.trt import util

        # The library takes one logger in a process, and Polygraphy's prints.
        util.TRT_LOGGER = self.log = make_logger(self.trt)
        self.builder = self.trt.Builder(self.log)
        if not self.builder:
            raise EnvironmentFault(
                f"TensorRT {self.version} cannot make a builder: {self.log.last()}",
                expected="an NVIDIA GPU and its driver on this machine",
                fix="--engine trt-rtx builds without a GPU",
            )

    @property
    def rtx(self) -> bool:
        """Whether it is TensorRT-RTX."""
        return self.flavour == "trt-rtx"

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
            weights_beside: a file beside its external data; where none is there, the graph holds
                its weights itself.
            target: what the plan is for.
            timing_cache: where TensorRT keeps its measurements; TensorRT-RTX has none.
            progress: called with the builder's phase, every few seconds.

        Raises:
            EnvironmentFault: the parser or the builder refuses the graph.
        """
        from polygraphy.backend.trt import EngineBytesFromNetwork
        from polygraphy.exception import PolygraphyException

        begin = time.monotonic()
        network, (builder, parser) = self.parse(graph, weights_beside)
        monitor = make_monitor(self.trt, progress)
        timings = str(timing_cache) if timing_cache is not None and not self.rtx else None
        if timing_cache is not None:
            timing_cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            with no_collection(), quiet():
                plan = EngineBytesFromNetwork(
                    (builder, network, parser),
                    config=self.config(target, timings=timings, monitor=monitor),
                    save_timing_cache=timings,
                )()
        except PolygraphyException as error:
            if monitor.interrupted:
                raise KeyboardInterrupt from None
            raise self._refused("builder", self.log.last()) from error
        work = self.work(network)
        details = self.details(network, target) | {
            "build_seconds": round(time.monotonic() - begin, 2),
            "convolution_share": work.shares(),
            "warnings": len(self.log.warnings),
        }
        return Plan(bytes(memoryview(plan)), details, work, list(self.log.warnings))

    def parse(self, graph: bytes, weights_beside: Path) -> tuple[Any, Any]:
        """Parse a graph; returns the network, and its builder and parser, which own it.

        What the parser warns about is in `log.warnings` afterwards.

        Raises:
            EnvironmentFault: the parser refuses the graph.
        """
        from polygraphy.backend.trt import NetworkFromOnnxBytes, NetworkFromOnnxPath
        from polygraphy.exception import PolygraphyException

        self.log.clear()
        try:
            with quiet(), graph_file(graph, weights_beside) as path:
                source = NetworkFromOnnxBytes if path is None else NetworkFromOnnxPath
                given = graph if path is None else str(path)
                builder, network, parser = source(given, strongly_typed=self._strongly_typed())()
        except PolygraphyException as error:
            raise self._refused("parser", "; ".join(self.log.errors) or str(error)) from error
        return network, (builder, parser)

    def _refused(self, who: str, why: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the {who} of {self.name} refuses the graph: {' '.join(why.split())[:400]}",
            expected="a graph that it can build",
            fix="another --precision or --gpu, or --engine onnx",
        )

    def _strongly_typed(self) -> bool:
        # TensorRT 11 has strong typing only and may drop the word.
        return hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    def config(
        self, target: Target, *, timings: str | None = None, monitor: Any = None
    ) -> Callable[[Any, Any], Any]:
        """Polygraphy's configuration of a build, with TF32 off: a function of builder and network.

        Args:
            target: what the plan is for.
            timings: the file of TensorRT's timing cache; TensorRT-RTX's does nothing but ask for a
                GPU.
            monitor: an `IProgressMonitor`.
        """
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
        from polygraphy.backend.trt import CreateConfig

        trt = self.trt
        make: Callable[[Any, Any], Any]
        if self.rtx:
            gpus = [tuple(map(int, word.split("."))) for word in target.capabilities]
            make = CreateConfigRTX(compute_capabilities=gpus, progress_monitor=monitor)
        else:
            level = next((_LEVELS[word] for word in target.compatible if word in _LEVELS), None)
            make = CreateConfig(
                version_compatible="version" in target.compatible,
                hardware_compatibility_level=level
                and getattr(trt.HardwareCompatibilityLevel, level),
                load_timing_cache=timings,
                progress_monitor=monitor,
            )

        def without_tf32(builder: Any, network: Any) -> Any:
            with warnings.catch_warnings():
                # It gives TensorRT-RTX an empty timing cache, which that deprecates and ignores.
                warnings.simplefilter("ignore", DeprecationWarning)
                made = make(builder, network)
            # On by default, it rounds the operands of fp32 convolutions to 10 bits: fp32 is fp32.
            made.clear_flag(trt.BuilderFlag.TF32)
            return made

        return without_tf32

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


def capabilities_word(capabilities: Sequence[str]) -> str:
    """The part of a plan's file name that names its GPUs, such as `8.0-8.6`."""
    return "-".join(capabilities)
