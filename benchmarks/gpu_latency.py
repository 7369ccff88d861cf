"""Latency of one rollout at batch 1 on an NVIDIA GPU, each way beside the others, with accuracy.

    python benchmarks/gpu_latency.py [--rounds 100] [--only onnx-cuda,...] [BUNDLE | RECIPE ...]

A recipe is exported with untrained weights first (needs the extra [export]); time does not depend
on them, accuracy does: give a bundle of a trained run for that. All ways run in one process, every
round runs each of them once. What cannot run here is left out, and the reason is in the file:
benchmarks/results/gpu-<name>.json, beside the machine's description.

    eager-fp32, eager-fp16      PyTorch; fp32 without TF32
    compiled-fp32, -fp16        torch.compile of the step, mode reduce-overhead (CUDA graphs)
    graph-fp32, -fp16           the whole rollout recorded as one CUDA graph
    stepper-fp32                the TensorRT session's own buffers, order and recording on CUDA,
                                with PyTorch's kernels instead of a plan
    onnx-cuda, onnx-cuda-graph, onnx-trt, onnx-trt-rtx, trt, trt-rtx    engines of stpl-deploy

PyTorch's rows are timed by events on the device, where its frames begin and end. Engines take
and give arrays of the host; they are timed on the host, copies included (`clock` names which).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from stpl_core.bundle import WEIGHTS, Bundle, Manifest, open_bundle
from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, StplError
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text
from stpl_runtime.engine import ReportsFacts, open_session
from stpl_runtime.engines.stepper import Stepper
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_train.forecaster import rollout
from stpl_train.models import ForecasterModule, build_model

RESULTS = Path(__file__).parent / "results"
ENGINES = ("onnx", "onnx-cuda", "onnx-cuda-graph", "onnx-trt", "onnx-trt-rtx", "trt", "trt-rtx")
_WARM_UP = 5


@dataclass
class Way:
    """One way to run the rollout."""

    run: Callable[[], Any]
    """What is timed."""
    frames: Callable[[], Array]
    """Run it and give `(1, K, C, H, W)`."""
    on_device: bool
    """Whether it is timed by events on the device."""
    facts: dict[str, Any]


class Bench:
    """A bundle's model and frames on one device."""

    def __init__(self, bundle: Bundle, device: str) -> None:
        """Load the weights once; every way makes its own copy."""
        self.bundle, self.device = bundle, torch.device(device)
        self.manifest: Manifest = bundle.manifest
        self.reference: Reference = load_reference(bundle)
        self.context = np.ascontiguousarray(self.reference.context[:1])  # (1, T, C, H, W)

    def ways(self) -> dict[str, Callable[[], Way]]:
        """Name -> makes it ready, or raises."""
        made: dict[str, Callable[[], Way]] = {}
        for name, kind in (("fp32", torch.float32), ("fp16", torch.float16)):
            made[f"eager-{name}"] = partial(self._eager, kind)
            made[f"compiled-{name}"] = partial(self._compiled, kind)
            made[f"graph-{name}"] = partial(self._graph, kind)
        made["stepper-fp32"] = self._stepper
        for engine in ENGINES:
            made[engine] = partial(self._engine, engine)
        return made

    def _model(self, kind: torch.dtype) -> ForecasterModule:
        info = self.manifest.model
        model = build_model(info.name, self.manifest.frame, info.keys).eval()
        tensors = safetensors.torch.load_file(self.bundle.file(WEIGHTS))
        model.load_state_dict({name: tensors[name] for name in model.state_dict()})
        return model.to(self.device, kind)

    def _frames(self, kind: torch.dtype) -> Tensor:
        return torch.from_numpy(self.context).to(self.device, kind)

    def _needs_cuda(self) -> None:
        if self.device.type != "cuda":
            raise EnvironmentFault("needs CUDA")

    def _eager(self, kind: torch.dtype) -> Way:
        return self._torch(self._model(kind), self._frames(kind))

    def _torch(self, model: ForecasterModule, frames: Tensor) -> Way:
        @torch.inference_mode()
        def run() -> Tensor:
            return rollout(model, frames, self.manifest.horizon)

        return Way(run, lambda: run().float().cpu().numpy(), True, {})

    def _compiled(self, kind: torch.dtype) -> Way:
        self._needs_cuda()
        model, frames = self._model(kind), self._frames(kind)
        step = torch.compile(model.step, mode="reduce-overhead", dynamic=False)
        model.step = step  # type: ignore[method-assign]

        @torch.inference_mode()
        def run() -> Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return rollout(model, frames, self.manifest.horizon)

        return Way(run, lambda: run().float().cpu().numpy(), True, {})

    @torch.inference_mode()
    def _graph(self, kind: torch.dtype) -> Way:
        self._needs_cuda()
        model, frames = self._model(kind), self._frames(kind)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):  # libraries allocate on their first runs, never in a record
            for _ in range(3):
                rollout(model, frames, self.manifest.horizon)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = rollout(model, frames, self.manifest.horizon)

        def fetch() -> Array:
            graph.replay()
            return np.asarray(result.float().cpu().numpy())

        return Way(graph.replay, fetch, True, {})

    def _stepper(self) -> Way:
        self._needs_cuda()
        from stpl_runtime.engines.cuda import CudaDevice

        device = CudaDevice("trt")
        model = self._model(torch.float32)
        make = lambda: TorchExecutor(model, self.manifest, device.stream)  # noqa: E731
        stepper = Stepper(device, make, self.manifest, 1)
        facts = {"recorded as CUDA graphs": stepper.recorded}
        # From the host and back: the same frames as an engine's.
        run = lambda: stepper.rollout(self.context)  # noqa: E731
        return Way(run, run, False, facts)

    def _engine(self, engine: str) -> Way:
        session = open_session(self.bundle, ("step", "forecast", "rollout"), engine=engine)
        session.rollout(self.context)
        facts: dict[str, Any] = {"provider": session.provider}
        facts |= session.facts() if isinstance(session, ReportsFacts) else {}
        run = lambda: session.rollout(self.context)  # noqa: E731
        return Way(run, run, False, facts)

    def timed(self, way: Way) -> float:
        """Milliseconds of one run, by the way's own clock."""
        if way.on_device and self.device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            way.run()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end))
        at = time.perf_counter()
        way.run()
        return 1e3 * (time.perf_counter() - at)

    def accuracy(self, frames: Array) -> dict[str, float | None]:
        """Against PyTorch's float64: greatest error, and PSNR at the last lead time."""
        kept = self.reference.kept(frames).astype(np.float64)
        gap = kept - self.reference.float64[:1]  # (1, K, C, H, W)
        squared = float(np.mean(np.square(gap[:, -1])))
        return {
            "max_error": float(np.abs(gap).max()),
            "psnr_db_at_last_lead": -10 * float(np.log10(squared)) if squared > 0 else None,
        }


