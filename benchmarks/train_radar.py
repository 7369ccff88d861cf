"""Train the radar model that is shipped, and one without each event; runs are gone on with.

    python -m benchmarks.train_radar --fmi FOLDER --knmi FOLDER --mrms FILE --work RUNS [NAME ...]

NAME: final, no-fmi, no-knmi, no-mrms; default: all. The last hours of KNMI are in none of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stpl_train.progress import make_reporter
from stpl_train.recipe import load_recipe
from stpl_train.run import RECIPE
from stpl_train.training import train

RUNS: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "final": (
        ("mrms", "fmi", "knmi"),
        {"validation_fraction": 0.119, "test_fraction": 0.155, "iterations": 2600},
    ),
    "no-fmi": (("mrms", "knmi"), {"validation_fraction": 0.157, "test_fraction": 0.204}),
    "no-knmi": (("fmi", "mrms"), {"validation_fraction": 0.24, "test_fraction": 0.0}),
    "no-mrms": (("fmi", "knmi"), {"validation_fraction": 0.15, "test_fraction": 0.2}),
}
"""Its archives, the last of which is validated on, and what differs from the recipe."""
_ITERATIONS = 900
_CADENCE_S = {"mrms": 120, "fmi": 300, "knmi": 300}


def settings(name: str, paths: dict[str, Path]) -> list[str]:
    """What `--set` says for one of them."""
    archives, own = RUNS[name]
    found = ", ".join(f"'{paths[archive]}'" for archive in archives)
    return [
        f"data.path=[{found}]",
        f"data.validation_fraction={own['validation_fraction']}",
        f"data.test_fraction={own['test_fraction']}",
        f"data.cadence_s={_CADENCE_S[archives[-1]]}",
        "data.cadences=any",
        f"data.augment.weights={[1.0] * len(archives)}",
        f"training.iterations={int(own.get('iterations', _ITERATIONS))}",
        "training.validate_every=300",
        "training.checkpoint_every=100",
    ]


def main() -> None:
    """Train what was named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*RUNS, []])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    for event in _CADENCE_S:
        parser.add_argument(f"--{event}", type=Path, required=True)
    given = parser.parse_args()
    paths = {event: getattr(given, event) for event in _CADENCE_S}
    for name in given.names or RUNS:
        out = given.work / name
        changes = [*settings(name, paths), f"training.seed={given.seed}"]
        recipe = None if (out / RECIPE).is_file() else load_recipe("radar-nowcast", changes)
        train(recipe, out, resume=True, reporter=make_reporter(quiet=False))


if __name__ == "__main__":
    main()
