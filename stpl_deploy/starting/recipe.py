"""The recipe for a source: one of ours, with the keys that its frames ask for."""

from __future__ import annotations

from typing import Any

from stpl_deploy.cli.options.settings import toml_value
from stpl_deploy.starting.sources import FoundSource

PRETRAINED = "radar-nowcast"
"""The model that comes trained, and its recipe."""
OTHER = "era5-t2m"
"""For quantities that no recipe of ours is of: a small model, and a codec of the values."""
_CADENCE_S = {PRETRAINED: 300.0, "era5-t2m": 3600.0}
"""What recipes are made for; others take any."""
_TILE = {PRETRAINED: 192, "camera": 128}
_PATCH = 8
"""Sizes that every model takes are multiples of it."""
_SLACK = 0.01


def runs_pretrained(found: FoundSource) -> bool:
    """Whether the model that comes trained reads such frames: rain, at a pace that it takes."""
    if found.recipe != PRETRAINED or found.shape[0] != 1:
        return False
    times = _CADENCE_S[PRETRAINED] / (found.cadence_s or _CADENCE_S[PRETRAINED])
    return round(times) >= 1 and abs(times - round(times)) <= _SLACK


def recipe_text(found: FoundSource) -> str:
    """A recipe that trains on the source's archive, as TOML."""
    base = found.recipe or OTHER
    sections: dict[str, dict[str, Any]] = {"data": {"path": found.word}, "data.codec": {}}
    data = sections["data"]
    expected = _CADENCE_S.get(base)
    if found.cadence_s is not None and expected is not None:
        # Rain's recipe thins by itself while it trains, so that it takes the frames as they come.
        every = 1 if base == PRETRAINED else max(1, round(expected / found.cadence_s))
        if abs(every * found.cadence_s - expected) > _SLACK * expected:
            data["cadence_s"] = every * found.cadence_s
        if every > 1:
            data["every"] = every
    data |= _frame(found, base)
    if not found.recipe:
        sections["data.codec"] = found.codec
    lines = [f"# {found.text}.", f'extends = "{base}"']
    for name, keys in sections.items():
        if keys:
            stated = (f"{key} = {toml_value(value)}" for key, value in keys.items())
            lines += ["", f"[{name}]", *stated]
    return "\n".join(lines) + "\n"


def _frame(found: FoundSource, base: str) -> dict[str, Any]:
    """The model's frames, where those of the recipe do not fit."""
    channels, height, width = found.shape
    tile = _TILE.get(base)
    if tile is not None and min(height, width) >= tile:
        return {} if channels == 1 else {"frame": [channels, tile, tile]}
    rows, columns = (max(_PATCH, size // _PATCH * _PATCH) for size in (height, width))
    made: dict[str, Any] = {"crop": [0, 0, rows, columns], "frame": [channels, rows, columns]}
    return made | ({"tiles": False} if base == PRETRAINED else {})
