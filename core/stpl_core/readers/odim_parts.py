"""Which data of an ODIM file are meant, and when each was observed.

A file may hold several quantities, heights, products and lead times, each in a dataset of its own.
Data of one quantity at several times are frames; at one time, the user chooses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.reader import ReadOptions
from stpl_core.readers.hdf5 import plain

Levels = dict[str, Any]

_REFLECTIVITY = re.compile(r"(?:T|DBZ)[HV]?C?")
"""Total, corrected and attenuation-corrected reflectivity, of either polarisation."""
_RAIN = ("RATE", "ACRR")
_SAME_SIGHT = ("DBZH", "TH", "DBZV", "TV")
"""Reflectivity before and after its correction: the first that is there is what one comes for."""
_A_SCAN = np.timedelta64(240, "s")
"""Data that begin so much after the nominal time are of a forecast."""
_SHOWN = 6
_NAMELESS = "of no name"
"""Data whose `what` lacks the quantity: nobody knows what they are."""


@dataclass(frozen=True)
class Part:
    """One field of a file, with what stands at it and at the levels above."""

    label: str
    """Number of the dataset, such as `3`; `3/2` where the dataset has several of the quantity."""
    quantity: str
    data: Any
    what: Levels
    how: Levels
    where: Levels


def is_rain(quantity: str) -> bool:
    """Whether it is rain or reflectivity."""
    return quantity in _RAIN or is_reflectivity(quantity)


def is_reflectivity(quantity: str) -> bool:
    """Whether it is in dBZ."""
    return _REFLECTIVITY.fullmatch(quantity) is not None


def attributes(group: Any, name: str) -> Levels:
    """Attributes of a group in `group`; empty where there is none."""
    if name not in group:
        return {}
    return {key: plain(value) for key, value in group[name].attrs.items()}


def chosen_parts(file: Any, options: ReadOptions, path: Path) -> tuple[list[Part], list[Part]]:
    """The fields of one quantity that are meant, and all of that quantity.

    Raises:
        FrameError: nothing says which.
        UsageError: `--select` names none that is there.
    """
    parts = _parts(file)
    select = dict(options.select)
    if wrong := set(select) - {"dataset"}:
        raise UsageError(
            f"--select {wrong.pop()} for {path}",
            expected="dataset: ODIM numbers its fields",
            fix=f"--select dataset={parts[0].label if parts else 1}",
        )
    wanted = [word.strip() for word in select.get("dataset", "").split(",") if word.strip()]
    within = [part for part in parts if not wanted or part.label in wanted]
    if missing := [word for word in wanted if word not in [part.label for part in parts]]:
        labels = list(dict.fromkeys(part.label for part in parts))
        raise UsageError(
            f"--select dataset={missing[0]}, and {path} has the datasets {', '.join(labels)}",
            expected="one of these",
            fix=f"--select dataset={labels[0]}" if labels else "another file",
        )
    name = _quantity(within or parts, options.variable, path)
    every = [part for part in parts if part.quantity == name]
    return [part for part in within if part.quantity == name], every


def times_of(every: list[Part], nominal: np.datetime64 | None, path: Path) -> list[Any]:
    """When each field of a quantity is valid: the nominal time, or that of the data.

    Data of several times are lead times or steps, of which each states its own; so does a sum, and
    what begins only after the nominal time.
    """
    starts, ends = ([stamp(part.what, edge, path) for part in every] for edge in ("start", "end"))
    if len(every) == 1:
        start, end = starts[0], ends[0]
        if nominal is None or end is None or start is None:
            return [nominal or end]
        late = start - nominal >= _A_SCAN
        summed = every[0].quantity == "ACRR" and end - nominal > np.timedelta64(60, "s")
        return [end if late or summed else nominal]
    by_end = every[0].quantity == "ACRR" or nominal not in starts or nominal in ends
    edges = ends if by_end and None not in ends else starts
    if None in edges or len(set(edges)) < len(edges):
        return [nominal] * len(every)
    return edges


def ask_which(chosen: list[Part], path: Path) -> FrameError:
    """The error of several fields at one time."""
    labels = [part.label for part in chosen]
    differing = [
        key
        for key in ("product", "prodname", "prodpar", "height", "elangle", "task")
        if len({str(_fact(part, key)) for part in chosen}) > 1
    ]
    shown = [
        f"{part.label}"
        + (f" ({', '.join(f'{key} {_fact(part, key)}' for key in differing)})" if differing else "")
        for part in chosen[:_SHOWN]
    ]
    several = f", or --select dataset={','.join(labels)}" if len(labels) <= _SHOWN else ""
    return FrameError(
        f"{path} holds {len(chosen)} datasets of {chosen[0].quantity} at one time: "
        + ", ".join(shown)
        + (", ..." if len(labels) > _SHOWN else ""),
        expected="one of them, or several as channels",
        fix=f"--select dataset={labels[0]}{several}",
    )


def stamp(levels: Levels, edge: str, path: Path) -> np.datetime64 | None:
    """The date and time of `startdate` and its like; None where they are not there.

    Raises:
        FrameError: they are there and no time.
    """
    if f"{edge}date" not in levels or f"{edge}time" not in levels:
        return None
    date, clock = str(levels[f"{edge}date"]), str(levels[f"{edge}time"])
    try:
        if not (re.fullmatch(r"\d{8}", date) and re.fullmatch(r"\d{4}(\d\d)?", clock)):
            raise ValueError("not of 8 and of 4 or 6 digits")
        d, t = date, clock.ljust(6, "0")
        return np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}T{t[:2]}:{t[2:4]}:{t[4:]}", "ns")
    except ValueError as error:
        raise FrameError(
            f"{path} has the {edge}date {date!r} and {edge}time {clock!r}",
            expected="YYYYMMDD and HHMMSS",
            fix="repair the file, or --time-format PATTERN for the time in its name",
        ) from error


def _parts(file: Any) -> list[Part]:
    found: list[Part] = []
    for dataset in _numbered(file, "dataset"):
        several: dict[str, list[tuple[str, Part]]] = {}
        for data in _numbered(file[dataset], "data"):
            groups = (file, file[dataset], file[dataset][data])
            what, how, where = (
                {key: value for group in groups for key, value in attributes(group, kind).items()}
                for kind in ("what", "how", "where")
            )
            quantity = str(what.get("quantity", _NAMELESS))
            number = dataset.removeprefix("dataset")
            part = Part(number, quantity, groups[-1]["data"], what, how, where)
            several.setdefault(quantity, []).append((data.removeprefix("data"), part))
        for alike in several.values():
            for number, part in alike:
                label = part.label if len(alike) == 1 else f"{part.label}/{number}"
                found.append(Part(label, *list(vars(part).values())[1:]))
    return found


def _numbered(group: Any, word: str) -> list[str]:
    found = [key for key in group if re.fullmatch(rf"{word}\d+", key)]
    return sorted(found, key=lambda key: int(key.removeprefix(word)))


def _quantity(parts: list[Part], wanted: str | None, path: Path) -> str:
    found = list(dict.fromkeys(part.quantity for part in parts))
    if wanted in found:
        return str(wanted)
    known = [name for name in found if is_rain(name)]
    usual = [name for name in _SAME_SIGHT if name in known]
    if wanted is None and len(known) - len(usual) + bool(usual) == 1:
        return (usual or known)[0]
    named = [name for name in found if name != _NAMELESS]
    first = next((name for name in ("RATE", *usual, *known) if name in known), "")
    raise FrameError(
        f"{path} holds the quantities {', '.join(found) or 'none'}",
        expected=wanted
        or ("one of them" if known else "rain (RATE, ACRR) or reflectivity (DBZH, TH, ...)"),
        fix=f"--variable {first or named[0]}" if named else "another file",
    )


def _fact(part: Part, key: str) -> Any:
    return next((at[key] for at in (part.what, part.where, part.how) if key in at), "none")
