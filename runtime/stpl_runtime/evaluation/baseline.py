"""Baselines of `evaluate` and their words. Read this file before `baselines/`.

A baseline is one module under `baselines/`: its `open_baseline` says what forecasts the sequences.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, UsageError
from stpl_runtime.evaluation.subject import Judged, Material

Forecaster = Callable[[slice], Array]
"""Which sequences -> `(n, K, C, H, W)`, physical units; NaN where there is no forecast."""

FLOW = "flow"
BASELINES = {
    "persistence": "persistence",
    FLOW: "flow",
    "day": "periodic",
    "week": "periodic",
    "pysteps-extrapolation": "pysteps_extrapolation",
    "pysteps-sprog": "pysteps_sprog",
    "pysteps-anvil": "pysteps_anvil",
    "pysteps-linda": "pysteps_linda",
    "pysteps-steps": "pysteps_steps",
}
"""Words of `--baseline`, and the module of each."""

USUAL = ("persistence", FLOW, "day", "week")
"""Those that nobody has to ask for, where the data and the machine allow."""


class Baseline(Protocol):
    """What the module of a baseline has."""

    def open_baseline(self, word: str, judged: Judged, material: Material) -> Forecaster:
        """Say what forecasts the sequences.

        Args:
            word: of `BASELINES`.
            judged: says how many frames are read and predicted, and their units.
            material: the sequences.

        Raises:
            UsageError: these data cannot have it.
            EnvironmentFault: its library is not installed.
        """
        ...


def open_baselines(
    judged: Judged, material: Material, wanted: Sequence[str] | None
) -> dict[str, Forecaster]:
    """The baselines of these words; None: the usual ones that the data and the machine allow.

    Raises:
        UsageError: an unknown word, or a baseline that these data cannot have.
        EnvironmentFault: the library of one is not installed.
    """
    for word in wanted or ():
        if word not in BASELINES:
            near = difflib.get_close_matches(word, BASELINES, n=1)
            raise UsageError(
                f"unknown baseline {word}",
                expected=f"one of {', '.join(BASELINES)}",
                fix=f"--baseline {near[0] if near else 'persistence,flow'}",
            )
    ways: dict[str, Forecaster] = {}
    for word, name in BASELINES.items():
        if word not in (USUAL if wanted is None else wanted):
            continue
        module = cast(Baseline, importlib.import_module(f"{__package__}.baselines.{name}"))
        try:
            ways[word] = module.open_baseline(word, judged, material)
        except (UsageError, EnvironmentFault):
            if wanted is not None:
                raise
    return ways
