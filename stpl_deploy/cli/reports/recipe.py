"""`stpl-deploy data inspect --recipe`: what is missing before a recipe can be trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from stpl_core.readers.survey import Survey
    from stpl_train.data.fitting import Finding


class Expected:
    """What a recipe expects of data."""

    def __init__(self, name: str, path: Path) -> None:
        """Read the recipe.

        Raises:
            RecipeError: there is none of this name.
            FrameError: nothing is at `path`; says what the recipe expects there.
        """
        from stpl_deploy.extras import needs

        with needs("train"):
            from stpl_core.windows.archive import check_there
            from stpl_train.recipe import ArchiveSection, load_recipe

        self._name, self._path = name, path
        self._recipe = load_recipe(name, command="--recipe")
        if isinstance(self._recipe.data, ArchiveSection):
            check_there(path, self._recipe.data)

    def document(self, survey: Survey) -> dict[str, Any]:
        """For `--json`."""
        findings = self._findings(survey)
        return {
            "name": self._name,
            "fits": all(finding.fits for finding in findings),
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }

    def report(self, survey: Survey, *, quiet: bool) -> None:
        """Print every comparison, and end with 2 where one does not fit."""
        findings = self._findings(survey)
        fits = all(finding.fits for finding in findings)
        if not quiet:
            print(f"for {self._name}")
            for one in findings:
                print(f"  {one.what:<13}{one.found}; expected {one.expected}")
                if not one.fits:
                    print(f"  {'':<13}missing: {one.fix}")
            if fits:
                print(
                    f"next: stpl-deploy train {self._name} --set data.path={self._path} --out RUN"
                )
        if not fits:
            raise typer.Exit(2)

    def _findings(self, survey: Survey) -> list[Finding]:
        from stpl_train.data.fitting import compare

        return compare(survey, self._recipe)