class TorchExecutor:
    """The model's step on the addresses that a stepper binds, as a plan would run it."""

    def __init__(self, model: ForecasterModule, manifest: Manifest, stream: int) -> None:
        """Take the device's stream; memory between kernels comes from a pool of its own."""
        self.model, self.manifest = model, manifest
        self.stream = torch.cuda.ExternalStream(stream)
        self.pool = torch.cuda.MemPool()
        self.shapes: dict[str, tuple[int, ...]]
        self.shapes = dict.fromkeys(self._ends(), (1, *manifest.frame))
        for part in manifest.state:
            names = [name for name in (part.input, part.output) if name is not None]
            self.shapes |= dict.fromkeys(names, (1, *part.shape))
        self.tensors: dict[str, Tensor] = {}

    def _ends(self) -> tuple[str, str]:
        graph = self.manifest.graphs["step"]
        return graph.inputs[0], graph.outputs[0]

    def bind(self, name: str, address: int) -> None:
        """See `stpl_runtime.engines.stepper.Executor`."""
        shape = self.shapes[name]

        class There:
            __cuda_array_interface__ = {  # noqa: RUF012 (the protocol's own form)
                "shape": shape, "typestr": "<f4", "data": (address, False), "version": 3,
            }  # fmt: skip

        self.tensors[name] = torch.as_tensor(There(), device="cuda")

    @torch.inference_mode()
    def enqueue(self) -> None:
        """See `stpl_runtime.engines.stepper.Executor`."""
        frame, guess = self._ends()
        with torch.cuda.stream(self.stream), torch.cuda.use_mem_pool(self.pool):
            state = {
                part.name: self.tensors[part.input]
                for part in self.manifest.state
                if part.input is not None
            }
            result, after = self.model.step(self.tensors[frame], state)
            self.tensors[guess].copy_(result)
            for part in self.manifest.state:
                self.tensors[part.output].copy_(after[part.name])

    def capturable(self) -> bool:
        """See `stpl_runtime.engines.stepper.Executor`."""
        return True


