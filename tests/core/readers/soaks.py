"""How many examples the long runs try: 20,000, or what SOAK_EXAMPLES says."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

calm = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
soak = settings(calm, max_examples=int(os.environ.get("SOAK_EXAMPLES", "20000")))
