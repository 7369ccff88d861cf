"""Training's memory is counted before it starts, and what cannot fit is refused with what does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stpl_core.errors import EnvironmentFault
from stpl_train.losses import sequence_loss
from stpl_train.models import build_model
from stpl_train.planning.live_bytes import LiveBytes
from stpl_train.planning.training_memory import TrainingMemory, plan_memory
from stpl_train.recipe import Recipe, load_recipe
from stpl_train.unroll import TrainingPass

MIB = 2**20
LIMITED = """
import re, resource, sys
import stpl_train.training
from stpl_deploy.cli import run
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(run(sys.argv[2:]))
"""
"""A verb under an address space of so many MiB more than its libraries take."""


def limited(mib: int, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(mib), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def recipe(*settings: str) -> Recipe:
    return load_recipe("modernn-mini", settings)


def test_live_bytes_are_those_that_overlap() -> None:
    with LiveBytes() as live, torch.device("meta"):
        first = torch.zeros(1000)
        second = first + 1  # 8 kB live together
        del first
        third = second * 2
        view = third[:10]
        del second
    assert live.peak == 8000
    assert view.shape == (10,)


@pytest.mark.parametrize("model", ["convlstm", "modernn", "e3d-lstm"])
def test_the_meta_device_counts_what_the_cpu_runs(model: str) -> None:
    """The same pass on tensors with values makes the same tensors."""
    small = ("data.context=2", "data.horizon=2")
    made = recipe(*small) if model == "modernn" else load_recipe("modernn-mini", small, model=model)
    planned = TrainingMemory(made, (1, 32, 32), validation=1)
    cpu = build_model(made.model.name, (1, 32, 32), made.model.keys)
    frames = torch.zeros(2, 4, 1, 32, 32)
    live = LiveBytes()
    with live:
        frames = frames.flip(1)
        guesses, penalty = TrainingPass(cpu)(frames, np.ones((2, 2), np.bool_))
        loss = sequence_loss(made.training.loss, guesses, frames, skip_first=True)
        (loss + penalty).backward()
    assert planned.training_peak(2) == pytest.approx(live.peak, rel=0.02)


def test_recompute_needs_less_and_twice_the_batch_twice_as_much() -> None:
    plain = TrainingMemory(recipe(), (1, 32, 32), 1)
    lean = TrainingMemory(recipe("training.recompute=true"), (1, 32, 32), 1)
    assert lean.training_peak(8) < plain.training_peak(8) / 3
    assert plain.training_peak(16) / plain.training_peak(8) == pytest.approx(2, rel=0.05)


def test_the_line_and_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("training.batch=256")
    line = plan_memory(made, 4, "cpu", 1)
    assert re.fullmatch(r"memory: about .* of .* for training on batches of 256 sequences .*", line)
    monkeypatch.setattr("stpl_core.host.memory.memory_room_bytes", lambda: 300 * MIB)
    with pytest.raises(EnvironmentFault, match=r"try: --set training.batch=(\d+)$") as found:
        plan_memory(made, 4, "cpu", 1)
    size = int(found.value.fix.rpartition("=")[2])
    assert 1 < size < 256
    plan_memory(recipe(f"training.batch={size}"), 4, "cpu", 1)
    with pytest.raises(EnvironmentFault, match="ulimit"):  # a batch that is resumed stays
        plan_memory(made, 4, "cpu", 1, resumed=True)
    assert plan_memory(recipe("training.batch=256", "training.compile=true"), 4, "cpu", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
def test_what_cannot_fit_is_refused_and_the_setting_runs(tmp_path: Path) -> None:
    words = ["train", "modernn-mini", "--out", tmp_path / "run", "--device", "cpu"]
    words += ["--set", "training.iterations=1", "--set", "data.validation_sequences=2"]
    asked = [*words, "--set", "training.batch=256"]
    refused = limited(900, *asked)
    assert refused.returncode == 4, refused.stderr
    assert "Traceback" not in refused.stderr
    error = refused.stderr.strip().splitlines()[-1]
    found = re.search(r"needs about .* are left; try: (--set training\.batch=\d+)$", error)
    assert found is not None, error
    assert not (tmp_path / "run").exists()
    done = limited(900, *words, *found[1].split())
    assert done.returncode == 0, done.stderr
