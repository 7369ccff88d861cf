"""Whether data are what a recipe expects: reported before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from stpl_core.errors import UsageError
from stpl_core.readers.in_units import convertible
from stpl_core.readers.survey import Survey
from stpl_train.recipe import ArchiveSection, Recipe

_CADENCE_SLACK = 0.01


@dataclass(frozen=True)
class Finding:
    """One thing that was compared."""

    what: str
    found: str
    expected: str
    fits: bool
    fix: str = ""
    """What to type or do where it does not fit."""


def compare(survey: Survey, recipe: Recipe) -> list[Finding]:
    """Compare what `data inspect` saw with what a recipe expects.

    Args:
        survey: of the data.
        recipe: whose `[data]` is an archive.

    Raises:
        UsageError: the recipe does not read an archive.
    """
    section = recipe.data
    if not isinstance(section, ArchiveSection):
        raise UsageError(
            f'a recipe with data.source = "{section.source}"',
            expected='one with data.source = "archive", which reads such data',
            fix="stpl-deploy train --list",
        )
    return [
        *_shape(survey, section),
        *_values(survey, section),
        *_cadence(survey, section),
        _count(survey, section),
    ]


def _shape(survey: Survey, section: ArchiveSection) -> list[Finding]:
    channels, height, width = survey.shape
    if section.crop is not None:
        height, width = section.crop[2:]
    if section.frame is None:
        return []
    size = f"{height}x{width}" + (" after data.crop" if section.crop else "")
    rows, columns = section.frame[1:]
    finer = section.resize == "area" and (height < rows or width < columns)
    how = "bilinear" if section.resize == "bilinear" else "area means"
    return [
        Finding(
            "channels",
            str(channels),
            str(section.frame[0]),
            channels == section.frame[0],
            f"--variable, or --set data.frame='[{channels}, {rows}, {columns}]'",
        ),
        Finding(
            "size",
            size,
            f"{rows}x{columns} by {'tiles' if section.tiles else how}",
            not finer,
            f"--set data.frame='[{channels}, {height}, {width}]', or --set data.resize=bilinear",
        ),
    ]


def _values(survey: Survey, section: ArchiveSection) -> list[Finding]:
    codec, quantity = section.codec, survey.quantity
    same = quantity.units == codec.units
    units = Finding(
        "units",
        quantity.units,
        codec.units if same else f"{codec.units}, or what can be turned into it",
        convertible(quantity, codec.units),
        f"--set data.codec.units={quantity.units!r}, with its low and high",
    )
    if not same or survey.low is None or survey.high is None:
        return [units]
    inside = codec.low <= survey.low and survey.high <= codec.high
    return [
        units,
        Finding(
            "values",
            f"{survey.low:g} to {survey.high:g}",
            codec.range_text() + (", others clipped" if codec.clip else ""),
            inside or codec.clip,
            f"--set data.codec.low={survey.low:g} --set data.codec.high={survey.high:g}, or "
            "--set data.codec.clip=true",
        ),
    ]


def _cadence(survey: Survey, section: ArchiveSection) -> list[Finding]:
    if section.cadence_s is None or survey.cadence_s is None or not survey.observed:
        return []
    found = survey.cadence_s * section.every
    every = max(1, round(section.cadence_s / survey.cadence_s))
    return [
        Finding(
            "cadence",
            f"{found:g} s",
            f"{section.cadence_s:g} s",
            abs(found - section.cadence_s) <= _CADENCE_SLACK * section.cadence_s,
            f"--set data.every={every} --set data.cadence_s={every * survey.cadence_s:g}",
        )
    ]


def _count(survey: Survey, section: ArchiveSection) -> Finding:
    span = section.window_layout.span
    held_out = section.validation_fraction
    rest = survey.frames * (1 - held_out - section.test_fraction)
    return Finding(
        "frames",
        str(survey.frames),
        f"{span} in a row for training, and for each part that is held out",
        survey.frames * held_out >= span - 0.5 and rest >= span - 0.5,
        "more frames, a shorter data.horizon, or another data.validation_fraction",
    )
