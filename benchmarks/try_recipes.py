"""Every shipped recipe once: resolve, train, evaluate, export, verify; writes JSON.

    python benchmarks/try_recipes.py [--iterations 20] [RECIPE ...]

Frames, lengths, patches, losses and sampling are the recipe's own, and so is the source where it
makes its frames itself. Moving digits in the recipe's units replace other data, and layers are
narrow, so that all of them take minutes on a laptop. Named recipes replace only their own rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stpl_core.errors import RecipeError
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text
from stpl_deploy.judging import open_judged
from stpl_export.export import export_run
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import evaluate
from stpl_runtime.evaluation.subject import Backend
from stpl_runtime.proof.verify import verify_bundle
from stpl_train.data.stand_in import stand_in_archive
from stpl_train.forecaster import FrameShape
from stpl_train.recipe import ArchiveSection, MovingMnistSection, Recipe, load_recipe
from stpl_train.recipe import shipped_recipes as names
from stpl_train.training import train

RESULTS = Path(__file__).parent / "results"

NARROW: dict[str, dict[str, Any]] = {
    "advect": {"hidden": 4, "width": 8},
    "cms-lstm": {"hidden": 4, "layers": 2},
    "convlstm": {"hidden": [4, 4]},
    "e3d-lstm": {"hidden": [2, 2], "kernel": 3, "history": 2},
    "mim": {"hidden": 4, "layers": 2, "kernel": 3},
    "modernn": {"hidden": 4, "layers": 2},
    "predrnn": {"hidden": 4, "layers": 2, "kernel": 3},
    "predrnn-pp": {"hidden": [4, 4], "kernel": 3},
    "predrnn-v2": {"hidden": 4, "layers": 2, "kernel": 3},
    "predrnn-zigzag": {"hidden": 4, "layers": 2, "kernel": 3},
    "sa-convlstm": {"hidden": 4, "layers": 2, "kernel": 3, "attention_kernel": 3},
}
"""Keys that make a model small; the others stay the recipe's."""

NO_FRAME: FrameShape = (1, 10, 20)
"""Of a recipe that takes the data's frames as they are: half-hourly counts on a city's grid."""


def narrow(name: str, iterations: int, folder: Path, **training: Any) -> Recipe:
    """A shipped recipe with narrow layers and data that every machine has."""
    recipe = load_recipe(name)
    model = recipe.model.model_copy(update=NARROW[recipe.model.name])
    keys = {"iterations": iterations, "batch": 1, "validate_every": iterations, "threads": 1}
    keys = {**keys, "checkpoint_every": iterations, "warmup": 0, **training}
    return recipe.model_copy(
        update={
            "model": model,
            "data": with_stand_in(recipe.data, folder / f"{name}.npz"),
            "training": recipe.training.model_copy(update=keys),
        }
    )


def with_stand_in(section: Any, path: Path) -> Any:
    """The section with digits that need no download, or with an archive of digits."""
    if isinstance(section, MovingMnistSection):
        return section.model_copy(update={"images": "scikit-learn", "validation_sequences": 4})
    if not isinstance(section, ArchiveSection):
        raise RecipeError(
            f'data.source = "{section.source}"', expected="digits or an archive", fix="extend this"
        )
    section = section.model_copy(update={"validation_sequences": 4})
    channels, height, width = section.frame or NO_FRAME
    if section.tiles:
        width *= 2
    if section.resize == "bilinear":
        height, width = height * 15 // 16, width * 5 // 4  # KTH's own 120x160
    if section.crop is not None:
        height, width = section.crop[0] + section.crop[2] + 1, section.crop[1] + section.crop[3] + 1
    return stand_in_archive(section, (channels, height, width), path)


def try_recipe(name: str, iterations: int, folder: Path) -> dict[str, Any]:
    """Train, evaluate, export and verify; return the results."""
    begun = time.monotonic()
    recipe = narrow(name, iterations, folder)
    result = train(recipe, folder / name, device="cpu")
    judged = open_judged(
        result.run, backend=Backend(threads=1), testing=isinstance(recipe.data, ArchiveSection)
    )
    own = not isinstance(recipe.data, ArchiveSection)
    scores = evaluate(judged, judged.own() if own else archive_material(judged, part="test"))
    bundle = export_run(result.run, folder / f"{name}.bundle", sequences=2)
    report = verify_bundle(bundle)
    return {
        "recipe": name,
        "frame": list(judged.frame),
        "context": judged.context,
        "horizon_trained": recipe.data.horizon,
        "horizon_evaluated": judged.horizon,
        "iterations": result.iterations,
        "sequences_evaluated": scores.sequences,
        "mse": scores.scores["model"].overall["mse"],
        "persistence_mse": scores.scores["persistence"].overall["mse"],
        "verified": report.passed,
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> None:
    """Try each and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=names())
    parser.add_argument("--iterations", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.recipes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(try_recipe(name, arguments.iterations, Path(folder)))
        row = rows[-1]
        sys.stdout.write(
            f"{name:22} {row['context']:3} -> {row['horizon_evaluated']:3}  MSE {row['mse']:10.4g}"
            f"  persistence {row['persistence_mse']:10.4g}  verified {row['verified']}"
            f"  {row['seconds']:6.1f} s\n"
        )
        sys.stdout.flush()
    path = RESULTS / "recipes-tried.json"
    kept = json.loads(path.read_text())["recipes"] if path.is_file() else []
    every = {row["recipe"]: row for row in [*kept, *rows]}
    with atomic_file(path) as file:
        rows = [every[name] for name in names() if name in every]
        made = {"recipes": rows, "machine": describe()}
        file.write(document_text(made).encode())


if __name__ == "__main__":
    main()
