"""Numbers that JSON does not have."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> Any:
    """The same document with None in the place of infinite and undefined numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value
