"""Results that another machine kept: Polygraphy's RunResults in JSON, of the same bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.errors import UsageError
from stpl_core.safety.printable import printable
from stpl_export.polygraphy.library import PYTORCH
from stpl_export.polygraphy.runners import split_name
from stpl_runtime.proof.reference import Reference

_AGAIN = "verify BUNDLE --against ENGINES --results FILE on the other machine"


def load_results(path: Path, reference: Reference) -> Any:
    """Read RunResults that `compare_engines` kept.

    Raises:
        UsageError: no such file, damaged, or of another bundle.
    """
    from polygraphy.comparator import RunResults

    if not path.is_file():
        raise UsageError(f"{path}: no such file", expected="an engine or a file", fix=_AGAIN)
    try:
        runs: Any = RunResults.load(str(path))
        found = {name: list(iterations) for name, iterations in runs.items()}
        _check_outputs(found, reference)
    except Exception as error:  # what a parser meets in damaged bytes has no common base
        reason = printable(f"{type(error).__name__}: {error}")
        raise UsageError(
            f"{path} cannot be read: {reason}", expected="results that --results kept", fix=_AGAIN
        ) from error
    for result in found[PYTORCH]:
        exact = np.stack([result[f"lead {k + 1}"] for k in range(reference.float64.shape[1])], 1)
        if not np.array_equal(exact, reference.float64[: len(exact)]):
            raise UsageError(
                f"{path} is of another bundle: PyTorch's results in it differ",
                expected="results of this bundle",
                fix=_AGAIN,
            )
    return runs


def _check_outputs(found: dict[str, list[Any]], reference: Reference) -> None:
    """Hold every runner's outputs against what the bundle has; ValueError where one lacks."""
    if PYTORCH not in found or not found[PYTORCH]:
        raise ValueError(f"no results of {PYTORCH}")
    leads = [f"lead {k + 1}" for k in range(reference.float64.shape[1])]
    states = [f"state {name}" for name in reference.states]
    for name, iterations in found.items():
        graph = split_name(name)[1]
        wanted = leads + (states if graph == "forecast" else [])
        for result in iterations:
            for output in wanted:
                if output not in result:
                    raise ValueError(f"{name} has no {output}")
                if not np.issubdtype(result[output].dtype, np.floating):
                    raise ValueError(f"{output} of {name} is {result[output].dtype}")
            if not 1 <= len(result[leads[0]]) <= len(reference.context):
                raise ValueError(f"{name} has {len(result[leads[0]])} sequences")


def same_batch(ours: Sequence[Any], theirs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs of results of as many sequences."""
    for one in ours:
        for other in theirs:
            if len(one["lead 1"]) == len(other["lead 1"]):
                yield one, other
