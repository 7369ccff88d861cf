"""Iterations per second of every model, plain and with each option; writes benchmarks/results/.

    python benchmarks/training_speed.py [--rounds 5] [--threads N] [--device cuda] [MODEL ...]

Frames are 1x64x64 in patches of 4, two layers of 32 (E3D-LSTM and those with one width: 32), five
frames in and five out, four sequences a batch. An iteration is forward, backward and one step of
AdamW. All ways of a model take turns in one process; a ratio is the median over rounds of plain
time over the way's time. Compiling is not counted, but reported separately. Run it on a machine
that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text, print_table
from stpl_train.models import MODELS, build_model
from stpl_train.trainer import channels_last
from stpl_train.unroll import TrainingPass

RESULT = Path(__file__).parent / "results" / "training-speed.json"
FRAME, CONTEXT, HORIZON, BATCH = (1, 64, 64), 5, 5, 4
KEYS: dict[str, dict[str, Any]] = {
    "convlstm": {"hidden": [32, 32]},
    "e3d-lstm": {"hidden": [32, 32]},
    "predrnn-pp": {"hidden": [32, 32]},
}
WAYS = ("plain", "channels_last", "bf16-mixed", "compile", "recompute")

_UNCOUNTED = ("compile", "recompute")
"""What these keep does not pass through autograd's hooks, or not all of it."""


@dataclass
class Contender:
    """One way to train one model."""

    unrolled: TrainingPass
    optimizer: torch.optim.Optimizer
    autocast: AbstractContextManager[object]
    seconds: list[float] = field(default_factory=list)
    first_s: float = 0.0
    kept_mb: float = 0.0
    """What is saved for the way back."""

    def iterate(self, frames: torch.Tensor, use_true: np.ndarray) -> float:
        """One iteration; seconds."""
        began = time.perf_counter()
        self.optimizer.zero_grad()
        with self.autocast:
            guesses, penalty = self.unrolled(frames, use_true)
        loss = ((guesses.float() - frames[:, 1:]) ** 2).mean() + penalty
        loss.backward()
        self.optimizer.step()
        if frames.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began


def contender(name: str, way: str, device: str) -> Contender:
    """A fresh model that trains this way."""
    torch.manual_seed(0)
    keys = KEYS.get(name, {"hidden": 32, "layers": 2})
    model = build_model(name, FRAME, {"patch": 4, **keys}).train().to(device)
    if way == "channels_last":
        channels_last(model)
    unrolled = TrainingPass(model, recompute=way == "recompute", compiled=way == "compile")
    cast: AbstractContextManager[object] = nullcontext()
    if way == "bf16-mixed":
        cast = torch.autocast(device, torch.bfloat16)
    return Contender(unrolled, torch.optim.AdamW(model.parameters()), cast)


def saved_mb(one: Contender, frames: torch.Tensor, use_true: np.ndarray) -> float:
    """Megabytes that autograd keeps between forward and backward, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), one.autocast:
        held = one.unrolled(frames, use_true)  # keeps the storages alive while they are counted
    del held
    return sum(kept.values()) / 1e6


def measure(name: str, ways: list[str], rounds: int, device: str) -> dict[str, Any]:
    """All ways of a model in turn."""
    random = np.random.default_rng(0)
    shape = (BATCH, CONTEXT + HORIZON, *FRAME)
    frames = torch.from_numpy(random.random(shape, dtype=np.float32)).to(device)
    use_true = np.zeros((BATCH, CONTEXT + HORIZON - 2), bool)
    use_true[:, : CONTEXT - 1] = True
    torch._dynamo.reset()  # its limit on recompilations is counted over all models
    every = {way: contender(name, way, device) for way in ways}
    for way, one in every.items():
        one.first_s = one.iterate(frames, use_true)
        if way not in _UNCOUNTED:
            one.kept_mb = saved_mb(one, frames, use_true)
        one.iterate(frames, use_true)
    for _ in range(rounds):
        for one in every.values():
            one.seconds.append(one.iterate(frames, use_true))
    plain = np.asarray(every["plain"].seconds)
    found: dict[str, Any] = {}
    for way, one in every.items():
        ratios = plain / np.asarray(one.seconds)
        found[way] = {
            "iterations_per_s": 1.0 / float(np.median(one.seconds)),
            "times_as_fast": float(np.median(ratios)),
            "spread": [float(ratios.min()), float(ratios.max())],
            "first_s": one.first_s,
            **({} if way in _UNCOUNTED else {"kept_mb": one.kept_mb}),
        }
    return found


def main() -> None:
    """Measure, write, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=sorted(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    ways = arguments.ways.split(",")
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    path = RESULT if device == "cpu" else RESULT.with_name("training-speed-gpu.json")
    models: dict[str, Any] = {}
    document = {
        "machine": describe(),
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "frame": FRAME,
        "context": CONTEXT,
        "horizon": HORIZON,
        "batch": BATCH,
        "rounds": arguments.rounds,
        "models": models,
    }
    for name in arguments.models:
        models[name] = measure(name, ways, arguments.rounds, arguments.device)
        print(f"{name}: {models[name]['plain']['iterations_per_s']:.2f} it/s", file=sys.stderr)
        with atomic_file(path) as file:  # each as it is done: the whole takes minutes
            file.write(document_text(document).encode())
    rows = [
        [name, f"{ways_of['plain']['iterations_per_s']:.2f}"]
        + [f"{ways_of[way]['times_as_fast']:.2f}" for way in ways[1:]]
        for name, ways_of in models.items()
    ]
    print_table(f"Training on {device}", ["model", "plain it/s", *ways[1:]], rows)


if __name__ == "__main__":
    main()
