"""Make a run small enough to ship: half-precision weights, a few sequences, names for paths.

    python benchmarks/keep_pretrained.py RUN NAME --attribution "whose data, and their licence"

Writes train/stpl_train/pretrained/NAME, and prints what the half precision costs. Only for data
whose licence allows it: the sequences are part of that data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from stpl_core.files import atomic_directory, atomic_file
from stpl_core.metrics import mse_per_frame
from stpl_train import pretrained
from stpl_train.recipe import ArchiveSection, Recipe
from stpl_train.run import METRICS, RECIPE, VALIDATION, WEIGHTS, Run, open_run, save_recipe
from stpl_train.validation import forecasts

HOME = Path(pretrained.__file__).parent
ATTRIBUTION = "ATTRIBUTION.md"


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe with the last names of its data's paths."""
    data = recipe.data
    if not isinstance(data, ArchiveSection):
        return recipe
    names = tuple(Path(path.name) for path in data.paths)
    update = {"path": names[0] if len(names) == 1 else names}
    return recipe.model_copy(update={"data": data.model_copy(update=update)})


def keep(run: Run, folder: Path, sequences: int, attribution: str) -> None:
    """Write the small run."""
    state = safetensors.torch.load_file(run.file(WEIGHTS))
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in state.items()}
    with np.load(run.file(VALIDATION), allow_pickle=False) as archive:
        kept: dict[str, Any] = dict(archive)
    rows = np.linspace(0, len(kept["frames"]) - 1, sequences).round().astype(int)
    kept = {name: values[rows] for name, values in kept.items()}
    kept["frames"] = kept["frames"].astype(np.float16)
    with atomic_directory(folder) as partial:
        save_recipe(partial, without_paths(run.recipe))
        with atomic_file(partial / WEIGHTS) as file:
            file.write(safetensors.torch.save(half))
        with atomic_file(partial / VALIDATION) as file:
            np.savez_compressed(file, **kept)
        with atomic_file(partial / METRICS) as file:
            file.write(run.file(METRICS).read_bytes())
        with atomic_file(partial / ATTRIBUTION) as file:
            file.write(f"# {folder.name}\n\n{attribution}\n".encode())


def error(run: Run, sequences: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Mean MSE per frame."""
    context = run.recipe.data.context
    made = forecasts(run.model(), sequences, context, 4)
    return float(mse_per_frame(made, sequences[:, context:]).mean())


def main() -> None:
    """Write it and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--attribution", required=True)
    parser.add_argument(
        "--sequences", type=int, default=4, help="what demo --radar joins is 4 of 12"
    )
    arguments = parser.parse_args()
    run, folder = open_run(arguments.run), HOME / arguments.name
    keep(run, folder, arguments.sequences, arguments.attribution)
    sequences = run.validation()
    errors = [error(one, sequences) for one in (run, open_run(folder))]
    size = sum(path.stat().st_size for path in folder.iterdir())
    sys.stdout.write(
        f"{folder / RECIPE}: {size / 1e6:.2f} MB; validation MSE {errors[0]:.4f} in float32, "
        f"{errors[1]:.4f} in half precision\n"
    )


if __name__ == "__main__":
    main()