def measure(bundle: Bundle, device: str, rounds: int, only: set[str]) -> dict[str, Any]:
    """Every way that runs here, in turn."""
    bench = Bench(bundle, device)
    ways: dict[str, Way] = {}
    rows: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name, make in bench.ways().items():
        if only and name not in only:
            continue
        try:
            way = make()
            for _ in range(_WARM_UP):
                way.run()
            rows[name] = bench.accuracy(way.frames()) | way.facts
            ways[name] = way
        except Exception as error:  # any library's own; the reason is the result
            reason = (
                error.found if isinstance(error, StplError) else f"{type(error).__name__}: {error}"
            )
            skipped[name] = " ".join(reason.split())[:300]
            sys.stderr.write(f"{name}: {skipped[name]}\n")
    times: dict[str, list[float]] = {name: [] for name in ways}
    order, shuffle = list(ways), random.Random(0)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            times[name].append(bench.timed(ways[name]))
    for name, found in times.items():
        median, p95 = (round(float(v), 4) for v in np.percentile(found, (50, 95)))
        by_events = ways[name].on_device and bench.device.type == "cuda"
        rows[name] |= {
            "median_ms": median,
            "p95_ms": p95,
            "clock": "device events" if by_events else "host, frames from and to it",
        }
    manifest = bundle.manifest
    return {
        "model": f"{manifest.model.name}, {manifest.model.parameters:,} parameters",
        "what": f"one rollout, {manifest.context} in, {manifest.horizon} out, "
        f"{'x'.join(map(str, manifest.frame))}, batch 1",
        "precision_of_bundle": manifest.precision,
        "rounds": rounds,
        "rows": rows,
        "not_measured": skipped,
        "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "machine": describe(),
    }


def main() -> None:
    """Measure each bundle or recipe and write its file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["modernn-mmnist", "convlstm-mmnist"])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", default="", help="ways to measure, with commas")
    parser.add_argument("--device", default="cuda", help="cpu tries the script where no GPU is")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device that PyTorch can use: nothing measured, nothing written")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    only = {word for word in arguments.only.split(",") if word}
    for name in arguments.what:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(name)
            bundle = open_bundle(path) if path.is_dir() else untrained(name, Path(folder))
            document = measure(bundle, arguments.device, arguments.rounds, only)
        out = arguments.out / f"{'gpu' if arguments.device == 'cuda' else 'cpu'}-{path.name}.json"
        with atomic_file(out) as file:
            file.write(document_text(document).encode())
        for row, found in document["rows"].items():
            error = found["max_error"]
            sys.stdout.write(
                f"{path.name:18} {row:16} {found['median_ms']:9.3f} ms  p95 {found['p95_ms']:9.3f}"
                f"  max error {error:.1e}\n"
            )


def untrained(recipe: str, folder: Path) -> Bundle:
    """Export a recipe with fresh weights."""
    from arrival_to_nowcast import untrained_run  # type: ignore[import-not-found]  # lies beside

    from stpl_export.export import export_run

    return export_run(untrained_run(folder / "run", recipe), folder / recipe, sequences=2)


if __name__ == "__main__":
    main()
