"""training.safetensors: all that `--resume` needs, in one file that is whole or not replaced.

Tensors `model/<name>` and `optimizer/<parameter>/<moment>`; the rest is JSON in the metadata.
Random numbers need no state (see `randomness`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from stpl_core.errors import DivergedError, RunError
from stpl_core.files import atomic_file

_KEY = "stpl_training"
_MODEL, _OPTIMIZER = "model/", "optimizer/"


@dataclass(frozen=True)
class ValidationRow:
    """What one validation found; errors are sums over C, H, W, averaged over sequences.

    Pixels that were not observed at a lead time do not count there.
    """

    iteration: int
    loss: float
    """Mean training loss per optimiser step since the row before."""
    lr: float
    mse: tuple[float, ...]
    """(K,), predictions clipped to [0, 1]."""
    persistence: tuple[float, ...]
    """(K,), of repeating the last frame."""

    @property
    def mean_mse(self) -> float:
        """Mean over the lead times: the papers' "MSE / frame"."""
        return sum(self.mse) / len(self.mse)

    @property
    def mean_persistence(self) -> float:
        """The same of persistence."""
        return sum(self.persistence) / len(self.persistence)


@dataclass
class Progress:
    """Where training stands."""

    iteration: int = 0
    """Iterations done."""
    loss_sum: float = 0.0
    """Of the optimiser steps since the last validation."""
    loss_steps: int = 0
    rows: list[ValidationRow] = field(default_factory=list)
    precision: dict[str, Any] = field(default_factory=dict)
    """State of the gradient scaler, at `16-mixed`."""

    def owes_validation(self, every: int, total: int) -> bool:
        """Whether a validation was due after the last iteration and was left off."""
        due = self.iteration == total or (self.iteration > 0 and self.iteration % every == 0)
        return due and not (self.rows and self.rows[-1].iteration == self.iteration)

    @property
    def best(self) -> ValidationRow | None:
        """The row of the least mean MSE, the first of equals; weights.safetensors holds it."""
        return min(self.rows, key=lambda row: row.mean_mse, default=None)


@dataclass(frozen=True)
class TrainingState:
    """What was read back."""

    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    """Parameter name -> the optimiser's tensors; empty before the first step."""
    progress: Progress


def plain_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict as contiguous copies on the CPU.

    Raises:
        DivergedError: a value is not finite.
    """
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise DivergedError(
                f"weight {name} has NaN or infinity",
                expected="finite weights",
                fix="a lower training.lr, such as --set training.lr=0.001, with another --out",
            )
    return tensors


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights atomically."""
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(dict(weights)))


def save_training(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None, progress: Progress
) -> None:
    """Write everything atomically; an older file stays where anything fails.

    Raises:
        DivergedError: a weight is not finite.
    """
    tensors = {_MODEL + name: value for name, value in plain_weights(model).items()}
    if optimizer is not None:
        for name, moments in _moments(model, optimizer):
            for key, value in moments.items():
                copied = value.detach().to("cpu", copy=True)
                tensors[f"{_OPTIMIZER}{name}/{key}"] = copied.contiguous()
    document = json.dumps(asdict(progress), allow_nan=False)
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(tensors, metadata={_KEY: document}))


def _moments(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for name, parameter in model.named_parameters():
        if parameter in optimizer.state:
            yield name, optimizer.state[parameter]


def load_training(path: Path) -> TrainingState:
    """Read what `save_training` wrote.

    Raises:
        RunError: the file is missing or broken.
    """
    weights: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})[_KEY])
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                if key.startswith(_MODEL):
                    weights[key.removeprefix(_MODEL)] = file.get_tensor(key)
                else:
                    name, _, moment = key.removeprefix(_OPTIMIZER).rpartition("/")
                    moments.setdefault(name, {})[moment] = file.get_tensor(key)
        rows = [_row(row) for row in document.pop("rows")]
        progress = Progress(**document, rows=rows)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read: {error}",
            expected="the state that training leaves behind",
            fix=f"train again with another --out than {path.parent}",
        ) from error
    return TrainingState(weights, moments, progress)


def _row(document: dict[str, Any]) -> ValidationRow:
    document["mse"], document["persistence"] = map(
        tuple, (document["mse"], document["persistence"])
    )
    return ValidationRow(**document)


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, dict[str, Tensor]]
) -> None:
    """Give the optimiser its moments back, on the parameters' device."""
    document = optimizer.state_dict()
    names = [name for name, _ in model.named_parameters()]
    document["state"] = {n: moments[name] for n, name in enumerate(names) if name in moments}
    optimizer.load_state_dict(document)
