"""What a nowcaster makes and a sink writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from stpl_deploy.codec import Array


@dataclass(frozen=True)
class Nowcast:
    """K predicted frames, when each is valid, and how they were made."""

    issue_time: datetime
    """Valid time of the newest observed frame; timezone-aware, UTC."""
    valid_times: tuple[datetime, ...]
    """K times, each after issue_time."""
    frames: Array
    """`(K, C, H, W)` float32, physical units, clipped to the codec's range."""
    context: Array
    """`(T, C, H, W)` float32, physical units: the frames it was made from."""
    context_times: tuple[datetime, ...]
    units: str
    quantity: str
    low: float
    """Physical value that a picture shows as black."""
    high: float
    """Physical value that a picture shows as white."""
    source_id: str = ""
    made_by: dict[str, str] = field(default_factory=dict)
    """Engine, provider, context mode, bundle checksum and the like."""
    latency_ms: float | None = None
    """From the newest frame's arrival to this nowcast; None for files."""
