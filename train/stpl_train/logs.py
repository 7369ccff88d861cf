"""What training leaves to read: metrics.csv and TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from stpl_core.files import atomic_file
from stpl_train.checkpoint import ValidationRow


def save_metrics(path: Path, rows: Sequence[ValidationRow]) -> None:
    """Write all rows anew: a resumed run has every line once, whenever it was killed.

    Columns: iteration, loss, lr, mse and persistence (means over the lead times), then both for
    each lead time. Numbers have all their digits.
    """
    leads = range(1, len(rows[0].mse) + 1)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["iteration", "loss", "lr", "mse", "persistence"]
        + [f"mse_{k}" for k in leads]
        + [f"persistence_{k}" for k in leads]
    )
    for row in rows:
        means = [row.mean_mse, row.mean_persistence]
        writer.writerow([row.iteration, row.loss, row.lr, *means, *row.mse, *row.persistence])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


class Scalars(Protocol):
    """Takes curves."""

    def loss(self, iteration: int, value: float) -> None:
        """The training loss of one optimiser step."""
        ...

    def row(self, row: ValidationRow) -> None:
        """One validation."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class NoScalars:
    """Takes curves and drops them."""

    def loss(self, iteration: int, value: float) -> None:
        """Nothing."""

    def row(self, row: ValidationRow) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class _TensorBoard:
    def __init__(self, directory: Path, iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Curves of a killed run that lie beyond the resumed iteration are dropped by the reader.
        self._writer = SummaryWriter(str(directory), purge_step=iteration + 1)
        self._hook = threading.excepthook
        threading.excepthook = self._unless_told_again

    def _unless_told_again(self, failed: threading.ExceptHookArgs) -> None:
        """Leave out the traceback of TensorBoard's thread: the next call raises its error again."""
        its_own = type(failed.thread).__module__.startswith("tensorboard")
        if not (its_own and isinstance(failed.exc_value, OSError)):
            self._hook(failed)

    def loss(self, iteration: int, value: float) -> None:
        self._writer.add_scalar("training/loss", value, iteration)

    def row(self, row: ValidationRow) -> None:
        scalars = {
            "training/lr": row.lr,
            "validation/mse_per_frame": row.mean_mse,
            "validation/over_persistence": row.mean_mse / max(row.mean_persistence, 1e-12),
        }
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, row.iteration)

    def close(self) -> None:
        threading.excepthook = self._hook
        self._writer.close()


def open_scalars(directory: Path, iteration: int) -> Scalars:
    """TensorBoard's event files in `directory`, or nothing where it is not installed.

    Args:
        directory: made where missing.
        iteration: iterations done so far.
    """
    try:
        return _TensorBoard(directory, iteration)
    except ImportError:
        return NoScalars()
