"""Which settings of the models a slow test tries in every run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


def each_model_always(settings: Mapping[str, tuple[str, Any]]) -> list[Any]:
    """The first setting of each model; the variants only by hand."""
    first = {word: name for name, (word, _) in reversed(settings.items())}
    return [
        pytest.param(name, marks=() if name in first.values() else pytest.mark.soak)
        for name in settings
    ]
