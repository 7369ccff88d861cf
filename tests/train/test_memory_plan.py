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
from stpl_core.host.memory import WORTH_A_LINE
from stpl_train.losses import sequence_loss
from stpl_train.models import build_model
from stpl_train.planning.live_bytes import LiveBytes, step_bytes
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

SMALL = {
    "convlstm": ("model.hidden=[16, 16]",),
    "modernn": ("model.hidden=16", "model.layers=2"),
    "predrnn-v2": ("model.hidden=16", "model.layers=2"),
    "e3d-lstm": ("model.hidden=[8, 8]",),
    "sa-convlstm": ("model.hidden=16", "model.layers=2"),
}


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
    assert (live.peak, live.now) == (8000, 4000)
    assert view.shape == (10,)


@pytest.mark.parametrize("model", ["convlstm", "modernn", "e3d-lstm"])
def test_a_step_without_values_counts_as_one_with_them(model: str) -> None:
    keys = load_recipe("modernn-mini", SMALL[model], model=model).model.keys
    real = build_model(model, (1, 32, 32), keys)
    assert step_bytes(real.to("meta")) == step_bytes(build_model(model, (1, 32, 32), keys))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("model", SMALL)
def test_the_plan_is_what_a_whole_pass_keeps(model: str, recompute: bool) -> None:
    """Beside every tensor of a real pass forward and back, which the plan never runs."""
    lean = f"training.recompute={str(recompute).lower()}"
    settings = ("data.context=3", "data.horizon=3", lean, *SMALL[model])
    made = load_recipe("modernn-mini", settings, model=model)
    planned = TrainingMemory(made, (1, 32, 32), validation=1)
    cpu = build_model(made.model.name, (1, 32, 32), made.model.keys)
    frames = torch.zeros(2, 6, 1, 32, 32)  # (B, T + K, C, H, W)
    with LiveBytes() as live:
        guesses, penalty = TrainingPass(cpu, recompute=recompute)(frames, np.ones((2, 4), np.bool_))
        loss = sequence_loss(made.training.loss, guesses, frames, skip_first=True)
        (loss + penalty).backward()
    assert 0.95 < planned.both_ways(2) / live.peak < 1.6


def test_lead_times_are_counted_by_a_real_forecast() -> None:
    settings = ("data.context=4", "data.horizon=4", "data.frame=[1, 32, 32]")
    made = load_recipe("advect-mmnist", settings)
    planned = TrainingMemory(made, (1, 32, 32), validation=1)
    assert planned.both_ways(2) - planned.both_ways(1) > 2 * planned.step.kept
    assert "batches of" in plan_memory(made, 1, "cpu", 1) or planned.bytes(8) < WORTH_A_LINE


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
    words += ["--set", "data.context=2", "--set", "data.horizon=2"]
    asked = [*words, "--set", "training.batch=1024"]
    refused = limited(900, *asked)
    assert refused.returncode == 4, refused.stderr
    assert "Traceback" not in refused.stderr
    error = refused.stderr.strip().splitlines()[-1]
    found = re.search(r"needs about .* are left; try: (--set training\.batch=\d+)$", error)
    assert found is not None, error
    assert not (tmp_path / "run").exists()
    done = limited(900, *words, *found[1].split())
    assert done.returncode == 0, done.stderr
