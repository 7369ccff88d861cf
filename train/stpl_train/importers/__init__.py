"""Weights from other projects' training scripts, one module per project.

Each importer gets the bare upstream state dict, infers the configuration from tensor names and
shapes, and returns our model's word, its recipe keys and its state dict. Container formats (a
`.pth.tar`, a Lightning checkpoint) are read elsewhere; here there are only named tensors.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor

from stpl_core.errors import UsageError
from stpl_train.importers.common import Hints, Imported

IMPORTERS: dict[str, str] = {
    "modernn": "stpl_train.importers.modernn",
    "cms-lstm": "stpl_train.importers.cms_lstm",
    "predrnn": "stpl_train.importers.predrnn",
    "openstl": "stpl_train.importers.openstl",
    "sa-convlstm": "stpl_train.importers.sa_convlstm",
}
"""The word after `--from` -> the module whose `convert` does the work."""

__all__ = ["IMPORTERS", "Hints", "Imported", "convert"]


def convert(project: str, tensors: Mapping[str, Tensor], hints: Hints | None = None) -> Imported:
    """Turn the state dict of `project` into one of ours.

    Args:
        project: a word of `IMPORTERS`.
        tensors: the upstream state dict, names as its own code gives them (a Lightning prefix
            already removed).
        hints: what cannot be read from the tensors, such as the frame size.

    Raises:
        UsageError: an unknown project.
        CheckpointError: a tensor is missing, unknown or of a shape that does not fit.
    """
    if project not in IMPORTERS:
        near = difflib.get_close_matches(project, IMPORTERS, n=1)
        raise UsageError(
            f"--from {project} is not a known project",
            expected=f"one of {', '.join(IMPORTERS)}",
            fix=f"--from {near[0]}" if near else "--from openstl",
        )
    module = importlib.import_module(IMPORTERS[project])
    run = cast("Callable[[Mapping[str, Tensor], Hints], Imported]", module.convert)
    return run(tensors, hints or Hints())
